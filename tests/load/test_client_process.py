from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from time import perf_counter
from typing import Any

from bench.contract import wire
from bench.load.client import read_answer
from bench.load.job import ClosedSchedule, LoadJob, Request
from tests.instrument.scripted_server import Scripted, running
from tests.load.loads import endpoint, requests

ROOT = Path(__file__).resolve().parents[2]
QUICK: dict[str, Any] = {"ttft_s": 0.005, "itl_s": 0.002}


def start(job: LoadJob, folder: Path) -> subprocess.Popen[bytes]:
    (folder / "job.json").write_text(wire.dumps(job))
    words = [sys.executable, "-m", "bench.load.client", str(folder / "job.json"), str(folder / "answer.json")]
    return subprocess.Popen(words, cwd=ROOT)


def test_a_load_runs_in_a_process_of_its_own(server: Scripted, tmp_path: Path) -> None:
    """A job file in, an answer file out; its first request reaches the server within 2 s of the command.

    The bound is for a machine that does other things; the benchmark states what it is on an idle one.
    """
    server.reset()
    began = perf_counter()
    with start(LoadJob(endpoint(server), requests(*[QUICK] * 10), closed=ClosedSchedule(2)), tmp_path) as process:
        assert process.wait(20) == 0
    answer = read_answer(tmp_path / "answer.json")

    log = server.log()
    assert log[0].received_s - began < 2.0
    assert len(answer.measured) == 6
    assert answer.failures == {}
    assert answer.measured[0].trace.event_tokens == (1,) * 8
    first = answer.zero_s + answer.measured[0].trace.sent_s
    assert 0 <= next(e for e in log if e.key == "request 4").received_s - first < 0.1


def test_a_job_that_cannot_run_is_answered(server: Scripted, tmp_path: Path) -> None:
    """The answer says why; there is no traceback to read."""
    job = LoadJob(endpoint(server, url="nowhere"), (Request(1, text="x"),), closed=ClosedSchedule(1, 0))
    with start(job, tmp_path) as process:
        assert process.wait(20) == 0

    assert "invalid server URL" in read_answer(tmp_path / "answer.json").error


def test_an_interrupt_keeps_what_was_finished(server: Scripted, tmp_path: Path) -> None:
    """SIGINT in the middle: finished requests are whole, those in flight are counted as cancelled."""
    scripts = [*[QUICK] * 6, *[{"never": True}] * 6]
    server.reset()
    with start(LoadJob(endpoint(server), requests(*scripts), closed=ClosedSchedule(2, 2)), tmp_path) as process:
        while len(server.log()) < 8:
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(20) == 0
    answer = read_answer(tmp_path / "answer.json")

    assert answer.ended == "stopped"
    assert answer.failures == {"cancelled": 2}
    assert [sum(s.trace.event_tokens) for s in answer.measured] == [8, 8, 8, 8, 0, 0]


def test_a_server_that_dies_loses_no_finished_request(tmp_path: Path) -> None:
    """Killed in the middle: what was finished is whole, what was in flight or came after is counted."""
    with running() as server:
        job = LoadJob(endpoint(server), requests(*[{"ttft_s": 0.05}] * 40), closed=ClosedSchedule(2, 2))
        with start(job, tmp_path) as process:
            while len(server.log()) < 12:
                time.sleep(0.02)
            server.process.kill()
            assert process.wait(20) == 0
    answer = read_answer(tmp_path / "answer.json")

    whole = [s for s in answer.measured if s.failure is None]
    assert len(whole) >= 8
    assert all(sum(s.trace.event_tokens) == 8 for s in whole)
    assert len(answer.measured) == 38
    assert set(answer.failures) <= {"refused", "reset", "truncated"}
    assert sum(answer.failures.values()) == 38 - len(whole)
