"""One keep-alive connection with one request in flight; as little as possible runs for every read.

A read costs one clock reading, one pass of llhttp and three list appends. Nothing is decoded here, and no
object is created for a token: the parser appends the body's pieces to a list without a Python frame.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter
from typing import cast

import httptools

from bench.load.job import Failure

_HEADER_BYTES = 1024  # that are kept of a value


@dataclass(slots=True, eq=False)
class Exchange:
    """One request as it happens; times are perf_counter's. Filled by the connection, read when it is over.

    `read_s[i]` is when read i came, and `parts[read_end[i-1]:read_end[i]]` what it brought of the body.
    """

    index: int
    data: bytes
    due_s: float
    queued_s: float
    most_bytes: int = 1 << 20  # of its answer, with the head
    sent_s: float = 0.0
    end_s: float = 0.0
    read_s: list[float] = field(default_factory=list)
    read_end: list[int] = field(default_factory=list)
    parts: list[bytes] = field(default_factory=list)
    status: int = 0
    content_type: str = ""
    retry_after: str = ""
    location: str = ""
    complete: bool = False  # the response's last byte is here, as HTTP counts
    over: bool = False
    failure: Failure | None = None
    message: str = ""
    fresh: bool = False  # sent on a connection that had carried nothing before
    reconnects: int = 0
    connection: Connection | None = None


class Connection(asyncio.Protocol):
    """Carries exchanges one after the other; `done` gets each when it is over, `gone` the idle end.

    The bytes of a request go to the kernel at once by `os.write`: uvloop would keep them until it has
    called every callback of its turn. TLS goes through the transport.
    """

    def __init__(self, done: Callable[[Connection, Exchange], None], gone: Callable[[Connection], None]) -> None:
        self._done = done
        self._gone = gone
        self._exchange: Exchange | None = None
        self._transport: asyncio.Transport | None = None
        self._file = -1
        self._read_s: list[float] = []
        self._read_end: list[int] = []
        self._parts: list[bytes] = []
        self._complete = self._keep_alive = False
        self._content_type = self._retry_after = self._location = ""
        self._left = 0  # bytes that the answer may still have
        self.on_body = self._parts.append  # httptools calls it: a C function, no frame
        self._parser = httptools.HttpResponseParser(self)
        self._feed = self._parser.feed_data
        self.carried = 0
        self.usable = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but its ancestry
        if transport.get_extra_info("ssl_object") is None:
            self._file = transport.get_extra_info("socket").fileno()
        self.usable = True

    def begin(self, exchange: Exchange) -> None:
        """Send an exchange's request; only while idle and `usable`."""
        self._exchange = exchange
        self._left = exchange.most_bytes
        exchange.connection = self
        exchange.fresh = self.carried == 0
        self.carried += 1
        exchange.sent_s = perf_counter()
        self._write(exchange.data)

    def holds(self, exchange: Exchange) -> bool:
        return self._exchange is exchange

    def data_received(self, data: bytes) -> None:
        now = perf_counter()
        parser_error = None
        try:
            self._feed(data)
        except httptools.HttpParserError as error:
            parser_error = error
        self._read_s.append(now)
        self._read_end.append(len(self._parts))
        self._left -= len(data)
        if parser_error is not None:
            self.fail("malformed", f"the answer is not HTTP: {parser_error}")
        elif self._complete:
            self._end(now, keep_alive=self._keep_alive)
        elif self._left < 0 and self._exchange is not None:
            self.fail("malformed", f"the answer is longer than {self._exchange.most_bytes:,} bytes and does not end")
        elif self._exchange is None:  # a server that speaks unasked is about to hang up
            self.close()

    def on_header(self, name: bytes, value: bytes) -> None:
        lowered = name.lower()
        if lowered == b"content-type":
            self._content_type = value[:_HEADER_BYTES].decode("latin-1")
        elif lowered == b"retry-after":
            self._retry_after = value[:_HEADER_BYTES].decode("latin-1")
        elif lowered == b"location":
            self._location = value[:_HEADER_BYTES].decode("latin-1")

    def on_message_complete(self) -> None:
        self._complete = self._parser.get_status_code() >= 200  # 1xx announces the answer, and is none
        self._keep_alive = self._parser.should_keep_alive()  # llhttp forgets it after this callback

    def connection_lost(self, exc: Exception | None) -> None:
        self.usable = False
        if self._exchange is None:
            self._gone(self)
        elif not self._read_s:
            self.fail("reset", f"the connection was lost before a byte of the answer: {exc or 'closed'}")
        elif exc is not None:
            self.fail("reset", f"the connection was lost: {exc}")
        else:  # a body without a length ends so; whether it is whole its events say
            self._end(perf_counter(), keep_alive=False)

    def fail(self, failure: Failure, message: str) -> None:
        """End the exchange in flight without its answer, and the connection with it."""
        exchange = self._exchange
        if exchange is not None:
            exchange.failure, exchange.message = failure, message
            self._end(perf_counter(), keep_alive=False)
        self.close()

    def close(self) -> None:
        self.usable = False
        if self._transport is not None:
            self._transport.abort()

    def _write(self, data: bytes) -> None:
        sent = 0
        if self._file >= 0:
            try:
                sent = os.write(self._file, data)
            except BlockingIOError:
                pass
            except OSError:  # dropped by the server while idle; connection_lost tells the pool
                self.close()
                return
        if sent < len(data) and self._transport is not None:
            self._transport.write(memoryview(data)[sent:])

    def _end(self, now: float, *, keep_alive: bool) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is None:
            self.close()
            return
        exchange.end_s = now
        exchange.complete = self._complete
        exchange.read_s, self._read_s = self._read_s, []
        exchange.read_end, self._read_end = self._read_end, []
        exchange.parts = self._parts.copy()
        self._parts.clear()
        exchange.status = self._parser.get_status_code() if exchange.read_s else 0
        exchange.content_type, exchange.retry_after = self._content_type, self._retry_after
        exchange.location = self._location
        self._complete, self._content_type, self._retry_after, self._location = False, "", "", ""
        if not keep_alive:
            self.close()
        self._done(self, exchange)
