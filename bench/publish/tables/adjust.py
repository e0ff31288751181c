"""p-values of a table: each task's adjusted for the number of recipes tested."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from bench.contract.columns import ADJUSTED, TESTED
from bench.measure.stats import holm
from bench.publish.tables.model import Row


def adjusted(rows: Sequence[Row]) -> list[Row]:
    """The rows with the p-values of each task adjusted for the number of recipes tested; a replicate's in its stead."""
    by_row = [dict(row.tasks) for row in rows]
    for title in {title for tasks in by_row for title in tasks}:
        tested = [(row, tasks) for row, tasks in zip(rows, by_row, strict=True) if TESTED in tasks[title].change]
        own = {(row.recipe, row.engine): its[title].change[TESTED] for row, its in tested if not row.replicate_of}
        of_recipes = _holm(own)
        for row, tasks in tested:
            key, change = (row.replicate_of or row.recipe, row.engine), tasks[title].change
            p = (_holm({**own, key: change[TESTED]}) if row.replicate_of else of_recipes)[key]
            tasks[title] = replace(tasks[title], change={**change, ADJUSTED: p})
    return [replace(row, tasks=tasks) for row, tasks in zip(rows, by_row, strict=True)]


def _holm(values: Mapping[tuple[str, str], float]) -> dict[tuple[str, str], float]:
    return dict(zip(values, holm(list(values.values())), strict=True))
