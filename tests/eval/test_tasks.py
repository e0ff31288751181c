"""What every task has beyond its protocol."""

from __future__ import annotations

import inspect

import pytest

from bench.contract import hooks, plugins


@pytest.mark.parametrize("name", plugins.names(plugins.TASKS))
def test_a_task_meets_the_baseline_in_one_of_two_ways(name: str) -> None:
    """With REFERENCE it prepares one, without it compares facts afterwards; never both.

    What was measured against a reference also says how two artifacts stand to each other.
    """
    module = plugins.load(plugins.TASKS, name)
    has, lacks = (
        (("prepare", "compare_by_reference"), ("compare_to_baseline",))
        if module.REFERENCE
        else (("compare_to_baseline",), ("prepare", "compare_by_reference"))
    )
    role = hooks.Referenced if module.REFERENCE else hooks.Compared

    assert not any(hasattr(module, name_) for name_ in lacks)
    for name_ in has:
        wanted = list(inspect.signature(getattr(role, name_)).parameters)[1:]
        assert list(inspect.signature(getattr(module, name_)).parameters) == wanted


@pytest.mark.parametrize("name", plugins.names(plugins.TASKS))
def test_a_tasks_name_begins_with_its_kind(name: str) -> None:
    """Tables cut it off where the metric is named beside it."""
    module = plugins.load(plugins.TASKS, name)
    assert module.title(module.Options()).startswith(f"{name}-")
