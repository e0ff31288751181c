"""A task's metrics over parts of its items: by position in the window, by length and depth of a prompt."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from bench.contract.columns import Column, Group, Part
from bench.measure.stats import Spread
from bench.publish.tables import columns
from bench.publish.tables.columns import DASH, task_name
from bench.publish.tables.model import CellSummary, Row, Section


@dataclass(frozen=True)
class PartLine:
    """A metric of a row's parts that have the same labels but the last: these by the last one, in order."""

    row: Row
    labels: tuple[str, ...]
    by_last: Mapping[str, Part]


def sections(rows: Sequence[Row], title: str) -> Iterator[Section]:
    """A section for each metric and change of a task's parts."""
    return (section for _, section in by_column(rows, title))


def by_column(rows: Sequence[Row], title: str) -> Iterator[tuple[Column, Section]]:
    """Each column of a task's parts with its section: a line for each row and label, the last axis across."""
    for column in shown(rows, title):
        lines = list(part_lines(rows, title, column))
        heads = dict.fromkeys(label for line in lines for label in line.by_last)
        body = tuple(
            (
                line.row.recipe,
                line.row.engine,
                *line.labels,
                *(text(column, line.row.tasks[title], line.by_last.get(head)) for head in heads),
            )
            for line in lines
        )
        *first, last = axes(rows, title)
        name = f"{task_name(title)}: {heading(column, rows, title)} by {last}"
        yield column, Section(name, ("recipe", "engine", *first, *heads), body, below=True)


def shown(rows: Sequence[Row], title: str) -> list[Column]:
    """The columns of a task's parts that one of these rows has a value for."""
    cells = [row.tasks[title] for row in rows if row.tasks[title].parts]
    measured = {key for cell in cells for part in cell.parts for key in part.metrics}
    kind = next((cell.kind for cell in cells), "")
    return [column for column in columns.part_columns(kind) if column.key in measured]


def axes(rows: Sequence[Row], title: str) -> tuple[str, ...]:
    """What a task's parts differ in, the axis that tables have across last."""
    return next((tuple(part.labels) for row in rows for part in row.tasks[title].parts), ())


def part_lines(rows: Sequence[Row], title: str, column: Column) -> Iterator[PartLine]:
    """The lines of a metric, those of a row one after the other; of a change none of the baseline's."""
    for row in rows:
        lines: dict[tuple[str, ...], dict[str, Part]] = {}
        for part in row.tasks[title].parts:
            *first, last = part.labels.values()
            if column.key in part.metrics:
                lines.setdefault(tuple(first), {})[last] = part
        for labels, by_last in lines.items():
            yield PartLine(row, labels, by_last)


def heading(column: Column, rows: Sequence[Row], title: str) -> str:
    """The column's, with the metric's own name where the task gives it one."""
    metric = next((row.tasks[title].metric for row in rows if row.tasks[title].metric), "")
    return column.heading(metric.replace("_", " "))


def text(column: Column, cell: CellSummary, part: Part | None) -> str:
    """A part's metric with half its interval; a dash where it has none."""
    if part is None:
        return DASH
    return change_text(column, cell.kind, part) if Group.CHANGE in column.groups else _figure(column, part)


def change_text(column: Column, kind: str, part: Part) -> str:
    """A part's change, in the unit that the metric of a task of this kind is shown in."""
    return columns.format_change(column, CellSummary("ok", figures=_figures(part), change=part.metrics, kind=kind))


def _figure(column: Column, part: Part) -> str:
    return columns.format_interval(column, _figures(part))


def _figures(part: Part) -> dict[str, Spread]:
    return {key: Spread(value, value, value, 0.0, 1) for key, value in part.metrics.items()}
