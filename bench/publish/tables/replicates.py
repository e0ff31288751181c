"""Replicates of a recipe in one row: the first one's figures, with the spread of all of them over their seeds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from bench.measure.seeds import SeedSpread, over_seeds
from bench.publish.tables.model import NO_GAIN, CellSummary, Row

SameItems = Callable[[Row, Row, str], bool]  # whether a replicate's task of that title is over its recipe's items


def folded(rows: Sequence[Row], same_items: SameItems, *, shown: bool) -> list[Row]:
    """Each recipe with the spread over its replicates on the same engine; `shown`: with their rows behind it."""
    by_recipe: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row.replicate_of:
            by_recipe.setdefault((row.replicate_of, row.engine), []).append(row)
    return [
        row if row.replicate_of else _with_seeds(row, by_recipe.get((row.recipe, row.engine), ()), same_items)
        for row in rows
        if shown or not row.replicate_of
    ]


def _with_seeds(row: Row, replicates: Sequence[Row], same_items: SameItems) -> Row:
    if not replicates:
        return row
    tasks = {
        title: _task(cell, [(other.recipe, other.tasks[title], same_items(other, row, title)) for other in replicates])
        for title, cell in row.tasks.items()
    }
    return replace(row, tasks=tasks)


def _task(cell: CellSummary, replicates: Sequence[tuple[str, CellSummary, bool]]) -> CellSummary:
    """The recipe's own cell with its `replicates`: their names, their cells, and whether they are over its items."""
    done = [other for _, other, comparable in replicates if other.status == "ok" and comparable]
    problems = [
        text for name, other, comparable in replicates if (text := _problem(name, other, comparable=comparable))
    ]
    note = "; ".join(filter(None, (cell.note, *problems)))
    if cell.status != "ok" or not done:
        return replace(cell, note=note)
    # What looks at no data may win by chance: only what every replicate loses is no gain.
    marks = tuple(m for m in cell.marks if m != NO_GAIN or all(NO_GAIN in other.marks for other in done))
    return replace(cell, seeds=dict(_spreads([cell, *done])), marks=marks, note=note)


def _problem(name: str, cell: CellSummary, *, comparable: bool) -> str:
    """Why a replicate is not among those in the spread; nothing where it is, or has not run yet."""
    if cell.status in ("failed", "unsupported"):
        return f"{name}: {cell.status}: {cell.reason}"
    return "" if comparable or cell.status != "ok" else f"{name}: its records are over other items, run it again"


def _spreads(cells: Sequence[CellSummary]) -> Iterator[tuple[str, SeedSpread]]:
    """By metric, and by change against the baseline, over those that have it."""
    values: dict[str, list[float]] = {}
    for cell in cells:
        medians = {key: figure.median for key, figure in cell.figures.items()}
        for key, value in {**medians, **cell.change}.items():
            values.setdefault(key, []).append(value)
    for key, its in values.items():
        if (spread := over_seeds(its)) is not None:
            yield key, spread
