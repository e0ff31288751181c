"""Child processes: what is kept of their output, and that none outlives what started it, however that ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from bench import paths
from bench.process import child
from tests.conftest import ROOT

# A build, as pip's, whose command starts another, as a compiler; both would run for ten minutes.
_BUILD = """
import sys
from pathlib import Path
from bench.envs.build_log import Build
COMMAND = '''
import os, subprocess, sys, time
from pathlib import Path
other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
file = Path(sys.argv[1])
file.with_suffix(".part").write_text(f"{os.getpid()} {other.pid}")
file.with_suffix(".part").rename(file)
time.sleep(600)
'''
Build("b", Path(sys.argv[1], "log"), print).step([sys.executable, "-c", COMMAND, str(Path(sys.argv[1], "pids"))])
"""


def log_of(script: str, folder: Path) -> child.Log:
    """The log of a Python process that has ended."""
    with child.logged([sys.executable, "-c", script], "test", cwd=folder, variables={}) as (process, log):
        process.wait(60)
    return log


@pytest.mark.usefixtures("cache")
def test_a_flood_without_line_ends_is_bounded(tmp_path: Path) -> None:
    """300 MB on one line: what is kept of it is a few MiB, its beginning and its end."""
    log = log_of("for i in range(300): print('%03d' % i * 333333, end='')\nprint('the end')", tmp_path)

    assert len(log.text) < 8 << 20
    assert log.text.startswith("000000")
    assert log.text.endswith("299the end\n")


@pytest.mark.usefixtures("cache")
def test_a_log_is_text_without_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its file steers no terminal that shows it; its last line has no secret, not even where it is cut."""
    monkeypatch.setenv("ACME_API_KEY", "sk-0123456789")
    log = log_of(r"print('\x1b[31mred\x1b[0m\n' + 'x' * 195 + 'sk-0123456789')", tmp_path)
    text = (paths.cache_folder("logs") / "last-test.log").read_text()

    assert text == f" [31mred [0m\n{'x' * 195}<ACME_API_KEY>\n"
    assert log.last == f"{'x' * 195}<ACME"
    assert log.last_clause.endswith("<ACME")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_build_ends_with_what_it_started(tmp_path: Path, number: signal.Signals) -> None:
    """The command of a build and that one's own children are gone after a kill -9 of the run, or a polite one."""
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", _BUILD, str(tmp_path)], env=variables) as run:
        file = tmp_path / "pids"
        while not file.exists():
            assert run.poll() is None
            time.sleep(0.02)
        processes = [psutil.Process(int(pid)) for pid in file.read_text().split()]
        run.send_signal(number)

    assert psutil.wait_procs(processes, timeout=20)[1] == []


def test_an_interrupt_waits_until_a_process_can_be_ended() -> None:
    """What comes while a process is started is raised once it is known, and only once."""
    after = []

    def start() -> None:
        with child._uninterrupted():
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            after.append("known")

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            start()
        assert after == ["known"]
        assert signal.getsignal(signal.SIGINT) == signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_process_ends_with_its_block() -> None:
    """Whatever raises in it."""
    processes = []

    def use() -> None:
        with child.running([sys.executable, "-c", "import time; time.sleep(600)"]) as process:
            processes.append(process)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        use()
    (process,) = processes
    assert process.stdout is not None
    process.stdout.close()
    assert process.returncode == -signal.SIGKILL
