"""How much values vary, and whether they have settled: the same rule for warm-up in a worker and for tables."""

from __future__ import annotations

import math
from collections.abc import Sequence

SETTLED_LAST, SETTLED_CV = 3, 0.05


def coefficient_of_variation(values: Sequence[float]) -> float:
    """Sample standard deviation (n - 1) over the absolute mean; NaN below two values or with mean zero."""
    if len(values) < 2 or not (mean := math.fsum(values) / len(values)):
        return math.nan
    # Not statistics.stdev, whose exact fractions were half of the time of a large table.
    squares = math.fsum([((value - mean) / mean) ** 2 for value in values])
    return math.sqrt(squares / (len(values) - 1))


def settled(values: Sequence[float], tolerance: float = SETTLED_CV, last: int = SETTLED_LAST) -> bool:
    """Whether warm-up is over: the CV of the last `last` values is at most `tolerance` (0.05 is 5 %).

    False means "not yet", also when fewer than `last` values are there; True does not rule out a slow drift.
    """
    if last < 2 or len(values) < last:
        return False
    return coefficient_of_variation(values[-last:]) <= tolerance
