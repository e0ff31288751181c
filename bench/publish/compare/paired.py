"""What a task says of two records on the same items, put as the figures of a comparison."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from bench.contract import plugins
from bench.contract.errors import UserError
from bench.contract.record import Result
from bench.measure.ratio import Ratio, normal_p, ratio
from bench.publish.tables.columns import DIVERGENCE, FLOOR, QUALITY, SCORES, Column
from bench.publish.tables.model import TESTED

EXACT, WINDOWS, MCNEMAR, UNPAIRED, OTHER = "exact", "windows", "McNemar", "no items", "other items"
_NEAR_FLOOR = 2.0
# The metric of a divergence -> the change of it that the task's `between` gives, and its ends.
_CHANGES = {
    "kl_mean": ("kl_change", "kl_change_low", "kl_change_high"),
    "top1_agreement_fraction": ("top1_change_fraction", "top1_change_low_fraction", "top1_change_high_fraction"),
}


@dataclass(frozen=True)
class Points:
    """B - A on the same items, in the stored unit, and its 95 % interval where it has one."""

    change: float
    low: float | None = None
    high: float | None = None


Told = tuple[Column, str, float, float, Ratio, Points | None]


def task_figures(one: Result, two: Result) -> Iterator[Told]:
    """Column, heading, A, B, ratio, points: for each metric that both have and a column shows.

    Task rounds repeat the same items, so that one of each side is compared.
    """
    changed = _changed(two, one)
    for column in (*QUALITY, *DIVERGENCE, *SCORES):
        if column.key not in one.metrics or column.key not in two.metrics:
            continue
        a, b = one.metrics[column.key], two.metrics[column.key]
        plain = ratio([a], [b])
        if isinstance(changed, str):
            yield column, _heading(column, one), a, b, replace(plain, rule=changed), None
        elif column in QUALITY:
            yield column, column.heading(), a, b, _perplexity(changed), None
        elif column in DIVERGENCE:
            found, points = _divergence(column, changed, plain, one, two)
            yield column, column.heading(), a, b, found, points
        else:
            better = one.facts.get("higher_is_better", True)
            shown = replace(column, better="higher" if better else "lower")
            yield shown, _heading(shown, one), a, b, *_score(changed, plain)


def _heading(column: Column, result: Result) -> str:
    return column.heading(str(result.facts.get("metric", "")) if column in SCORES or "{" in column.header else "")


def _changed(mine: Result, reference: Result) -> Mapping[str, float] | str:
    """The task's own `compare` or `between`; where it has none to give, the rule that says so."""
    task = mine.cell.task
    try:
        module = plugins.load(plugins.TASKS, task.kind if task else "")
        paired = module.compare_by_reference if module.REFERENCE else module.compare_to_baseline
        found: Mapping[str, float] = paired(mine.facts, reference.facts)
    except (UserError, KeyError, TypeError, ValueError, AttributeError):
        return OTHER
    return found


def _perplexity(changed: Mapping[str, float]) -> Ratio:
    """The interval is normal in the logarithm of the ratio, and so is its p-value."""
    value, low, high = (
        1 + changed[key] if (key := f"perplexity_change{end}_fraction") in changed else None
        for end in ("", "_low", "_high")
    )
    if low is None or high is None or not 0 < low < high:
        return Ratio(value, None, None, None, WINDOWS)
    return Ratio(value, low, high, normal_p(math.log(low), math.log(high)), WINDOWS)


def _divergence(
    column: Column, changed: Mapping[str, float], plain: Ratio, one: Result, two: Result
) -> tuple[Ratio, Points]:
    """A KL at its floor, as the baseline's own, is no measure of another: no ratio to it."""
    key, *ends = _CHANGES[column.key]
    low, high = (changed.get(end) for end in ends)
    p = None if low is None or high is None else normal_p(low, high)
    floors = [r.metrics.get(FLOOR, 0.0) * _NEAR_FLOOR for r in (one, two)]
    near = column.key == "kl_mean" and any(
        r.metrics[column.key] <= floor for r, floor in zip((one, two), floors, strict=True)
    )
    return Ratio(None if near else plain.value, None, None, p, WINDOWS), Points(changed[key], low, high)


def _score(changed: Mapping[str, float], plain: Ratio) -> tuple[Ratio, Points]:
    points = Points(changed["score_change"], changed.get("score_change_low"), changed.get("score_change_high"))
    rule = MCNEMAR if TESTED in changed else UNPAIRED
    return Ratio(plain.value, None, None, changed.get(TESTED), rule), points
