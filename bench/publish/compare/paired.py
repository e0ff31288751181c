"""What a task says of two records on the same items, as the metrics of a comparison."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Literal

from bench.contract import plugins
from bench.contract.columns import TESTED, Column, Group, Part
from bench.contract.errors import UserError
from bench.contract.record import Result
from bench.measure.ratio import Ratio, ratio, t_p
from bench.measure.sanity import OTHER_TOKENS
from bench.publish.tables.build import task_change
from bench.publish.tables.columns import metric_columns, part_columns, task_columns

EXACT, WINDOWS, MCNEMAR, UNPAIRED, OTHER = "exact", "windows", "McNemar", "no items", "other items"
_NEAR_FLOOR = 2.0
_MANY = 1e9  # degrees of freedom where a task has no windows: Student's t is normal then


@dataclass(frozen=True)
class Difference:
    """B - A on the same items, in the stored unit, and its 95 % interval where it has one."""

    change: float
    low: float | None = None
    high: float | None = None


TaskMetric = tuple[Column, str, float, float, Ratio, Difference | None]


def task_metrics(one: Result, two: Result) -> Iterator[TaskMetric]:
    """Column, heading, A, B, ratio, difference: for each metric that both have and a column shows.

    Task rounds repeat the same items, so that one of each is compared.
    """
    changes: Mapping[str, float] | None = None
    with suppress(UserError):  # not over the same items
        changes = task_change(two, one)
    metric = str(one.facts.get("metric", ""))
    for column in _columns(one, two, changes):
        if column.key not in one.metrics or column.key not in two.metrics:
            continue
        if Group.PAIRED in column.groups:
            better: Literal["higher", "lower"] = "higher" if one.facts.get("higher_is_better", True) else "lower"
            column = replace(column, better=better)  # noqa: PLW2901
        a, b = one.metrics[column.key], two.metrics[column.key]
        compared, difference = replace(ratio([a], [b]), rule=OTHER), None
        if changes is not None:
            compared, difference = _compared(column, changes, ratio([a], [b]), (one, two))
        yield column, column.heading(metric), a, b, compared, difference


def part_changes(one: Result, two: Result) -> Iterator[tuple[Column, Column, Part]]:
    """Metric, change and part: how two records differ over each part of the items, where they are over the same."""
    kind = two.cell.task.kind if two.cell.task else ""
    parts: Sequence[Part] = ()
    with suppress(UserError):
        parts = plugins.load(plugins.TASKS, kind).parts(two.facts, one.facts)
    changes = {c.change: c for c in (*metric_columns(kind), *part_columns(kind)) if c.change}
    for change, column in changes.items():
        yield from ((column, change, part) for part in parts if change.key in part.metrics)


def _columns(one: Result, two: Result, changes: Mapping[str, float] | None) -> tuple[Column, ...]:
    """The task's metrics; of tokens that are not the same in both, what compares across tokenizers."""
    kind = one.cell.task.kind if one.cell.task else ""
    if not any(OTHER_TOKENS in result.marks for result in (one, two)):
        return metric_columns(kind)
    paired = {c.key for c in metric_columns(kind) if c.change and c.change.key in (changes or {})}
    across = tuple(c for c in task_columns(kind) if Group.ANY_TOKENS in c.groups and Group.CHANGE not in c.groups)
    same = tuple(c for c in metric_columns(kind) if Group.PER_TOKEN not in c.groups or c.key in paired)
    return (*same, *across)


def _compared(
    column: Column, changes: Mapping[str, float], plain: Ratio, results: tuple[Result, Result]
) -> tuple[Ratio, Difference | None]:
    """The ratio of B to A, and their difference where the task compares by that."""
    change = column.change
    if change is None or change.key not in changes:
        return plain, None
    low, high = (changes.get(end) for end in change.interval or ("", ""))
    facts = results[0].facts
    windows = len(facts.get("window_tokens") or facts.get("answer_tokens") or ())
    degrees = windows - 1 if windows > 1 else _MANY
    if Group.RELATIVE in change.groups:
        return _relative(1 + changes[change.key], low, high, degrees), None
    difference = Difference(changes[change.key], low, high)
    if Group.PAIRED in column.groups:
        rule = MCNEMAR if TESTED in changes else UNPAIRED
        return Ratio(plain.value, None, None, changes.get(TESTED), rule), difference
    p = None if low is None or high is None else t_p(low, high, degrees)
    # A metric at its noise floor, as the baseline's own, is no measure of another: no ratio to it.
    floors = [_NEAR_FLOOR * r.metrics.get(column.floor, 0.0) for r in results]
    near = any(r.metrics[column.key] <= floor for r, floor in zip(results, floors, strict=True))
    return Ratio(None if column.floor and near else plain.value, None, None, p, WINDOWS), difference


def _relative(value: float, low: float | None, high: float | None, degrees: float) -> Ratio:
    """The interval is Student's t of the logarithm of the ratio, and so is its p-value."""
    if low is None or high is None or not -1 < low < high:
        return Ratio(value, None, None, None, WINDOWS)
    return Ratio(value, 1 + low, 1 + high, t_p(math.log1p(low), math.log1p(high), degrees), WINDOWS)
