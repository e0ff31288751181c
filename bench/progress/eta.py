"""How long a round will take, and a run still will: arithmetic over the seconds of rounds before, without a clock."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

SimilarityKeys = tuple[str, ...]  # groups of like rounds, the closest first: its cell, its load on its engine, ...

_KEYS_OF_FAILED = 2  # a failed round says something of its cell, and of its load on its engine


class EtaEstimator:
    """The rounds ahead by their similarity keys, and the seconds that rounds of each key took.

    A round is expected to take the mean of the rounds of its closest key that has any. One without keys
    takes no time. `at_once`: of how many at a time rounds run, where that is not one.
    """

    def __init__(self, ahead: Iterable[SimilarityKeys] = (), at_once: Mapping[SimilarityKeys, int] = {}) -> None:
        self._ahead, self._at_once = Counter(ahead), at_once
        self._durations_s: dict[str, list[float]] = defaultdict(list)

    def add_recorded(self, keys: SimilarityKeys, seconds: float) -> None:
        """A round that was run before, as its record has it."""
        for key in keys:
            self._durations_s[key].append(seconds)

    def finish(self, keys: SimilarityKeys, seconds: float, *, failed: bool = False) -> None:
        """One of the rounds ahead was run. A failed one says nothing of other engines, nor of other loads."""
        self._ahead[keys] -= 1
        self.add_recorded(keys[:_KEYS_OF_FAILED] if failed else keys, seconds)

    def drop(self, keys: SimilarityKeys) -> None:
        """One of the rounds ahead is not to be run."""
        self._ahead[keys] -= 1

    def expected_s(self, keys: SimilarityKeys) -> float | None:
        """None where no similar round was run."""
        if not keys:
            return 0.0
        durations_s = next((self._durations_s[key] for key in keys if key in self._durations_s), None)
        return None if durations_s is None else sum(durations_s) / len(durations_s)

    def remaining_s(self) -> float | None:
        """Of all rounds ahead, the one in flight whole; None where the time of one of them is not known."""
        total_s = 0.0
        for keys, count in self._ahead.items():
            if count > 0:
                if (seconds := self.expected_s(keys)) is None:
                    return None
                total_s += count * seconds / self._at_once.get(keys, 1)
        return total_s


def clock(seconds: float) -> str:
    """Seconds as m:ss, or h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def duration(seconds: float) -> str:
    """How long something took: as 4.2 s below a minute, else as a clock has it."""
    return f"{seconds:.1f} s" if seconds < 59.95 else clock(seconds)
