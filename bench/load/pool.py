"""Connections to one server: kept alive, opened where none is idle, and replaced where the server hung up."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Callable, Sequence
from time import perf_counter

from bench.contract.address import Address
from bench.load.connection import Connection, Exchange
from bench.load.job import Failure


class Pool:
    """Starts exchanges and calls `on_over` with each when it is over, whatever became of it.

    `on_over` may start the next at once: the connection that has just become idle is the first to be used.
    A request that finds its idle connection dropped, without a byte of an answer, is sent again once on a
    new one. Nothing else is sent twice.
    """

    def __init__(self, address: Address, timeout_s: float, *, most_bytes: Sequence[int] = (), ca: str = "") -> None:
        """`most_bytes`: of the answer to each request; `ca`: a file of certificates to trust besides the system's."""
        self._loop = asyncio.get_running_loop()
        self._address = address
        self._timeout_s = timeout_s
        self._most_bytes = most_bytes
        self.on_over: Callable[[Exchange], None] = lambda _: None
        self._tls = _tls(ca) if address.tls else None
        self._idle: list[Connection] = []
        self._connections: set[Connection] = set()
        self._opening: set[asyncio.Task[None]] = set()
        self._timers: dict[Exchange, asyncio.TimerHandle] = {}
        self.reconnects = 0

    async def open(self, count: int) -> None:
        """Connect `count` times before the clock starts; a server that refuses shows in the requests."""
        opened = await asyncio.gather(*(self._connect() for _ in range(count)), return_exceptions=True)
        self._idle += [each for each in opened if isinstance(each, Connection) and each.usable]

    def start(self, exchange: Exchange) -> None:
        """Send on the connection that was used last, or on a new one."""
        if self._most_bytes:
            exchange.most_bytes = self._most_bytes[exchange.index]
        while self._idle:
            connection = self._idle.pop()
            if connection.usable:
                connection.begin(exchange)
                break
        else:
            self._start_anew(exchange)
        self._timers[exchange] = self._loop.call_later(self._timeout_s, self._expire, exchange)

    def stop(self) -> None:
        """End what is in flight as cancelled."""
        for exchange in list(self._timers):
            self._end(exchange, "cancelled", "in flight when the run was stopped")

    async def close(self) -> None:
        """Hang up everywhere; nothing is in flight any more."""
        opening = list(self._opening)
        for task in opening:
            task.cancel()
        await asyncio.gather(*opening, return_exceptions=True)
        for connection in list(self._connections):
            connection.close()
        for _ in range(3):  # the loop tells the connections, then closes their handles, in its next turns
            await asyncio.sleep(0)

    def _start_anew(self, exchange: Exchange) -> None:
        task = self._loop.create_task(self._connect_and_begin(exchange))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _connect_and_begin(self, exchange: Exchange) -> None:
        try:
            connection = await self._connect()
        except OSError as error:  # ssl.SSLError and socket.gaierror are among them
            if not exchange.over:
                self._end(exchange, "refused", f"no connection: {_reason(error)}")
            return
        if exchange.over:
            self._idle.append(connection)
        elif connection.usable:
            connection.begin(exchange)
        else:
            self._end(exchange, "reset", "the server hung up before the request was sent")

    async def _connect(self) -> Connection:
        def protocol() -> Connection:
            return Connection(self._done, self._gone)

        _, connection = await self._loop.create_connection(
            protocol, self._address.name, self._address.port, ssl=self._tls
        )
        if connection.usable:
            self._connections.add(connection)
        return connection

    def _done(self, connection: Connection, exchange: Exchange) -> None:
        if connection.usable:
            self._idle.append(connection)
        else:
            self._connections.discard(connection)
        unanswered = exchange.failure == "reset" and not exchange.read_s
        if unanswered and not exchange.fresh and not exchange.reconnects:
            exchange.failure, exchange.message = None, ""
            exchange.reconnects = 1
            self.reconnects += 1
            self._start_anew(exchange)
        else:
            self._over(exchange)

    def _gone(self, connection: Connection) -> None:
        self._connections.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)

    def _expire(self, exchange: Exchange) -> None:
        self._end(exchange, "timeout", f"not complete within {self._timeout_s:g} s")

    def _end(self, exchange: Exchange, failure: Failure, message: str) -> None:
        """End an exchange from this side, on a connection or before it has one."""
        if exchange.connection is not None and exchange.connection.holds(exchange):
            exchange.connection.fail(failure, message)
            return
        exchange.failure, exchange.message = failure, message
        exchange.end_s = perf_counter()
        self._over(exchange)

    def _over(self, exchange: Exchange) -> None:
        exchange.over = True
        timer = self._timers.pop(exchange, None)
        if timer is not None:
            timer.cancel()
        self.on_over(exchange)


def _tls(ca: str) -> ssl.SSLContext:
    """What certificates are checked by; ValueError where `ca` has none."""
    context = ssl.create_default_context()
    if ca:
        try:
            context.load_verify_locations(ca)
        except (OSError, ssl.SSLError) as error:  # the second is one of the first, with another text
            reason = "it holds no certificate" if isinstance(error, ssl.SSLError) else error.strerror
            raise ValueError(f"certificates cannot be read from {ca} ({reason}): expected a PEM file") from None
    return context


def _reason(error: OSError) -> str:
    """Why there is no connection, and what to do where TLS is the reason."""
    if isinstance(error, ssl.SSLError):
        text = str(error.strerror or error).partition(" (_ssl.c")[0]
        if isinstance(error, ssl.SSLCertVerificationError):
            return f"{text}; to trust its certificate, give the file by --ca (ca of a suite's engine) or SSL_CERT_FILE"
        return f"{text}; if the server speaks no TLS, its URL begins with http://"
    if isinstance(error, socket.gaierror) or not error.errno:
        return str(error.strerror or error)
    return os.strerror(error.errno)  # the loops' own texts differ
