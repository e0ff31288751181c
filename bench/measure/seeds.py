"""How far a figure moves when a calibrated recipe is made with another seed: replicates, their mean, two recipes' test.

A value is of one replicate; all of them are measured on the same items. What is drawn at random is the calibration
text (or the order of training), and not the text that is scored: this noise comes beside that of the items.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from bench.measure.ratio import satterthwaite, variance

_LEVEL = 0.95


@dataclass(frozen=True)
class SeedSpread:
    """The mean over `n` replicates with its 95 % interval by Student's t, and the smallest and largest of them."""

    mean: float
    low: float
    high: float
    least: float
    most: float
    n: int

    @property
    def half(self) -> float:
        """Half the interval."""
        return (self.high - self.low) / 2

    @property
    def includes_zero(self) -> bool:
        return self.low <= 0 <= self.high


@dataclass(frozen=True)
class SeedDifference:
    """By how much the mean of B's replicates is above that of A's; half its 95 % interval, its two-sided p-value."""

    change: float
    half: float
    p: float


def over_seeds(values: Sequence[float]) -> SeedSpread | None:
    """The spread of replicates; None of fewer than two."""
    if len(values) < 2:
        return None
    mean = math.fsum(values) / len(values)
    half = _quantile(len(values) - 1) * math.sqrt(variance(values) / len(values))
    return SeedSpread(mean, mean - half, mean + half, min(values), max(values), len(values))


def difference(first: Sequence[float], second: Sequence[float], seeded: tuple[bool, bool]) -> SeedDifference | None:
    """B's mean less A's, by Welch's t test of the replicates; None where neither has two.

    `seeded`: whether each was made by a seed. One that was not is known exactly. One that was, and has no
    replicates, is taken to vary as the other does (Student's test of equal spreads).
    """
    sides = (first, second)
    if max(map(len, sides)) < 2 or not all(sides):
        return None
    known = [variance(values) if len(values) > 1 else None for values in sides]
    spread = next(each for each in known if each is not None)
    alone = [spread if by_seed else 0.0 for by_seed in seeded]
    parts = [(one if own is None else own) / len(values) for own, one, values in zip(known, alone, sides, strict=True)]
    change = math.fsum(second) / len(second) - math.fsum(first) / len(first)
    error = math.sqrt(sum(parts))
    if not error:
        return SeedDifference(change, 0.0, 0.0 if change else 1.0)
    from scipy import special  # slow to import

    measured = [(part / max(parts), len(values)) for part, values in zip(parts, sides, strict=True) if len(values) > 1]
    degrees = satterthwaite(*zip(*measured, strict=True))
    return SeedDifference(change, _quantile(degrees) * error, 2 * float(special.stdtr(degrees, -abs(change) / error)))


def _quantile(degrees: float) -> float:
    """What Student's t stays below in 97.5 % of cases."""
    from scipy import special

    return float(special.stdtrit(degrees, (1 + _LEVEL) / 2))
