"""A timer finer than the event loop's, which counts whole milliseconds and may fire up to one early.

The kernel's interval timer has microseconds; its signal wakes the loop like any input.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from time import perf_counter


class PreciseTimer:
    """Calls `callback` within about a tenth of a millisecond after a time of perf_counter; one time at once.

    Only in a process's main thread, where signals are.
    """

    def __init__(self, callback: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop.add_signal_handler(signal.SIGALRM, callback)

    def set(self, time_s: float) -> None:
        """Call back at this time, or at once where it has passed."""
        signal.setitimer(signal.ITIMER_REAL, max(1e-6, time_s - perf_counter()))

    def close(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        self._loop.remove_signal_handler(signal.SIGALRM)
