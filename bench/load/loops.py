"""The two kinds of load: a closed loop, which waits for its answers, and an open one, which does not.

Both send the next request first and do their bookkeeping afterwards.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Literal

from bench.load.connection import Exchange
from bench.load.health import Meter
from bench.load.job import ClosedSchedule, OpenSchedule
from bench.load.pool import Pool
from bench.load.timer import PreciseTimer

Ended = Literal["requests", "duration", "stopped"]


@dataclass(eq=False)
class ClosedLoop:
    """Keeps `schedule.concurrency` requests in flight until they are used up or the time is over.

    `collect` gets every exchange that is over.
    """

    pool: Pool
    requests: Sequence[bytes]
    schedule: ClosedSchedule
    meter: Meter
    collect: Callable[[Exchange], None]
    ended: Ended = field(default="requests", init=False)

    def __post_init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._next = self._in_flight = self._thinking = 0
        self._sending = True
        self._measured_in_flight: set[int] = set()
        self._end = len(self.requests) - self.schedule.after  # of the requests that are measured
        self._unsent = self._end - self.schedule.warmups  # of these, where the window holds whole conversations
        self._finished = self._loop.create_future()

    @property
    def zero_s(self) -> float:
        """When the window opened; the time is now where it never did."""
        return self.meter.began_s or perf_counter()

    @property
    def window_s(self) -> float:
        return self.meter.ended_s - self.meter.began_s

    def measured(self, exchange: Exchange) -> bool:
        """Not a warm-up, and sent while the window was open: the load goes on after it."""
        return self.schedule.warmups <= exchange.index < self._end and exchange.queued_s <= self.meter.ended_s

    async def run(self) -> None:
        """Send them all; returns when the last one in flight is over."""
        self.pool.on_over = self._on_over
        slots = min(self.schedule.concurrency, len(self.requests))
        for slot in range(slots):
            if self.schedule.ramp_s > 0:
                self._loop.call_later(self.schedule.ramp_s * slot / slots, self._send)
            else:
                self._send()
        self._finish_if_over()
        await self._finished

    def stop(self) -> None:
        """Send nothing more, and end what is in flight."""
        if self._sending:
            self.ended = "stopped"
        self._sending = False
        self.meter.end()
        self.pool.stop()
        self._finish_if_over()

    def _end_duration(self) -> None:
        if self._sending and not self.meter.ended_s:
            self.ended = "duration"
            self.meter.end()
            self._finish_if_over()

    def _send(self) -> None:
        """Begin the next conversation, which may be of one request."""
        index = self._next
        if not self._sending or index >= len(self.requests):
            return
        self._next += self.schedule.turns
        if index == self.schedule.warmups:
            self.meter.begin()
            if self.schedule.duration_s > 0:
                self._loop.call_later(self.schedule.duration_s, self._end_duration)
        self._start(index)
        if self._next >= self._end and not self.schedule.whole:
            self.meter.end()

    def _count_sent(self, index: int, count: int) -> None:
        """`count` measured requests from this one on are sent, or never will be: after the last the window ends."""
        if self.schedule.warmups <= index < self._end:
            self._unsent -= count
            if self.schedule.whole and not self._unsent:
                self.meter.end()

    def _start(self, index: int) -> None:
        self._in_flight += 1
        if self.schedule.warmups <= index < self._end and not self.meter.ended_s:
            self._measured_in_flight.add(index)
        now = perf_counter()
        self.pool.start(Exchange(index, self.requests[index], now, now))
        self._count_sent(index, 1)

    def _start_turn(self, index: int) -> None:
        self._thinking -= 1
        if self._sending:
            self._start(index)
        self._finish_if_over()

    def _on_over(self, exchange: Exchange) -> None:
        self._in_flight -= 1
        self._measured_in_flight.discard(exchange.index)
        self._sending = self._sending and not self._all_measured
        turn = exchange.index + 1
        failed = exchange.failure or exchange.status != 200
        if failed:
            self._count_sent(exchange.index, -turn % self.schedule.turns)
        if turn % self.schedule.turns == 0 or failed or not self._sending:
            self._send()
        elif self.schedule.think_s > 0:
            self._thinking += 1
            self._loop.call_later(self.schedule.think_s, self._start_turn, turn)
        else:
            self._start(turn)
        self.collect(exchange)
        self._finish_if_over()

    @property
    def _all_measured(self) -> bool:
        return self.meter.ended_s > 0 and not self._measured_in_flight

    def _finish_if_over(self) -> None:
        self._sending = self._sending and not self._all_measured
        used_up = self._next >= len(self.requests) or not self._sending
        waiting = self._in_flight or (self._thinking and self._sending)
        if used_up and not waiting and not self._finished.done():
            self._sending = False
            self._finished.set_result(None)


@dataclass(eq=False)
class OpenLoop:
    """Sends each request when it is due, whatever is in flight.

    A request due while `max_in_flight` are under way waits its turn: it is sent when one of them is over.
    """

    pool: Pool
    requests: Sequence[bytes]
    schedule: OpenSchedule
    meter: Meter
    collect: Callable[[Exchange], None]
    ended: Ended = field(default="requests", init=False)
    start_s: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._next = self._in_flight = 0
        self._sending = True
        self._waiting: deque[Exchange] = deque()
        self._finished = self._loop.create_future()
        self._wake_at: Callable[[float], None] = lambda _: None
        self._end_s = self.schedule.window_end_s or math.nextafter(self.schedule.due_s[-1], math.inf)
        self._measured_left = sum(self.schedule.lead_s <= due < self._end_s for due in self.schedule.due_s)

    @property
    def zero_s(self) -> float:
        """When the window opens by the schedule."""
        return self.start_s + self.schedule.lead_s

    @property
    def window_s(self) -> float:
        """How long the window is by the schedule, or how long it was until it was stopped."""
        if self.ended == "stopped":
            return max(0.0, self.meter.ended_s - self.zero_s)
        return (self.schedule.window_end_s or self.schedule.due_s[-1]) - self.schedule.lead_s

    def measured(self, exchange: Exchange) -> bool:
        return self.schedule.lead_s <= self.schedule.due_s[exchange.index] < self._end_s

    async def run(self) -> None:
        """Follow the schedule, and return when the window and its last request are over."""
        self.pool.on_over = self._on_over
        timer = PreciseTimer(self._send_due)
        self._wake_at = timer.set
        self.start_s = perf_counter()
        opens = self._loop.call_later(self.schedule.lead_s, self.meter.begin)
        closes = self._loop.call_later(self._end_s, self._close)
        try:
            self._send_due()
            self._finish_if_over()
            await self._finished
        finally:
            timer.close()
            opens.cancel()
            closes.cancel()
            self.meter.end()

    def stop(self) -> None:
        """Send nothing more and end what is in flight."""
        self._sending = False
        self.ended = "stopped"
        while self._waiting:
            exchange = self._waiting.popleft()
            exchange.end_s = perf_counter()
            exchange.failure, exchange.message = "cancelled", "waiting when the run was stopped"
            self.collect(exchange)
        self.pool.stop()
        self._finish_if_over()

    def _send_due(self) -> None:
        due_s = self.schedule.due_s
        while self._sending and self._next < len(due_s):
            due, now = self.start_s + due_s[self._next], perf_counter()
            if due > now:
                self._wake_at(due)
                return
            index, self._next = self._next, self._next + 1
            self._start_or_queue(Exchange(index, self.requests[index], due, now))

    def _start_or_queue(self, exchange: Exchange) -> None:
        if self.schedule.max_in_flight and self._in_flight >= self.schedule.max_in_flight:
            self._waiting.append(exchange)
        else:
            self._in_flight += 1
            self.pool.start(exchange)

    def _on_over(self, exchange: Exchange) -> None:
        self._in_flight -= 1
        self._measured_left -= self.measured(exchange)
        if self._waiting:
            self._in_flight += 1
            self.pool.start(self._waiting.popleft())
        self.collect(exchange)
        self._finish_if_over()

    def _close(self) -> None:
        self.meter.begin()  # a window of no length is closed before it is opened
        self.meter.end()
        self._finish_if_over()

    def _finish_if_over(self) -> None:
        if self.meter.ended_s and not self._measured_left:
            self._sending = False
        if not self._sending and not self._in_flight and not self._finished.done():
            self._finished.set_result(None)
