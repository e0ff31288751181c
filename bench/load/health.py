"""What the load process itself did in the window: CPU, timer lateness, requests really in flight.

A client that is busy or late measures itself. These figures stand in every record.
"""

from __future__ import annotations

import asyncio
import resource
from array import array
from collections.abc import Iterable
from math import ceil
from time import perf_counter, process_time

from bench.load.job import Health, InFlight

_TICK_S = 0.01


class Meter:
    """Reads the process's own counters at the window's two ends, and a 10 ms timer's lateness between."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._late = array("d")
        self._cpu_s = self._cpu_end_s = 0.0
        self._preempted = self._preempted_end = 0
        self.began_s = self.ended_s = 0.0

    def begin(self) -> None:
        """Open the window at this moment. A window that is open already stays as it is."""
        if self.began_s:
            return
        self._preempted = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
        self._cpu_s = process_time()
        self.began_s = perf_counter()
        self._arm()

    def end(self) -> None:
        """Close it, once."""
        if self.ended_s or not self.began_s:
            return
        self.ended_s = perf_counter()
        self._cpu_end_s = process_time()
        self._preempted_end = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
        if self._timer is not None:
            self._timer.cancel()

    def health(self) -> Health:
        late = sorted(self._late)
        return Health(
            wall_s=self.ended_s - self.began_s,
            cpu_s=self._cpu_end_s - self._cpu_s,
            lag_p99_s=late[ceil(0.99 * len(late)) - 1] if late else 0.0,
            lag_max_s=late[-1] if late else 0.0,
            lag_samples=len(late),
            preempted=self._preempted_end - self._preempted,
        )

    def _arm(self) -> None:
        self._timer = self._loop.call_later(_TICK_S, self._tick, perf_counter() + _TICK_S)

    def _tick(self, due_s: float) -> None:
        self._late.append(max(0.0, perf_counter() - due_s))
        self._arm()


def in_flight(spans: Iterable[tuple[float, float]], start_s: float, end_s: float) -> InFlight:
    """Requests in flight from `start_s` to `end_s`, each over its span from sent to ended.

    A closed loop's lowest is one or two below its concurrency: one request ends before the next is sent.
    A window of no length holds nothing.
    """
    if end_s <= start_s:
        return InFlight()
    inside = [(max(a, start_s), min(b, end_s)) for a, b in spans if a < end_s and b > start_s]
    steps = sorted([(a, 1) for a, _ in inside] + [(b, -1) for _, b in inside])
    now = low = high = sum(a <= start_s for a, _ in inside)
    for time, step in steps:
        if start_s < time < end_s:
            now += step
            low, high = min(low, now), max(high, now)
    return InFlight(sum(b - a for a, b in inside) / (end_s - start_s), low, high)
