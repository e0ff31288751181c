"""A server that streams completions by schedule and keeps the truth: when each event really left.

`python -m tests.instrument.scripted_server [--core N]` prints its port and serves on loopback until it is
killed. A request may script its own answer: the body field `script` holds the fields of Script. Event i is
due at arrival + TTFT + i x ITL, from the request's arrival, so that lateness does not add up; with ITL 0 all
streams take turns as fast as the socket takes it. GET /log gives what was sent and when, by perf_counter,
which is one clock for all processes of a Linux machine; GET /reset forgets it.

Raw sockets, one thread, one loop: what answers are made of is built before their first byte is due, and a
send costs one stamp and one system call.
"""

from __future__ import annotations

import argparse
import gc
import heapq
import json
import os
import select
import selectors
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any
from urllib.request import urlopen

import orjson

from bench.contract import wire
from tests.instrument.script import Plan, Script, plan

TURN = 32  # sends between two looks at the sockets
_ROOT = Path(__file__).resolve().parents[2]
_AGAIN_S = 0.0002  # a full socket is tried again after this


@dataclass
class Stream:
    """An answer under way. `sent_s` are the stamps just before each send."""

    link: Link
    plan: Plan
    key: str
    received_s: float
    sent_s: list[float] = field(default_factory=list)
    left: bytes = b""
    finished_s: float = 0.0


@dataclass
class Link:
    """A client's connection and what has come on it."""

    wire: socket.socket
    data: bytes = b""
    answers: int = 0
    open: bool = True


def _received(link: Link) -> tuple[Link, bytes, float]:
    try:
        return link, link.wire.recv(1 << 18), perf_counter()
    except OSError:
        return link, b"", 0.0


class Server:
    """Accepts, answers and logs until the process is killed."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self._listener.setblocking(False)  # noqa: FBT003
        self._watch = selectors.DefaultSelector()
        self._watch.register(self._listener, selectors.EVENT_READ)
        self._due: list[tuple[float, int, Stream]] = []
        self._order = 0
        self._log: list[Stream] = []
        self.port: int = self._listener.getsockname()[1]

    def serve(self) -> None:
        """Look at the sockets, send what is due, and sleep until either has something."""
        sockets = self._watch.fileno()
        while True:
            wait = self._due[0][0] - perf_counter() if self._due else 60.0
            if wait > 0:  # select sleeps by microseconds, epoll by milliseconds
                select.select([sockets], [], [], wait)
            # Everything that has come is stamped before any of it is read: arrival must not wait in line.
            ready = [key.data for key, _ in self._watch.select(0)]
            for link, data, now in [_received(link) for link in ready if link is not None]:
                self._take(link, data, now)
            if None in ready:
                self._accept()
            self._send_due()

    def _accept(self) -> None:
        try:
            while True:
                client, _ = self._listener.accept()
                client.setblocking(False)  # noqa: FBT003
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._watch.register(client, selectors.EVENT_READ, Link(client))
        except BlockingIOError:
            pass

    def _take(self, link: Link, data: bytes, now: float) -> None:
        if not data:
            self._close(link)
            return
        link.data += data
        at = link.data.find(b"\r\n\r\n")
        if at < 0:
            return
        head = link.data[:at].lower()
        if head.startswith(b"get "):
            link.data = b""
            self._report(link, head)
            return
        length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
        if len(link.data) >= at + 4 + length:
            body, link.data = orjson.loads(link.data[at + 4 :]), b""
            self._answer(link, b"/chat/" in head.partition(b"\r\n")[0], body, now)

    def _answer(self, link: Link, chat: bool, body: Mapping[str, Any], now: float) -> None:  # noqa: FBT001
        script = Script(**body["script"]) if "script" in body else self._script
        prompt = body.get("prompt") or body.get("messages", [{}])[-1].get("content", "")
        stream = Stream(link, Plan((), (), ()), str(prompt if isinstance(prompt, str) else prompt[0]), now)
        self._log.append(stream)
        link.answers += 1
        if script.stall_s:
            time.sleep(script.stall_s)
        if script.hang_up and link.answers > 1:
            self._close(link)
        elif not script.never:
            stream.plan = plan(script, body["max_tokens"], chat=chat)
            self._push(now + stream.plan.offsets[0], stream)

    def _push(self, due: float, stream: Stream) -> None:
        self._order += 1
        heapq.heappush(self._due, (due, self._order, stream))

    def _send_due(self) -> None:
        due, now = self._due, perf_counter()
        for _ in range(TURN):
            if not due or due[0][0] > now:
                return
            stream = heapq.heappop(due)[2]
            if stream.link.open:
                now = self._send(stream)

    def _send(self, stream: Stream) -> float:
        sends, sent = stream.plan.sends, stream.sent_s
        data = stream.left or sends[len(sent)]
        now = perf_counter()
        try:
            taken = stream.link.wire.send(data)
        except BlockingIOError:
            taken = 0
        except OSError:
            self._close(stream.link)
            return now
        if taken < len(data):
            stream.left = data[taken:]
            self._push(now + _AGAIN_S, stream)
            return now
        stream.left = b""
        sent.append(now)
        if len(sent) < len(sends):
            self._push(max(now, stream.received_s + stream.plan.offsets[len(sent)]), stream)
        else:
            self._finish(stream, now)
        return now

    def _finish(self, stream: Stream, now: float) -> None:
        stream.finished_s = now
        if stream.plan.end == "reset":
            linger = struct.pack("ii", 1, 0)  # close at once with RST
            stream.link.wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        if stream.plan.end:
            self._close(stream.link)

    def _close(self, link: Link) -> None:
        if link.open:
            link.open = False
            self._watch.unregister(link.wire)
            link.wire.close()

    def _report(self, link: Link, head: bytes) -> None:
        if head.startswith(b"get /reset"):
            self._log.clear()
            gc.collect()
        rows = [
            {
                "key": s.key,
                "received_s": s.received_s,
                "sent_s": s.sent_s,
                "bears": s.plan.bears,
                "finished_s": s.finished_s,
            }
            for s in self._log
        ]
        body = json.dumps(rows).encode()
        link.wire.setblocking(True)  # noqa: FBT003
        link.wire.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body))
        link.wire.sendall(body)
        self._close(link)


@dataclass(frozen=True)
class Logged:
    """One request by the server's log; `key` is its text, or its first token id. Times by perf_counter."""

    key: str
    received_s: float
    sent_s: tuple[float, ...]
    bears: tuple[int, ...]
    finished_s: float

    @property
    def token_s(self) -> tuple[float, ...]:
        """When the sends that bore tokens left."""
        return tuple(t for t, n in zip(self.sent_s, self.bears, strict=False) if n > 0)


@dataclass(frozen=True)
class Scripted:
    """A scripted server that runs, as a test or a benchmark sees it."""

    port: int
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def log(self) -> list[Logged]:
        """What it has received and sent since the last reset, in the order of arrival."""
        rows = self._get("log")
        return [wire.build(Logged, row) for row in rows]

    def reset(self) -> None:
        self._get("reset")

    def _get(self, what: str) -> Any:
        with urlopen(f"{self.url}/{what}", timeout=60) as answer:  # noqa: S310  (our own, on loopback)
            return json.load(answer)


@contextmanager
def running(core: int | None = None, *, realtime: bool = False, **script: Any) -> Iterator[Scripted]:
    """A scripted server in a process of its own, on one core if asked; killed at the end.

    `realtime`: before all other work of the machine, by SCHED_FIFO; needs the privilege.
    """
    words = [sys.executable, "-m", __name__, "--script", json.dumps(script)]
    words += [] if core is None else ["--core", str(core)]
    words += ["--realtime"] if realtime else []
    with subprocess.Popen(words, stdout=subprocess.PIPE, cwd=_ROOT) as process:
        try:
            assert process.stdout is not None
            yield Scripted(int(process.stdout.readline()), process)
        finally:
            process.kill()


def place(core: int, *, realtime: bool) -> None:
    """Put this process on one core (-1: any), and before all other work if asked."""
    if core >= 0:
        os.sched_setaffinity(0, {core})
    if realtime:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--script", type=json.loads, default={}, help="fields of Script, as JSON")
    words.add_argument("--core", type=int, default=-1, help="run on this core alone")
    words.add_argument("--realtime", action="store_true", help="before all other work of the machine")
    given = words.parse_args()
    place(given.core, realtime=given.realtime)
    gc.disable()  # no pause while it keeps its schedule
    server = Server(Script(**given.script))
    print(server.port, flush=True)  # noqa: T201
    server.serve()


if __name__ == "__main__":
    main()
