"""The two kinds of load: a closed loop, which waits for its answers, and an open one, which does not.

Both send the next request first and do their bookkeeping afterwards.
"""

from __future__ import annotations

import asyncio
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

    `meter` is null where nothing is measured, as in a warm-up. `collect` gets every exchange that is over.
    """

    pool: Pool
    requests: Sequence[bytes]
    schedule: ClosedSchedule
    meter: Meter | None
    collect: Callable[[Exchange], None]
    ended: Ended = field(default="requests", init=False)

    def __post_init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._next = self._in_flight = self._thinking = 0
        self._sending = True
        self._finished = self._loop.create_future()

    @property
    def zero_s(self) -> float:
        """When the window opened; the time is now where it never did."""
        return self.meter.began_s if self.meter is not None and self.meter.began_s else perf_counter()

    @property
    def window_s(self) -> float:
        return 0.0 if self.meter is None else self.meter.ended_s - self.meter.began_s

    def measured(self, exchange: Exchange) -> bool:
        """Not a warm-up, and sent while the window was open: the last conversations go on after it."""
        ended_s = self.meter.ended_s if self.meter is not None else 0.0
        return exchange.index >= self.schedule.warmups and exchange.queued_s <= ended_s

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

    def stop(self, ended: Ended = "stopped") -> None:
        """Send nothing more. Stopped: end what is in flight. At the end of the duration: wait for it."""
        if not self._sending:
            return
        self._sending = False
        self.ended = ended
        if self.meter is not None:
            self.meter.end()
        if ended == "stopped":
            self.pool.stop()
        self._finish_if_over()

    def _send(self) -> None:
        """Begin the next conversation, which may be of one request."""
        index = self._next
        if not self._sending or index >= len(self.requests):
            return
        self._next += self.schedule.turns
        if index == self.schedule.warmups and self.meter is not None:
            self.meter.begin()
            if self.schedule.duration_s > 0:
                self._loop.call_later(self.schedule.duration_s, self.stop, "duration")
        self._start(index)
        if self._next >= len(self.requests) and self.meter is not None:
            self.meter.end()

    def _start(self, index: int) -> None:
        self._in_flight += 1
        now = perf_counter()
        self.pool.start(Exchange(index, self.requests[index], now, now))

    def _start_turn(self, index: int) -> None:
        self._thinking -= 1
        if self._sending:
            self._start(index)
        self._finish_if_over()

    def _on_over(self, exchange: Exchange) -> None:
        self._in_flight -= 1
        turn = exchange.index + 1
        failed = exchange.failure or exchange.status != 200
        if turn % self.schedule.turns == 0 or failed or not self._sending:
            self._send()
        elif self.schedule.think_s > 0:
            self._thinking += 1
            self._loop.call_later(self.schedule.think_s, self._start_turn, turn)
        else:
            self._start(turn)
        self.collect(exchange)
        self._finish_if_over()

    def _finish_if_over(self) -> None:
        used_up = self._next >= len(self.requests) or not self._sending
        waiting = self._in_flight or (self._thinking and self._sending)
        if used_up and not waiting and not self._finished.done():
            self._sending = False
            self._finished.set_result(None)


@dataclass(eq=False)
class OpenLoop:
    """Sends each request when it is due, whatever is in flight; `schedule.warmup` requests warm up before it.

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
        warm, schedule = self.requests[: self.schedule.warmup], ClosedSchedule(self.schedule.warmup_concurrency)
        self._warm = ClosedLoop(self.pool, warm, schedule, None, self.collect)

    @property
    def zero_s(self) -> float:
        """When the window opens by the schedule."""
        return self.start_s + self.schedule.ramp_s

    @property
    def window_s(self) -> float:
        """How long the window is by the schedule, or how long it was until it was stopped."""
        if self.ended == "stopped":
            return max(0.0, self.meter.ended_s - self.zero_s)
        return (self.schedule.window_end_s or self.schedule.due_s[-1]) - self.schedule.ramp_s

    def measured(self, exchange: Exchange) -> bool:
        own = exchange.index - self.schedule.warmup
        if own < 0:
            return False
        due = self.schedule.due_s[own]
        return self.schedule.ramp_s <= due <= (self.schedule.window_end_s or due)

    async def run(self) -> None:
        """Warm up, follow the schedule, and return when its last request is over."""
        await self._warm.run()
        self.pool.on_over = self._on_over
        timer = PreciseTimer(self._send_due)
        self._wake_at = timer.set
        self.start_s = perf_counter()
        opens = self._loop.call_later(self.schedule.ramp_s, self.meter.begin)
        closes = self._loop.call_later(self.schedule.ramp_s + self.window_s, self.meter.end)
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
        self._warm.stop()
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
            index = self.schedule.warmup + self._next
            self._next += 1
            self._start_or_queue(Exchange(index, self.requests[index], due, now))

    def _start_or_queue(self, exchange: Exchange) -> None:
        if self.schedule.max_in_flight and self._in_flight >= self.schedule.max_in_flight:
            self._waiting.append(exchange)
        else:
            self._in_flight += 1
            self.pool.start(exchange)

    def _on_over(self, exchange: Exchange) -> None:
        self._in_flight -= 1
        if self._waiting:
            self._in_flight += 1
            self.pool.start(self._waiting.popleft())
        self.collect(exchange)
        self._finish_if_over()

    def _finish_if_over(self) -> None:
        used_up = self._next == len(self.schedule.due_s) or not self._sending
        if used_up and not self._in_flight and not self._finished.done():
            self._finished.set_result(None)
