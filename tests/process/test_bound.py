"""A process bound to its parent: it does not begin, or does not go on, without one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bench.process import bound
from tests.conftest import ROOT

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the kernel binds processes on Linux")
_SAYS = (sys.executable, "-c", "print('ran')")


def _run(identity: str, *prefix: str) -> subprocess.CompletedProcess[str]:
    argv = [*prefix, sys.executable, str(ROOT / "bench/process/bound.py"), identity, *_SAYS]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def _ended() -> str:
    """The identity of a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    return f"{process.pid}@{bound.machine()}"


def test_a_command_of_a_living_parent_runs() -> None:
    """As it is, with its own output."""
    assert _run(bound.identity()).stdout == "ran\n"


def test_a_command_whose_parent_has_ended_does_not_run() -> None:
    """It had no one to tell it of that end: it compares its parent with the one that it was passed."""
    done = _run(_ended())
    assert (done.returncode, done.stdout) == (-9, "")


def test_a_parent_that_nobody_has_waited_for_has_ended() -> None:
    """A zombie still has its id."""
    with subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE) as zombie:
        assert zombie.stdout is not None
        zombie.stdout.read()  # to its end, and it is not waited for
        while b"\nState:\tZ" not in Path(f"/proc/{zombie.pid}/status").read_bytes():
            pass
        assert _run(f"{zombie.pid}@{bound.machine()}").returncode == -9


def test_a_wrapper_between_is_no_end() -> None:
    """An interpreter may be a script that starts another: the parent is the script then, and what was passed lives."""
    assert _run(bound.identity(), "sh", "-c", '"$0" "$@"; true').stdout == "ran\n"


def test_an_id_of_another_container_says_nothing() -> None:
    """Where processes have other ids nobody can tell, and the command runs."""
    assert _run(f"{_ended().partition('@')[0]}@elsewhere").stdout == "ran\n"


def test_a_worker_whose_parent_has_ended_does_not_begin(tmp_path: Path) -> None:
    """It ends before it has read its job, and before what takes it longest: its imports."""
    argv = [sys.executable, "-X", "importtime", "-m", "bench.process.worker_main", _ended(), str(tmp_path / "job.json")]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == -9
    assert "bench.process.bound" in done.stderr
    assert "bench.contract" not in done.stderr
    assert "Traceback" not in done.stderr
