from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from bench.contract.job import Answer, Job
from bench.contract.record import Artifact, Audit
from bench.contract.workload import Offline
from bench.engines import fake
from bench.envs import environment
from bench.machine import probes
from bench.measure import memory
from bench.process import supervisor

_AUDIT = Audit("hf", 0, 0, 1, 1, 2, 16.0, 0.0, tied_head=True, vocab_size=4096, context=1024)


def _run(tmp_path: Path, fail: str, *, timeout_s: float = 60.0, limit: int = 0) -> supervisor.Outcome:
    (tmp_path / "config.json").write_text('{"vocab_size": 4096}')
    job = Job(
        kind="offline",
        plugin="fake",
        folder=str(tmp_path),
        device="cpu",
        options={**vars(fake.Options()), "fail": fail},
        artifact=Artifact("d", "hf", "s", (), _AUDIT),
        workload=Offline(batch=1, prompt_tokens=2, new_tokens=3, repeats=1),
        prompts=((1, 2), (3, 4)),
    )
    env = environment.ensure("core", print)
    return supervisor.run(job, env, timeout_s=timeout_s, memory_limit_bytes=limit)


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize(
    ("fail", "reason"),
    [
        ("exception", "RuntimeError: the fake engine was asked to raise"),
        ("segfault", "crashed in native code (SIGSEGV)"),
        ("exit", "exited with code 7 and left no answer"),
    ],
)
def test_a_worker_that_dies_leaves_a_reason(tmp_path: Path, fail: str, reason: str) -> None:
    """An exception, a crash in native code and a silent exit each become one sentence."""
    assert _run(tmp_path, fail).answer.error.startswith(reason)


@pytest.mark.usefixtures("cache")
def test_a_hung_worker_is_stopped_with_its_children(tmp_path: Path) -> None:
    """At the time limit the worker and the process it started are gone, and the reason names the limit."""
    before = {p.pid for p in psutil.process_iter()}
    began = time.monotonic()
    error = _run(tmp_path, "hang", timeout_s=3).answer.error

    assert error.startswith("did not finish within 3 s")
    assert time.monotonic() - began < 10
    sleepers = [p for p in psutil.process_iter(["cmdline"]) if p.pid not in before and _sleeps(p)]
    assert sleepers == []


def _sleeps(process: psutil.Process) -> bool:
    return "time.sleep(3600)" in " ".join(process.info["cmdline"] or [])


@pytest.mark.usefixtures("cache")
def test_a_worker_over_its_memory_limit_is_stopped(tmp_path: Path) -> None:
    """A worker that keeps allocating is stopped near the limit, and the reason says how much it used."""
    outcome = _run(tmp_path, "memory", limit=600 << 20)

    assert outcome.answer.error.startswith("out of memory: it used 0.")
    assert outcome.observed["peak_rss_bytes"] > 500 << 20


@pytest.mark.usefixtures("cache")
def test_the_peak_of_a_worker_that_ends_before_the_second_sample_is_its_own_mark(tmp_path: Path) -> None:
    """The first sample is taken while the interpreter starts: a few hundred kilobytes, of a process of 10 MiB."""
    outcome = _run(tmp_path, "noise")
    first_sample_only = probes.observe(outcome.probe.samples[:1])

    assert outcome.answer.error == ""
    assert memory.host_peak_bytes({**outcome.answer.facts, **first_sample_only}) > 10 << 20


@pytest.mark.usefixtures("cache")
def test_a_flood_of_output_neither_blocks_nor_fills_the_disk(tmp_path: Path, cache: Path) -> None:
    """256 MiB on stdout: the worker still answers, and the log that is kept stays small."""
    assert _run(tmp_path, "noise").answer.error == ""
    assert (cache / "logs" / "last-worker.log").stat().st_size < 8 << 20


def test_a_worker_sees_a_named_list_of_variables(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys and stray settings of the caller do not reach a worker; the environment's own variables do."""
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    env = environment.Environment("x", sys.executable, "id", variables={"MINE": "1"})
    variables = supervisor.variables(env, "cpu")

    assert "OPENAI_API_KEY" not in variables
    assert "OMP_NUM_THREADS" not in variables
    assert (variables["MINE"], variables["CUDA_VISIBLE_DEVICES"], variables["LLM_BENCH_CACHE"]) == ("1", "", str(cache))


@pytest.mark.usefixtures("cache")
def test_a_worker_dies_with_its_parent(tmp_path: Path) -> None:
    """Killing (-9) the process that started it leaves no worker behind."""
    script = (
        "import sys; sys.path.insert(0, sys.argv[2])\n"
        "from pathlib import Path\n"
        "from tests.process import test_supervisor as t\n"
        "t._run(Path(sys.argv[1]), 'hang')\n"
    )
    root = Path(__file__).resolve().parents[2]
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path), str(root)]) as parent:
        worker = _until(lambda: _parents_among(psutil.Process(parent.pid).children()))[0]
        parent.kill()

    assert psutil.wait_procs([worker], timeout=5)[1] == []


def _parents_among(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those that have children; what asks the machine for its facts has ended by the time it is asked."""
    parents = []
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            parents += [process] if process.children() else []
    return parents


def _until(ready: Callable[[], list[psutil.Process]], limit_s: float = 20.0) -> list[psutil.Process]:
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        if processes := ready():
            return processes
        time.sleep(0.1)
    raise AssertionError("nothing came up in time")


def test_what_a_worker_is_doing_is_followed_line_by_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole lines alone, the last of them, once; the time left is counted down until it is over."""
    file, reports, now_s = tmp_path / "phases", list[str](), 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now_s)
    poll = supervisor.follow(file, reports.append)
    poll()
    file.write_text("loading\nlayer 1 of 2\nlay")
    poll()
    poll()
    with file.open("a") as lines:
        lines.write("er 2 of 2\t163.0\n")
    poll()
    poll()
    now_s = 102.0
    poll()
    now_s = 170.0
    poll()

    assert reports == ["layer 1 of 2", "layer 2 of 2, 1:03 left", "layer 2 of 2, 1:01 left", "layer 2 of 2"]


def test_an_answer_without_error_is_success() -> None:
    """An empty error is the only mark of success."""
    assert Answer().error == ""
