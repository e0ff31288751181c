"""What every task has beyond the hooks of its role."""

from __future__ import annotations

import pytest

from bench.contract import hooks, plugins


@pytest.mark.parametrize("name", plugins.names(plugins.TASKS))
def test_a_task_meets_the_baseline_in_one_of_two_ways(name: str) -> None:
    """With REFERENCE it prepares one, without it compares facts afterwards; never both.

    What was measured against a reference also says how two artifacts stand to each other.
    """
    task = plugins.load(plugins.TASKS, name)

    assert hooks.plugin_has(task, "prepare") is task.REFERENCE
    assert hooks.plugin_has(task, "compare_by_reference") is task.REFERENCE
    assert hooks.plugin_has(task, "compare_to_baseline") is not task.REFERENCE


@pytest.mark.parametrize("name", plugins.names(plugins.TASKS))
def test_a_tasks_name_begins_with_its_kind(name: str) -> None:
    """Tables cut it off where the metric is named beside it."""
    task = plugins.load(plugins.TASKS, name)
    assert task.title(task.Options()).startswith(f"{name}-")
