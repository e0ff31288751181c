"""A folder of files for a machine without a network: all that a build needs, and nothing unchecked."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.envs import pins
from tests.conftest import Command
from tests.envs.index import Index

pytestmark = pytest.mark.slow


def test_an_environment_is_built_from_the_folder_alone(
    index: Index, envs: Path, command: Command, tmp_path: Path
) -> None:
    """Wheels and what they ask for; packages of other versions that lie there are another environment's."""
    entries = {("wanted", "1.0"): frozenset({index.wheel("wanted", requires=["needed"])})}
    entries["needed", "1.0"] = frozenset({index.wheel("needed")})
    (envs / "hashes" / "tiny.txt").write_text(pins.text("of this test", entries, ()))
    folder = tmp_path / "wheels"
    folder.mkdir()
    other = Index(tmp_path / "other", "")
    other.wheel("needed", "2.0")
    (tmp_path / "other/simple/needed/needed-2.0-py3-none-any.whl").rename(folder / "needed-2.0-py3-none-any.whl")
    first = command("bench", "envs", "download", "tiny", "--to", str(folder))

    assert first.returncode == 0, first.stderr
    assert f"(there: PIP_NO_INDEX=1 PIP_FIND_LINKS={folder} python -m bench envs build tiny)" in first.stderr
    assert {file.name for file in folder.glob("*.whl")} == {
        f"{name}-py3-none-any.whl" for name in ("wanted-1.0", "needed-1.0", "needed-2.0")
    }
    nowhere = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder)}
    second = command("bench", "envs", "build", "tiny", **nowhere)
    assert second.returncode == 0, second.stderr
    assert "tiny: ready, " in command("bench", "envs", "list").stdout


def test_what_cannot_be_fetched_is_one_sentence(index: Index, envs: Path, command: Command, tmp_path: Path) -> None:
    """No file of hashes, a damaged file in the folder, altered bytes at the index."""
    words = ("bench", "envs", "download", "tiny", "--to", str(tmp_path / "wheels"))
    assert "has no file of hashes: make it with python -m bench envs lock tiny" in command(*words).stderr

    index.wheel("wanted")
    entries = {(name, "1.0"): frozenset({64 * "a"}) for name in ("wanted", "needed")}
    (envs / "hashes" / "tiny.txt").write_text(pins.text("of this test", entries, ()))
    altered = command(*words)
    assert altered.returncode == 2
    assert "is not one that was pinned" in altered.stderr
    (tmp_path / "wheels" / "wanted-1.0-py3-none-any.whl").write_bytes(b"PK")
    damaged = command(*words)
    assert damaged.returncode == 2
    assert "wanted-1.0-py3-none-any.whl is not a whole package: remove it and run the command again" in damaged.stderr
