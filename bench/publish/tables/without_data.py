"""Which calibrated recipes lose to what needs no data: rounding to the same grid, zeros by the weights alone.

Both have to be measured, on one engine; a task's own paired comparison decides, by its 95 % interval.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bench.contract import plugins
from bench.contract.columns import Column
from bench.contract.errors import UserError
from bench.contract.spec import Step

_METHOD_GONE = (UserError, TypeError)  # a method or an option that this version does not have


def counterpart(steps: Sequence[Step], others: Mapping[str, Sequence[Step]]) -> str | None:
    """The name of those of `others` that differ from `steps` only in that their last step looks at no data."""
    if not steps:
        return None
    try:
        method, options = plugins.method_of(steps[-1])
        expected = method.without_data(options)
    except _METHOD_GONE:
        return None
    if expected is None:
        return None
    return next((name for name, its in others.items() if _is(its, [*steps[:-1], expected])), None)


def is_worse(columns: Sequence[Column], change: Mapping[str, float]) -> bool:
    """Whether a change lies on the worse side of no change with its whole interval, in the task's first column."""
    for column in columns:
        judged = column.change or column
        better = judged.better or column.better
        if better and judged.interval and all(end in change for end in judged.interval):
            low, high = (change[end] for end in judged.interval)
            return low > 0 if better == "lower" else high < 0
    return False


def _is(steps: Sequence[Step], expected: Sequence[Step]) -> bool:
    """Whether the steps are those expected, the last of which names only what matters of its options."""
    if [step.method for step in steps] != [step.method for step in expected]:
        return False
    try:
        given, wanted = ([plugins.method_of(step)[1] for step in chain] for chain in (steps, expected))
    except _METHOD_GONE:
        return False
    return given[:-1] == wanted[:-1] and all(
        vars(given[-1])[key] == expected[-1].options[key] for key in expected[-1].options
    )
