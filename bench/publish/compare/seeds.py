"""The replicates of the two sides of a comparison: a difference counts only beyond the noise of their seeds too.

The items say whether these two artifacts differ; replicates say whether two others of the same recipes would. A
comparison has the larger p-value of both tests, and the wider interval.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from bench.contract import plugins
from bench.contract.columns import Column
from bench.contract.errors import UserError
from bench.contract.record import Result
from bench.measure.ratio import Ratio
from bench.measure.seeds import SeedDifference, difference
from bench.publish.compare.paired import Difference
from bench.publish.tables.build import task_change

Replicates = Mapping[str, Sequence[Result]]  # finished rounds of each, by its recipe's name
_WIDEST = 300.0  # half an interval of logarithms, beyond which no ratio is a number
_Compared = tuple[Ratio, Difference | None]


def same_items(own: Result, replicates: Replicates) -> list[Result]:
    """A recipe's own record and one of each replicate that is over the same items."""
    results = [own]
    for rounds in replicates.values():
        with suppress(UserError):
            task_change(rounds[0], own)
            results.append(rounds[0])
    return results


def widened(column: Column, compared: _Compared, one: Sequence[Result], two: Sequence[Result]) -> _Compared | None:
    """The comparison of A's and B's first records, by their replicates too; None where these say nothing.

    Two records of one artifact, on two engines, do not differ by a seed; a comparison without a p-value stays so.
    """
    ratio, change = compared
    a, b = one[0].artifact, two[0].artifact
    if ratio.p is None or (a is not None and b is not None and a.digest == b.digest):
        return None
    first, second = ([r.metrics[column.key] for r in its if column.key in r.metrics] for its in (one, two))
    if change is None:
        if ratio.value is None or min(*first, *second) <= 0:
            return None
        first, second = ([math.log(value) for value in its] for its in (first, second))
    seeds = difference(first, second, seeded=(_is_seeded(one[0]), _is_seeded(two[0])))
    if seeds is None:
        return None
    shown = change.change if change is not None else math.log(ratio.value or 1.0)
    p = max(ratio.p, seeds.p if seeds.change * shown >= 0 else 1.0)  # one that the mean of the seeds contradicts
    return replace(_wider(ratio, seeds), p=p), change and _wider_difference(change, seeds)


def _wider(ratio: Ratio, seeds: SeedDifference) -> Ratio:
    if ratio.value is None or ratio.low is None or ratio.high is None:
        return ratio
    factor = math.exp(min(seeds.half, _WIDEST))
    return replace(ratio, low=min(ratio.low, ratio.value / factor), high=max(ratio.high, ratio.value * factor))


def _wider_difference(change: Difference, seeds: SeedDifference) -> Difference:
    if change.low is None or change.high is None:
        return change
    low, high = change.change - seeds.half, change.change + seeds.half
    return replace(change, low=min(change.low, low), high=max(change.high, high))


def _is_seeded(result: Result) -> bool:
    steps = result.artifact.steps if result.artifact is not None else result.cell.recipe.steps
    return any(map(plugins.is_seeded, steps))
