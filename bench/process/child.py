"""Child processes: each leads a process group of its own, which is killed when its block ends."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import IO, cast

import psutil

from bench import paths
from bench.contract import outside
from bench.contract.errors import CellError, UserError
from bench.process.bound import identity

_BOUND, _KEEPER = (str(Path(__file__).with_name(name)) for name in ("bound.py", "keeper.py"))
_LOG_HEAD, _LOG_TAIL, _LOG_LINES = 1 << 20, 4 << 20, 2000
_LAST = 200  # characters
_running: set[int] = set()
_telling = threading.Lock()  # one keeper, whichever thread is first
_ending = threading.Event()
_STOPPED = "the run was stopped"


@contextlib.contextmanager
def running(
    argv: Sequence[str], *, cwd: Path | None = None, variables: Mapping[str, str] | None = None, bound: bool = True
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a command, and end it and whatever it started when the block ends; its output is one pipe.

    It ends with this process too, however that ends. `bound` costs the start of an interpreter: a worker, whose
    start is measured, binds itself.
    """
    prefix = (sys.executable, "-I", "-S", _BOUND, identity()) if bound else ()
    _tell_keeper("")  # which starts now, not beside a process whose start is measured
    with contextlib.ExitStack() as stack:
        with _uninterrupted():
            process = subprocess.Popen(
                [*prefix, *argv],
                cwd=cwd,
                env=variables,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            stack.callback(_end, process)
            _running.add(process.pid)
            _tell_keeper(f"+{process.pid}")
        if _ending.is_set():
            stack.callback(cast("IO[bytes]", process.stdout).close)
            check_not_ending()
        yield process


@contextlib.contextmanager
def logged(
    argv: Sequence[str], name: str, *, cwd: Path, variables: Mapping[str, str], bound: bool = True
) -> Iterator[tuple[subprocess.Popen[bytes], Log]]:
    """As `running`, with the output in a log, which is left in the cache as last-<name>.log and whole afterwards."""
    with contextlib.ExitStack() as stack:
        log = Log()
        stack.callback(log.save, name)
        process = stack.enter_context(running(argv, cwd=cwd, variables=variables, bound=bound))
        log.read(cast("IO[bytes]", process.stdout))
        yield process, log


@contextlib.contextmanager
def ending_all() -> Iterator[None]:
    """End what every thread has started, at once; until the block ends none starts anything: CellError instead."""
    _ending.set()
    try:
        for pid in tuple(_running):
            end_group(pid)
        yield
    finally:
        _ending.clear()


def check_not_ending() -> None:
    """CellError while `ending_all` is entered: for a thread that waits for something else than its process."""
    if _ending.is_set():
        raise CellError(_STOPPED)


def _end(process: subprocess.Popen[bytes]) -> None:
    _running.discard(process.pid)
    end_group(process.pid)
    process.wait()
    _tell_keeper(f"-{process.pid}")


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Hold signals back that would raise in the block, so that a process is never started and then forgotten."""
    if threading.current_thread() is not threading.main_thread():  # no other is interrupted
        yield
        return
    held: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    handlers = {n: handler for n in numbers if callable(handler := signal.getsignal(n))}
    for number in handlers:
        signal.signal(number, lambda number, _: held.append(number))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if held:
            signal.raise_signal(held[0])


def _tell_keeper(word: str) -> None:
    with contextlib.suppress(OSError), _telling:  # it was killed: what is bound still ends with this process
        _keeper().write(f"{word}\n".encode())


@cache
def _keeper() -> IO[bytes]:
    """The stdin of the process that ends the groups of this one should it be killed."""
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", _KEEPER],
        bufsize=0,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    words = cast("IO[bytes]", process.stdin)

    def end() -> None:
        words.close()
        process.wait()

    atexit.register(end)
    return words


def end_group(pid: int) -> None:
    """Kill the group of a process, and descendants that left it, and wait for these."""
    descendants: list[psutil.Process] = []
    with contextlib.suppress(psutil.Error):
        descendants = psutil.Process(pid).children(recursive=True)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    for process in descendants:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(descendants, timeout=5)


class Log:
    """A process's output: its first MiB and last 2,000 lines, 4 MiB at most, are kept, however much it prints."""

    def __init__(self) -> None:
        self._head: list[bytes] = []
        self._tail: deque[bytes] = deque()
        self._reader: threading.Thread | None = None

    def read(self, stream: IO[bytes]) -> None:
        """Read a stream to its end, in the background."""
        self._reader = threading.Thread(target=self._drain, args=(stream,), daemon=True)
        self._reader.start()

    @property
    def last(self) -> str:
        """The last line that is not blank, without secrets, shortened."""
        lines = [*self._head[-20:], *self._tail]
        texts = (line.decode(errors="replace").strip() for line in reversed(lines))
        return outside.printable(outside.scrubbed(next(filter(None, texts), "")))[:_LAST]

    @property
    def last_clause(self) -> str:
        """The last line as the end of a sentence; nothing for an empty log."""
        return f"; last line of its log: {self.last}" if self.last else ""

    @property
    def text(self) -> str:
        """The head and the tail that are kept, as one text."""
        return b"".join([*self._head, *self._tail]).decode(errors="replace")

    def save(self, name: str) -> None:
        """Leave it in the cache as last-<name>.log, once the process has ended."""
        if self._reader is not None:
            self._reader.join(timeout=5)
        with contextlib.suppress(OSError, UserError):  # a full disk must not hide why the process ended
            text = outside.printable_lines(outside.scrubbed(self.text))
            (paths.cache_folder("logs") / f"last-{name}.log").write_bytes(text.encode())

    def _drain(self, stream: IO[bytes]) -> None:
        head = tail = 0
        with stream:
            while line := stream.readline(1 << 16):
                if head < _LOG_HEAD:
                    self._head.append(line)
                    head += len(line)
                    continue
                self._tail.append(line)
                tail += len(line)
                while tail > _LOG_TAIL or len(self._tail) > _LOG_LINES:
                    tail -= len(self._tail.popleft())
