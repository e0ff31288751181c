"""How long a round will take, and how long a run still will: from the rounds that were run before.

Pure arithmetic over seconds; no clock is read here.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

Alike = tuple[str, ...]  # what a round's time is like, the closest first: its cell, its load on its engine, ...

_OF_FAILED = 2  # the kinds that a failed round tells of: its cell, its load on its engine


class Pace:
    """The rounds ahead, each by what it is `alike`, and the seconds that others of these took.

    A round is expected to take the mean of those of the closest kind that has any. A round that is alike
    nothing takes no time.
    """

    def __init__(self, ahead: Sequence[Alike] = ()) -> None:
        self._ahead = Counter(ahead)
        self._took: dict[str, list[float]] = defaultdict(list)

    def known(self, alike: Alike, seconds: float) -> None:
        """A round that was run before, as its record has it."""
        for kind in alike:
            self._took[kind].append(seconds)

    def done(self, alike: Alike, seconds: float, *, failed: bool = False) -> None:
        """One of the rounds ahead was run. What failed says nothing of other engines, and of other loads."""
        self._ahead[alike] -= 1
        self.known(alike[:_OF_FAILED] if failed else alike, seconds)

    def expected_s(self, alike: Alike) -> float | None:
        """None where nothing like it was run."""
        if not alike:
            return 0.0
        took = next((self._took[kind] for kind in alike if kind in self._took), None)
        return None if took is None else sum(took) / len(took)

    def left_s(self) -> float | None:
        """Of all rounds ahead, the one in flight whole; None where one of them is like nothing known."""
        each = [(count, self.expected_s(alike)) for alike, count in self._ahead.items() if count > 0]
        if any(expected is None for _, expected in each):
            return None
        return sum(count * (expected or 0.0) for count, expected in each)


def clock(seconds: float) -> str:
    """Seconds as m:ss, or h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def took(seconds: float) -> str:
    """How long something took: as 4.2 s below a minute, else as a clock has it."""
    return f"{seconds:.1f} s" if seconds < 59.95 else clock(seconds)
