"""Working folders: held by those who live, wherever they live, and cleared away after the others."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.process import scratch
from tests.conftest import ROOT

_HOLD = """
import sys
from bench.process import scratch
with scratch.folder() as folder:
    (folder / "work").touch()
    print(folder, flush=True)
    sys.stdin.read()
"""


def _holder(*prefix: str) -> subprocess.Popen[str]:
    """Another process with a folder; its first line is the folder."""
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    argv = [*prefix, sys.executable, "-c", _HOLD]
    return subprocess.Popen(argv, env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _folder(holder: subprocess.Popen[str]) -> Path:
    assert holder.stdout is not None
    return Path(holder.stdout.readline().strip())


@pytest.mark.usefixtures("cache")
def test_a_folder_is_cleared_away_once_its_process_was_killed() -> None:
    """Not while it lives; by the next one that needs a folder."""
    with _holder() as other:
        theirs = _folder(other)
        with scratch.folder() as own:
            assert own != theirs
            assert (theirs / "work").exists()
        other.kill()
    assert theirs.exists()
    with scratch.folder() as own:
        assert [own] == list(own.parent.iterdir())
    assert list(theirs.parent.iterdir()) == []


@pytest.mark.usefixtures("cache")
def test_containers_that_share_a_cache_leave_each_other_alone() -> None:
    """One that does not see our processes keeps off our folder, as we keep off its."""
    apart = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
    if subprocess.run([*apart, "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs the right to make a namespace of processes")
    with scratch.folder() as own, _holder(*apart) as other:
        (own / "work").touch()
        theirs = _folder(other)
        with scratch.folder():
            assert (theirs / "work").exists()
            assert (own / "work").exists()
        other.communicate("")
    assert list(own.parent.iterdir()) == []
