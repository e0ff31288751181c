"""Files of hashes: read as pip reads them, and written so that they are read as the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import paths
from bench.contract.errors import UserError
from bench.envs import environment, pins

_A, _B, _C = "a" * 64, "b" * 64, "c" * 64


def _read(folder: Path, text: str) -> pins.Pins:
    file = folder / "hashes.txt"
    file.write_text(text)
    return pins.read(file)


def test_what_is_written_is_read_as_the_same(tmp_path: Path) -> None:
    """Entries and sources; a build of a version (1.0+cpu) is another entry, and its files are files of the pin."""
    entries = {
        ("torch", "1.0"): frozenset({_A, _B}),
        ("torch", "1.0+cpu"): frozenset({_C}),
        ("z", "2"): frozenset({_A}),
    }
    locked = _read(tmp_path, pins.text("made by hand", entries, ["z"]))

    assert locked.entries == entries
    assert locked.sources == {"z"}
    torch = locked.by_name["torch"]
    assert (torch.version, torch.builds) == ("1.0", ["1.0+cpu"])
    assert torch.line("1.0") == f"torch==1.0 --hash=sha256:{_A} --hash=sha256:{_B}"
    assert torch.line("1.0+cpu") == f"torch==1.0+cpu --hash=sha256:{_C}"


@pytest.mark.parametrize(
    "line",
    [
        "torch==1.0",
        "torch>=1.0 --hash=sha256:" + _A,
        "torch==1.0 --hash=md5:" + _A,
        "-r other.txt",
        "torch==1.0 --hash",
    ],
)
def test_a_line_without_a_hash_is_refused(line: str, tmp_path: Path) -> None:
    """One sentence with the file and the line: a pin that nothing vouches for would be installed unchecked."""
    with pytest.raises(UserError, match=r"hashes\.txt: '.*' is not NAME==VERSION --hash=sha256:"):
        _read(tmp_path, f"good==1 --hash=sha256:{_A}\n{line}\n")


def test_two_versions_of_a_package_are_refused(tmp_path: Path) -> None:
    """Which of them is meant is not for pip to choose."""
    locked = _read(tmp_path, f"a==1 --hash=sha256:{_A}\na==2 --hash=sha256:{_A}\n")

    with pytest.raises(UserError, match=r"hashes\.txt lists a 1 and 2"):
        _ = locked.by_name


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
@pytest.mark.parametrize("name", sorted(set(environment.names()) - {"core", "tensorrt_llm"}))
def test_every_pin_has_its_hash(name: str, kind: str) -> None:
    """Each environment's file of hashes lists each of its pins in that very version, and its source archive.

    tensorrt_llm has none: what it asks for is on NVIDIA's index alone.
    """
    spec = environment.variant(name, kind)
    pinned = pins.read(spec.hashes).by_name

    assert {key: pinned[key].version for key in pins.constrained(spec.pins)} == pins.constrained(spec.pins)
    for text in (*spec.no_deps, *((spec.source.package,) if spec.source else ())):
        package, _, version = text.partition("==")
        assert pinned[package].version == version


def test_what_builds_source_archives_is_pinned() -> None:
    """The tools have hashes too, and come as wheels: nothing has to be built to build them."""
    locked = pins.read(paths.CONFIGS / "envs" / "hashes" / "build.txt")

    assert {"setuptools", "wheel", "scikit-build-core", "cmake", "ninja"} <= locked.by_name.keys()
    assert not locked.sources
