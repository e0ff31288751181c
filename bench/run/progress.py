"""What a person sees while a suite runs: one live line in a terminal, plain lines in a pipe.

The live line is redrawn once a second and no faster: on a small machine a spinner is a load on the
measurement.
"""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Self

    from rich.status import Status


_PIPE_S = 2.0


class Progress:
    """`line` stays on the screen; `doing` is what happens now, and in a pipe a line at most every 2 s."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._status: Status | None = None
        self._printed = -_PIPE_S

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            from rich.console import Console

            self._status = Console(stderr=True).status("", spinner="line", refresh_per_second=1)
            self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._status is not None:
            self._status.stop()
        if kind is KeyboardInterrupt:
            self.line("stopped; what is finished is kept, run the same command to go on")

    def line(self, text: str) -> None:
        if self._status is not None:
            self._status.console.print(text, markup=False, highlight=False)
        else:
            print(text, file=sys.stderr, flush=True)  # noqa: T201  (this is the terminal)

    def doing(self, text: str) -> None:
        now = time.monotonic()
        if self._status is not None:
            self._status.update(text.replace("[", "\\["))
        elif now - self._printed > _PIPE_S:
            self._printed = now
            self.line(f"{self.spent} {text}")

    @property
    def spent(self) -> str:
        return clock(time.monotonic() - self._began)


def clock(seconds: float) -> str:
    """Seconds as m:ss, or h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Pace:
    """How long is left, from the rounds that were run: cells of one kind take about as long each time."""

    def __init__(self, kinds: list[str]) -> None:
        self._left = list(kinds)
        self._took: dict[str, list[float]] = {}

    def done(self, kind: str, seconds: float) -> None:
        self._left.remove(kind)
        self._took.setdefault(kind, []).append(seconds)

    @property
    def left(self) -> str:
        known = [s for many in self._took.values() for s in many]
        if not known:
            return "time left not known yet"
        usual = sum(known) / len(known)
        means = {kind: sum(s) / len(s) for kind, s in self._took.items()}
        return f"about {clock(sum(means.get(kind, usual) for kind in self._left))} left"
