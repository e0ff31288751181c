"""Start a worker, watch it, and come back with its answer or with the reason there is none.

The worker gets its own session, an empty working folder and a named list of variables. Whatever it does
(crash, hang, fill the memory, flood its log), it and its children are gone when `run` returns.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sysconfig
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

import psutil

from bench import paths
from bench.contract import plugins, wire
from bench.contract.errors import CellError
from bench.contract.job import PHASE, Answer, Job
from bench.envs.environment import Environment
from bench.machine import counters, nvml, probes

_PASSED = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "TMPDIR",
    "TZ",
    "XDG_CACHE_HOME",
    "LLM_BENCH_CACHE",
    "LD_LIBRARY_PATH",
    "HF_HOME",
    "HF_HUB_CACHE",
    "HF_HUB_OFFLINE",
    "HF_ENDPOINT",
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "CC",
    "CXX",
    "CUDA_HOME",
    "CUDA_PATH",
)
_LOG_HEAD, _LOG_LINES = 1 << 20, 2000
_POLL_S, _FREE_FRACTION = 0.2, 0.02


@dataclass(frozen=True)
class Outcome:
    """What came back.

    `answer.error` is set when the worker failed in any way; `observed` are the facts of the probe.
    """

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
    """Run one job.

    `memory_limit_bytes` bounds the process tree; 0 leaves the machine's own memory as the bound. `on_poll`
    is called now and then while it runs, `report` with each phase that the worker says it is in.
    """
    with scratch() as folder:
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
        process = subprocess.Popen(
            [env.python, "-m", "bench.process.worker", str(folder / "job.json")],
            cwd=work,
            env=variables(env, device),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        log = Log(process.stdout)
        watchers = (on_poll, follow(folder / PHASE, report))
        try:
            with probes.watch(process.pid, device, open_reader=open_reader) as probe:
                stopped = _wait(process, probe, began, timeout_s, memory_limit_bytes, watchers)
        finally:
            end(process)
            log.save()
        answer = _answer(Path(job.answer), process.returncode, stopped, log)
        return Outcome(answer, time.monotonic() - began, probe.facts(), probe)


def succeeded(outcome: Outcome) -> Outcome:
    """The outcome of a worker that did its job; CellError with its reason where it did not."""
    if outcome.answer.error:
        raise CellError(outcome.answer.error)
    return outcome


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
    """What reports the line that a worker leaves in a file, whenever it is another one."""
    last = ""

    def look() -> None:
        nonlocal last
        with contextlib.suppress(OSError):
            if (line := file.read_text(errors="replace").strip()) and line != last:
                last = line
                report(line)

    return look


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill the worker's whole group, and descendants that left it, and wait for them."""
    left: list[psutil.Process] = []
    with contextlib.suppress(psutil.Error):
        left = psutil.Process(process.pid).children(recursive=True)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    for child in left:
        with contextlib.suppress(psutil.Error):
            child.kill()
    process.wait()
    psutil.wait_procs(left, timeout=5)


def _answer(file: Path, code: int, stopped: str, log: Log) -> Answer:
    if stopped:
        return Answer(error=stopped)
    if file.exists():
        return wire.build(Answer, json.loads(file.read_text()))
    last = f"; last line of its log: {log.last}" if log.last else ""
    if code == -signal.SIGKILL:
        return Answer(error=f"was killed (SIGKILL), most likely by the kernel for want of memory{last}")
    if code < 0:
        return Answer(error=f"crashed in native code ({signal.Signals(-code).name}){last}")
    return Answer(error=f"exited with code {code} and left no answer{last}")


class Log:
    """A process's output: its first MiB and last 2,000 lines are kept, however much it prints."""

    def __init__(self, stream: IO[bytes] | None) -> None:
        self._stream = stream
        self._head: list[bytes] = []
        self._tail: deque[bytes] = deque(maxlen=_LOG_LINES)
        self._thread = threading.Thread(target=self._drain, daemon=True)
        self._thread.start()

    @property
    def last(self) -> str:
        """The last line that says something, shortened."""
        lines = [*self._head[-20:], *self._tail]
        texts = [line.decode(errors="replace").strip() for line in lines]
        return next((text[:200] for text in reversed(texts) if text), "")

    @property
    def text(self) -> str:
        """All that is kept."""
        return b"".join([*self._head, *self._tail]).decode(errors="replace")

    def save(self, word: str = "worker") -> None:
        """Leave it in the cache as last-<word>.log, once the process has ended."""
        self._thread.join(timeout=5)
        if self._stream is not None and not self._thread.is_alive():
            self._stream.close()
        with contextlib.suppress(OSError):  # a full disk must not hide why the worker ended
            (paths.cache_folder("logs") / f"last-{word}.log").write_bytes(self.text.encode())

    def _drain(self) -> None:
        kept = 0
        while self._stream is not None and (line := self._stream.readline(1 << 16)):
            if kept < _LOG_HEAD:
                self._head.append(line)
                kept += len(line)
            else:
                self._tail.append(line)


def variables(env: Environment, device: str) -> dict[str, str]:
    """What the worker's environment holds.

    The named list, the environment's own, and the one GPU it may see.
    """
    passed = {name: os.environ[name] for name in _PASSED if name in os.environ}
    first = str(Path(env.python).parent)
    gpu = nvml.index(device)  # or a MIG slice's UUID
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


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A working folder named after this process; folders of processes that are gone are cleared away."""
    root = paths.cache_folder("scratch")
    for left in root.iterdir():
        owner = left.name.partition("-")[0]
        if not (owner.isdigit() and psutil.pid_exists(int(owner))):
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f"{os.getpid()}-", dir=root, ignore_cleanup_errors=True) as folder:
        yield Path(folder)
