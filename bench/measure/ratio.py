"""The ratio of two cells' figures, by their logarithms, and whether their rounds can distinguish the two."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

WELCH, SINGLE, EQUAL, ZERO = "Welch", "n=1", "equal rounds", "a zero"
CELLS = "t over cells"


@dataclass(frozen=True)
class Ratio:
    """B over A, its 95 % interval and two-sided p-value, each None where there is none; `rule`: what gave it."""

    value: float | None
    low: float | None
    high: float | None
    p: float | None
    rule: str


def ratio(first: Sequence[float], second: Sequence[float], level: float = 0.95) -> Ratio:
    """The geometric mean of `second` over that of `first`, by Welch's t test of the logarithms.

    With m, s and n the mean, sample standard deviation and number of each side's logarithms, the difference
    of the means has the standard error sqrt(s1^2 / n1 + s2^2 / n2), and t of it the degrees of freedom of
    Welch (1947) and Satterthwaite (1946). Rounds are independent; nothing is assumed of equal spreads.
    ValueError without values.
    """
    if not first or not second:
        raise ValueError(f"cannot compare {len(first)} rounds with {len(second)}: each needs at least one")
    if min(*first, *second) <= 0:
        return Ratio(None, None, None, None, ZERO)
    logs = [[math.log(value) for value in rounds] for rounds in (first, second)]
    change = statistics.fmean(logs[1]) - statistics.fmean(logs[0])
    if min(len(first), len(second)) < 2:
        return Ratio(math.exp(change), None, None, None, SINGLE)
    if all(len(set(rounds)) == 1 for rounds in (first, second)):
        return Ratio(second[0] / first[0], None, None, None, EQUAL)
    from scipy import special  # slow to import, and needed by `compare` alone

    parts = [variance(values) / len(values) for values in logs]
    error = math.sqrt(sum(parts))
    df = satterthwaite(parts, [len(values) for values in logs])
    half = float(special.stdtrit(df, (1 + level) / 2)) * error
    p = 2 * float(special.stdtr(df, -abs(change) / error))
    return Ratio(math.exp(change), math.exp(change - half), math.exp(change + half), p, WELCH)


def over_cells(ratios: Sequence[float], level: float = 0.95) -> Ratio:
    """The geometric mean of several cells' ratios, by Student's t of their logarithms; each is above zero.

    It sees what all cells share and the rounds of none can tell. Cells count as independent: what slowed the machine
    down during one of the two runs is in all of them.
    """
    logs = [math.log(value) for value in ratios]
    change, error = statistics.fmean(logs), math.sqrt(variance(logs) / len(logs)) if len(logs) > 1 else 0.0
    if error == 0:
        return Ratio(math.exp(change), None, None, None, EQUAL if len(logs) > 1 else SINGLE)
    from scipy import special  # slow to import

    half = float(special.stdtrit(len(logs) - 1, (1 + level) / 2)) * error
    p = 2 * float(special.stdtr(len(logs) - 1, -abs(change) / error))
    return Ratio(math.exp(change), math.exp(change - half), math.exp(change + half), p, CELLS)


def satterthwaite(parts: Sequence[float], counts: Sequence[int]) -> float:
    """Degrees of freedom of a sum of squared standard errors, each from so many values; no sum of zero."""
    return sum(parts) ** 2 / sum(part**2 / (count - 1) for part, count in zip(parts, counts, strict=True))


def variance(values: Sequence[float]) -> float:
    """The sample variance; not that of `statistics`, whose exact fractions take a hundred times as long."""
    mean = math.fsum(values) / len(values)
    return math.fsum([(value - mean) ** 2 for value in values]) / (len(values) - 1)


def t_p(low: float, high: float, degrees: float, level: float = 0.95) -> float | None:
    """The two-sided p-value of "zero" that goes with an interval of Student's t; None where it has no width."""
    if not high > low:
        return None
    from scipy import special

    errors = abs(low + high) / (high - low) * float(special.stdtrit(degrees, (1 + level) / 2))
    return 2 * float(special.stdtr(degrees, -errors))
