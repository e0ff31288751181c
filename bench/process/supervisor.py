"""Run a job in a worker process, and return its answer or the reason why there is none.

The worker gets its own session, an empty working folder and a fixed list of variables. Whatever it does
(crash, hang, fill the memory, flood its log), it and its children are gone when `run` returns.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import subprocess
import sysconfig
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil

from bench import paths
from bench.contract import phase, plugins, wire
from bench.contract.errors import CellError
from bench.contract.job import Answer, Job, JobKind
from bench.envs.environment import Environment
from bench.machine import counters, nvml, probes
from bench.process import bound, child, model_code, scratch
from bench.progress.eta import clock

_PASSED = (
    *("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TZ", "LD_LIBRARY_PATH", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"),
    *("XDG_CACHE_HOME", "LLM_BENCH_CACHE", "HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_ENDPOINT"),
    *("CC", "CXX", "CUDA_HOME", "CUDA_PATH"),
)
_UNTIMED: tuple[JobKind, ...] = ("compress", "score", "reference")  # and may run beside another
_POLL_S, _FREE_FRACTION = 0.2, 0.02


@dataclass(frozen=True)
class Outcome:
    """`answer.error` is set when the worker failed in any way; `observed` are the facts of the probe."""

    answer: Answer
    wall_s: float
    observed: Mapping[str, Any] = field(default_factory=dict)
    probe: probes.Probe = field(default_factory=probes.Probe)


def run(
    job: Job,
    env: Environment,
    *,
    timeout_s: float,
    memory_limit_bytes: int = 0,
    on_poll: Callable[[], None] = lambda: None,
    report: Callable[[str], None] = lambda _: None,
    open_reader: counters.OpenReader = counters.reader,
) -> Outcome:
    """Run one job; `memory_limit_bytes` bounds its process tree, 0 is no limit but the machine's memory.

    `on_poll` is called every 0.2 s while it runs, `report` with each phase that begins and the steps within it.
    """
    with scratch.folder() as folder:
        device = job.device
        # The worker sees one GPU only, and to it that is the first.
        job = replace(
            job,
            answer=str(folder / "answer.json"),
            spawned_s=time.monotonic(),
            device="cuda:0" if device.startswith("cuda") else device,
        )
        (folder / "job.json").write_text(wire.dumps(job))
        work = folder / "cwd"
        work.mkdir()
        began = time.monotonic()
        argv = [env.python, "-m", "bench.process.worker_main", bound.identity(), str(folder / "job.json")]
        phases = folder / "phases"
        watchers = (on_poll, follow(phases, report))
        # Idle threads of one would else spin on the cores of the other, and both take twice as long.
        waits = {"OMP_WAIT_POLICY": "passive"} if job.kind in _UNTIMED else {}
        passed = {**waits, **variables(env, device), **model_code.blocked(work), phase.VARIABLE: str(phases)}
        with child.logged(argv, "worker", cwd=work, variables=passed, bound=False) as started:
            process, log = started
            with probes.watch(process.pid, device, open_reader=open_reader) as probe:
                stopped = _wait(process, probe, began, timeout_s, memory_limit_bytes, watchers)
        answer = _answer(Path(job.answer), process.returncode, stopped, log)
        return Outcome(answer, time.monotonic() - began, probe.facts(), probe)


def succeeded(outcome: Outcome) -> Outcome:
    """The outcome of a worker that did its job; CellError with its reason where it did not."""
    if outcome.answer.error:
        raise CellError(outcome.answer.error)
    return outcome


def lacked_memory(reason: str) -> bool:
    """Whether a failed job's reason is that memory was short, which it may not be without other work beside it."""
    return "out of memory" in reason or "for want of memory" in reason


def _wait(
    process: subprocess.Popen[bytes],
    probe: Any,
    began: float,
    timeout_s: float,
    limit: int,
    watchers: Sequence[Callable[[], None]],
) -> str:
    """Wait for the end; a sentence when the worker had to be stopped, else nothing."""
    floor = int(psutil.virtual_memory().total * _FREE_FRACTION)
    while True:
        try:
            process.wait(timeout=_POLL_S)
        except subprocess.TimeoutExpired:
            for watcher in watchers:
                watcher()
            used = probe.tree_rss_bytes
            if time.monotonic() - began > timeout_s:
                return f"did not finish within {timeout_s:g} s and was stopped; timeout_s sets this limit"
            if limit and used > limit:
                return f"out of memory: it used {used / 2**30:.2f} GiB, the limit is {limit / 2**30:.2f} GiB"
            if psutil.virtual_memory().available < floor:
                return f"out of memory: it used {used / 2**30:.2f} GiB and left the machine almost none"
        else:
            return ""


def follow(file: Path, report: Callable[[str], None]) -> Callable[[], None]:
    """A function that reports the last of the lines in a worker's file (`bench.contract.phase`), where it is another.

    The time left is counted down between them.
    """
    position, text, ends_s, reported = 0, "", math.inf, ""

    def poll() -> None:
        nonlocal position, text, ends_s, reported
        with contextlib.suppress(OSError), file.open("rb") as lines:
            lines.seek(position)
            whole = lines.read().rpartition(b"\n")[0]
            if whole:
                position += len(whole) + 1
                text, _, end = whole.rpartition(b"\n")[2].decode(errors="replace").partition("\t")
                ends_s = float(end) if end else math.inf
        left_s = ends_s - time.monotonic()
        line = f"{text}, {clock(left_s)} left" if 0 < left_s < math.inf else text
        if line != reported:
            reported = line
            report(line)

    return poll


def _answer(file: Path, code: int, stopped: str, log: child.Log) -> Answer:
    if stopped:
        return Answer(error=stopped)
    if file.exists():
        return wire.build(Answer, json.loads(file.read_text()))
    if code == -signal.SIGKILL:
        return Answer(error=f"was killed (SIGKILL), most likely by the kernel for want of memory{log.last_clause}")
    if code < 0:
        return Answer(error=f"crashed in native code ({signal.Signals(-code).name}){log.last_clause}")
    return Answer(error=f"exited with code {code} and left no answer{log.last_clause}")


def variables(env: Environment, device: str) -> dict[str, str]:
    """The environment variables of a worker: the named list, the environment's own, the one GPU it may see."""
    passed = {name: os.environ[name] for name in _PASSED if name in os.environ}
    first = str(Path(env.python).parent)
    gpu = nvml.cuda_id(device)  # or a MIG slice's UUID
    return {
        **passed,
        "PATH": os.pathsep.join([first, passed.get("PATH", os.defpath)]),  # gptqmodel calls its own ninja
        "PYTHONPATH": str(paths.import_root()),
        "PYTHONNOUSERSITE": "1",
        "PYTHONUNBUFFERED": "1",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES": "" if gpu is None else str(gpu),
        plugins.VARIABLE: os.pathsep.join(map(str, plugins.user_folders())),
        "LLM_BENCH_STDLIB": sysconfig.get_path("stdlib"),  # one text for all, whatever Python they run
        **env.variables,
    }
