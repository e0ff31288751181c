"""What is built once: whole or not there, whoever else wants it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

from bench.contract.errors import CellError, UserError
from bench.process import cache as built
from tests.conftest import ROOT

# Builds a folder in half a second, and writes down that it did.
_SCRIPT = """
import sys, time
from pathlib import Path
from bench.process.cache import build_once
folder, log = Path(sys.argv[1]), Path(sys.argv[2])
def build(part):
    time.sleep(0.5)
    (part / "file").write_text("whole")
    with log.open("a") as file: file.write("built\\n")
build_once(folder, lambda: folder if folder.is_dir() else None, build)
print((folder / "file").read_text())
"""


def test_processes_that_want_the_same_folder_build_it_once(tmp_path: Path) -> None:
    """Three at a time: one builds, the others wait and find it whole."""
    argv = [sys.executable, "-c", _SCRIPT, str(tmp_path / "made.of.dots"), str(tmp_path / "log")]
    running = [subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(3)]

    assert [process.communicate(timeout=30)[0] for process in running] == ["whole\n"] * 3
    assert (tmp_path / "log").read_text() == "built\n"


def test_who_waits_for_another_build_says_so_and_gives_up_in_the_end(tmp_path: Path) -> None:
    """With what it waits for and for how long at most; then one sentence says what to do."""
    folder, reports = tmp_path / "hf-123", list[str]()
    with (
        FileLock(tmp_path / "hf-123.lock"),
        pytest.raises(
            UserError, match=r"another run has been building .*hf-123 for 0 min: wait for its end, or end it"
        ),
    ):
        built.build_once(folder, lambda: None, Path.touch, reports.append, wait_limit_s=0.6)

    assert set(reports) == {"waiting for another run that builds hf-123, 0 min at most"}
    assert not folder.exists()


@pytest.mark.parametrize("in_place", [False, True])
def test_a_build_that_fails_leaves_nothing(tmp_path: Path, *, in_place: bool) -> None:
    """What it raises passes through, half of a folder is no folder, and the next build begins anew."""
    folder = tmp_path / "folder"

    def fail(part: Path) -> None:
        (part / "half").touch()
        raise CellError("no luck")

    def find() -> str | None:
        return (folder / "file").read_text() if (folder / "file").exists() else None

    with pytest.raises(CellError, match="no luck"):
        built.build_once(folder, find, fail, in_place=in_place)
    assert [f.name for f in tmp_path.iterdir()] == ["folder.lock"]
    (tmp_path / "folder.part").mkdir()
    (tmp_path / "folder.part" / "left").touch()
    assert built.build_once(folder, find, lambda part: (part / "file").write_text("x"), in_place=in_place) == "x"
    assert [f.name for f in folder.iterdir()] == ["file"]


def test_a_folder_that_was_cut_short_is_filled_again(cache: Path) -> None:
    """Its description has the size of each file; what `fill` returns is in it."""
    calls: list[Path] = []

    def fill(part: Path) -> dict[str, int]:
        calls.append(part)
        (part / "file").write_text("12345")
        return {"rows": 5}

    folder = built.ensure("kind", "digest", "about.json", fill)
    assert folder == cache / "kind" / "digest" == built.ensure("kind", "digest", "about.json", fill)
    (folder / "file").write_text("123")
    assert built.find("kind", "digest", "about.json") is None
    assert built.ensure("kind", "digest", "about.json", fill) == folder
    assert len(calls) == 2
    assert '"rows": 5' in (folder / "about.json").read_text()
