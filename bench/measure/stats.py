"""The few statistics that every table rests on: definitions stated, tested against SciPy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.contract.variation import coefficient_of_variation


@dataclass(frozen=True)
class Spread:
    """A figure over rounds: its median with the smallest and largest value. `cv` is NaN below two rounds."""

    median: float
    low: float
    high: float
    cv: float
    n: int


def spread(values: Sequence[float]) -> Spread:
    """Median, minimum, maximum and CV of a metric over the rounds of a cell. ValueError without values."""
    if not values:
        raise ValueError("no values, no spread")
    ordered, middle = sorted(values), len(values) // 2
    median = ordered[middle] if len(values) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
    return Spread(median, ordered[0], ordered[-1], coefficient_of_variation(values), len(values))


def holm(values: Sequence[float]) -> list[float]:
    """p-values adjusted for being as many tests as they are, in the given order (Holm 1979, step-down).

    The k-th smallest of m is multiplied by m - k + 1, capped at 1 and never below the one before it. Calling
    what stays below a level a difference is wrong about any of them with at most that probability.
    """
    order = sorted(range(len(values)), key=values.__getitem__)
    adjusted, largest = [0.0] * len(values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(values) - rank) * values[index]))
        adjusted[index] = largest
    return adjusted
