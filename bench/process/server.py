"""The life of an engine's own HTTP server: start, readiness, end.

It leads a session of its own, so that one signal ends its children too, and on Linux it dies with this process.
Where that fails (a server that forked, another system), the next run ends it by the note in the cache.
"""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import json
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench import paths
from bench.contract import wire
from bench.contract.errors import CellError
from bench.contract.server import Server
from bench.envs.environment import Environment
from bench.load import fetch
from bench.load.job import Endpoint
from bench.process import bound, child, model_code, scratch, supervisor

_POLL_S, _ANSWER_S, _GREETING_S = 0.05, 2.0, 10.0
_IDLE_S, _IDLE_SHARE, _SETTLE_S = 0.5, 0.1, 30.0


@dataclass(frozen=True)
class Live:
    """A server that answers at `url`; `ready_s` is from its start to its first healthy answer.

    A remote one has no process. Instead of a log it has a `greeting`: what requests name, and below it the list of
    models.
    """

    url: str
    ready_s: float = 0.0
    log: child.Log | None = None
    process: subprocess.Popen[bytes] | None = None
    greeting: str = ""

    @property
    def pid(self) -> int:
        """0 for a remote server."""
        return self.process.pid if self.process else 0

    @property
    def log_text(self) -> str:
        """Its log so far."""
        return self.log.text if self.log else self.greeting

    @property
    def ended(self) -> str:
        """That it has ended, and the last line of its log; nothing while it lives."""
        code = self.process.poll() if self.process else None
        clause = self.log.last_clause if self.log else ""
        return "" if code is None else f"the server ended (code {code}) while it was used{clause}"


@dataclass(frozen=True)
class Orphan:
    """A server that outlived the run that started it."""

    pid: int
    name: str
    file: Path


def endpoint(server: Server, url: str) -> Endpoint:
    """Where the load of a server goes that answers at `url`."""
    return Endpoint(
        url,
        server.model,
        api=server.api,
        extra=server.extra,
        headers=server.headers,
        key_variable=server.key_variable,
        key_header=server.key_header,
        length_field=server.length_field,
        exact_length=server.exact_length,
        ca=server.ca,
        remote=bool(server.url),
    )


def free_port() -> int:
    """A port on loopback that was free just now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def running(
    server: Server, port: int, env: Environment, device: str, *, model: Path | None = None, timeout_s: float = 600.0
) -> Iterator[Live]:
    """Start the server, wait until it is healthy and idle, and end it and its children afterwards.

    It runs no code that comes with a `model`; CellError says so where it cannot serve it without. A remote server is
    only asked for its models.
    """
    if server.url:
        yield Live(server.url, greeting=_greeting(server))
        return
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        work = stack.enter_context(scratch.folder())
        variables = {**supervisor.variables(env, device), **server.variables, **model_code.blocked(work)}
        process, log = stack.enter_context(child.logged(server.argv, "server", cwd=work, variables=variables))
        with _noted(process.pid, env.name):
            _wait(process, log, port, server.health, began + timeout_s, model)
            live = Live(f"http://127.0.0.1:{port}", time.monotonic() - began, log, process)
            _settle(process.pid)
            yield live


def _greeting(server: Server) -> str:
    """The model's name, below it the response to /v1/models, if any; CellError where no server answers."""
    try:
        return f"{server.model}\n{fetch.models(endpoint(server, server.url), timeout_s=_GREETING_S)}"
    except ConnectionError as error:
        raise CellError(
            f"no server answers at {server.url} ({error}): start it there, or correct the engine's url"
        ) from None
    except ValueError as error:
        raise CellError(str(error)) from None


def orphans() -> list[Orphan]:
    """Servers of this machine that outlived the run that started them; notes of servers that have ended are deleted."""
    alive = []
    for file in sorted(paths.cache_folder("servers").glob("*.json")):
        with contextlib.suppress(FileNotFoundError), file.open("r+") as opened:
            try:
                fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:  # the run that holds it lives
                continue
            try:
                note = json.load(opened)
                if bound.is_elsewhere(note["machine"]):
                    continue
                if note["machine"] == bound.machine() and _same(note["pid"], note["started"]):
                    alive.append(Orphan(note["pid"], note["name"], file))
                    continue
            except (ValueError, KeyError, TypeError):
                pass
            file.unlink(missing_ok=True)
    return alive


def end_orphans() -> list[Orphan]:
    """End every orphan with its children, and return them."""
    ended = orphans()
    for orphan in ended:
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(orphan.pid)
            child.end_group(orphan.pid)
            process.kill()
            process.wait(timeout=5)
        orphan.file.unlink(missing_ok=True)
    return ended


def _wait(
    process: subprocess.Popen[bytes], log: child.Log, port: int, health: str, deadline: float, model: Path | None
) -> None:
    while True:
        if (code := process.poll()) is not None:
            time.sleep(_POLL_S)  # for the rest of its output to arrive
            if model and (sentence := model_code.needed(model, log.text)):
                raise CellError(sentence)
            raise CellError(f"the server ended (code {code}) before it was healthy{log.last_clause}")
        if _healthy(port, health):
            return
        if time.monotonic() > deadline:
            raise CellError(f"the server was not healthy in time{log.last_clause}")
        time.sleep(_POLL_S)


def _healthy(port: int, path: str) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_ANSWER_S)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _settle(pid: int) -> None:
    """Wait until the server has stopped working on its start, at most half a minute."""
    deadline = time.monotonic() + _SETTLE_S
    with contextlib.suppress(psutil.Error):
        family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
        while time.monotonic() < deadline:
            before = sum(sum(p.cpu_times()[:2]) for p in family)
            time.sleep(_IDLE_S)
            if (sum(sum(p.cpu_times()[:2]) for p in family) - before) / _IDLE_S < _IDLE_SHARE:
                return


@contextmanager
def _noted(pid: int, name: str) -> Iterator[None]:
    """A file in the cache by which a later run finds the server, should this one not end it: locked while it lives."""
    note = {"name": name, "pid": pid, "started": psutil.Process(pid).create_time(), "machine": bound.machine()}
    with tempfile.NamedTemporaryFile("w", dir=paths.cache_folder("servers"), suffix=".new", delete=False) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(wire.dumps(note))
        file.flush()
        noted = Path(file.name).rename(Path(file.name).with_suffix(".json"))  # with its lock
        try:
            yield
        finally:
            noted.unlink(missing_ok=True)


def _same(pid: int, started: float) -> bool:
    """Whether the process of this id is still the one that was started then, and not a dead one's entry."""
    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and abs(process.create_time() - started) < 1.0
    except psutil.Error:
        return False
