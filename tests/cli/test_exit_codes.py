"""How commands end: by signals at any moment, without a reader, without a place to write."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT, Command
from tests.run.fake_runs import suite_file

pytestmark = pytest.mark.slow  # starts the commands many times

_GUARDED = """
import atexit, os, signal, sys
from bench.cli.exit_codes import guarded
def kill(): os.kill(os.getpid(), getattr(signal, sys.argv[1]))
{}
guarded(command)
"""
_SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"]


@pytest.fixture(autouse=True)
def _heard() -> None:
    if any(signal.getsignal(getattr(signal, name)) == signal.SIG_IGN for name in _SIGNALS):
        pytest.skip("these tests were started where a signal is ignored, as behind nohup")


def _guarded(code: str, name: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-c", _GUARDED.format(code), name]
    return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize("name", _SIGNALS)
def test_a_signal_within_an_exec_ends_in_130(name: str) -> None:
    """As in the making of a dataclass, which half of the imports are: CPython would die by SIGINT in silence."""
    done = _guarded("def command(): exec('kill(); import time; time.sleep(60)')", name)

    assert done.returncode == 130
    assert done.stderr == "stopped; what is finished is kept, run the same command to go on\n"


@pytest.mark.parametrize("name", _SIGNALS)
def test_a_signal_after_the_end_changes_nothing(name: str) -> None:
    """What is done is done: the exit code is the command's, and the interpreter that winds up is not killed."""
    done = _guarded("def command(): atexit.register(kill); sys.exit(1)", name)

    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.parametrize("name", _SIGNALS)
@pytest.mark.parametrize("delay_s", [0.0, 0.05, 0.1, 0.2, 0.4])
def test_a_signal_is_heard_from_the_start(cache: Path, tmp_path: Path, name: str, delay_s: float) -> None:
    """While a run is still imported and planned, as later: 130, and a last line that says how to go on."""
    words = [sys.executable, "-m", "bench", "run", suite_file(tmp_path), "--results", str(tmp_path / "results")]
    number = getattr(signal, name)
    with subprocess.Popen(words, cwd=ROOT, env={**os.environ, "LLM_BENCH_CACHE": str(cache)}, stderr=-1) as run:
        while not _hears(run.pid, signal.SIGHUP):  # the last that it sets
            assert run.poll() is None
        time.sleep(delay_s)
        run.send_signal(number)
        stderr = run.communicate(timeout=60)[1].decode()

    assert run.returncode == 130
    assert stderr.splitlines()[-1].startswith("stopped; what is finished is kept")
    assert stderr.count("stopped") == 1
    assert "Traceback" not in stderr


def _hears(pid: int, number: int) -> bool:
    """Whether the process has a handler for the signal."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return False
    caught = next((line.split()[1] for line in lines if line.startswith("SigCgt")), "0")
    return bool(int(caught, 16) >> (number - 1) & 1)


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_run_goes_on_without_a_reader(cache: Path, tmp_path: Path, stream: str) -> None:
    """`head -1` has left: all rounds are recorded, the exit code is 0, and there is no traceback."""
    words = [sys.executable, "-m", "bench", "run", suite_file(tmp_path), "--results", str(tmp_path / "results")]
    read, write = os.pipe()
    os.close(read)
    out, err = (write, subprocess.PIPE) if stream == "stdout" else (subprocess.PIPE, write)
    run = subprocess.run(
        words,
        cwd=ROOT,
        env={**os.environ, "LLM_BENCH_CACHE": str(cache)},
        check=False,
        stdout=out,
        stderr=err,
        text=True,
    )
    os.close(write)

    assert run.returncode == 0
    assert len(list(tmp_path.rglob("serving/**/r*.json"))) == 2
    rest = run.stderr if stream == "stdout" else run.stdout
    assert "Traceback" not in rest
    assert ("2 ok" if stream == "stdout" else "TTFT") in rest


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_closed_stream_is_no_reader(cache: Path, tmp_path: Path, closed: str) -> None:
    """Nor is it the file that was opened next: all is recorded, nothing is printed into it."""
    words = f"{sys.executable} -m bench run {suite_file(tmp_path)} --results {tmp_path / 'results'} {closed}"
    run = subprocess.run(
        ["bash", "-c", words],
        cwd=ROOT,
        env={**os.environ, "LLM_BENCH_CACHE": str(cache)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert run.returncode == 0
    assert len(list(tmp_path.rglob("serving/**/r*.json"))) == 2
    records = [json.loads(path.read_text()) for path in tmp_path.rglob("results/**/r*.json")]
    assert {record["status"] for record in records} == {"ok"}
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize("words", [["list", "engines"], ["table"], ["schema"]])
def test_output_that_nobody_reads_is_no_error(command: Command, tmp_path: Path, words: list[str]) -> None:
    """Exit code 0 and nothing on stderr; a full disk for an output is one sentence and exit code 2."""
    command("bench", "run", suite_file(tmp_path))
    results = ["--results", str(tmp_path / "results")] if words == ["table"] else []
    argv = [sys.executable, "-m", "bench", *words, *results]
    read, write = os.pipe()
    os.close(read)
    left = subprocess.run(argv, cwd=ROOT, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    with Path("/dev/full").open("w") as full:
        stuck = subprocess.run(argv, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, check=False)

    assert (left.returncode, left.stderr) == (0, "")
    assert stuck.returncode == 2
    assert stuck.stderr == ("error: the output cannot be written (No space left on device); send it elsewhere\n")


@pytest.mark.parametrize(
    ("variables", "words", "named"),
    [
        ({"HOME": "/dev/null"}, (), "/dev/null/.cache/llm-bench"),
        ({"HOME": "/proc"}, (), "/proc/.cache/llm-bench"),
        ({"LLM_BENCH_CACHE": "{file}"}, (), "{file}"),
        ({}, ("--results", "{file}"), "{file}"),
        ({}, ("--results", "/proc/results"), "/proc/results"),
    ],
)
def test_a_folder_that_cannot_be_used_is_one_sentence(
    tmp_path: Path, cache: Path, variables: dict[str, str], words: tuple[str, ...], named: str
) -> None:
    """A home, a cache or results where nothing can be written: exit code 2, by name, and what to do instead."""
    (tmp_path / "file").touch()
    file = str(tmp_path / "file")
    env = {**os.environ, "LLM_BENCH_CACHE": str(cache)} | {k: v.format(file=file) for k, v in variables.items()}
    if "HOME" in variables:
        env = {k: v for k, v in env.items() if k not in ("LLM_BENCH_CACHE", "XDG_CACHE_HOME")}
    argv = [sys.executable, "-m", "bench", "run", suite_file(tmp_path), *(word.format(file=file) for word in words)]
    done = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, check=False)

    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: ")
    assert named.format(file=file) in last
    assert ("--results" if "--results" in words else "LLM_BENCH_CACHE") in last
    assert "Traceback" not in done.stderr


def test_doctor_says_that_the_cache_cannot_be_used() -> None:
    """In one sentence, after what it could look at."""
    env = {k: v for k, v in os.environ.items() if k not in ("LLM_BENCH_CACHE", "XDG_CACHE_HOME")}
    argv = [sys.executable, "-m", "bench", "doctor"]
    done = subprocess.run(argv, cwd=ROOT, env={**env, "HOME": "/dev/null"}, capture_output=True, text=True, check=False)

    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: the cache /dev/null/.cache/llm-bench cannot be used")
    assert "Traceback" not in done.stderr
