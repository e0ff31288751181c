"""Tables of the page: every cell with the text that TABLES.md has and the value it is sorted by."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bench.contract.columns import RECOVERY, Column, Group
from bench.publish.tables import columns, parts, price, sections
from bench.publish.tables.columns import MORE_SIZE, SIZE, format_value, task_name
from bench.publish.tables.model import OTHER_ENGINE, CellSummary, Row

Cell = tuple[str, float | None]  # its text, the value it is sorted by
_OVER_SEEDS = "|seeds"
_SPEED = tuple(
    dict.fromkeys(
        (
            *columns.SERVING,
            *columns.ONLINE,
            *columns.SEARCH,
            columns.MBU,
            columns.RECOMMENDED_BY["energy"],
            *columns.group(Group.PRICE),
        )
    )
)


def speed(rows: Iterable[Row]) -> dict[str, Any]:
    """A line for each row and workload; the reason where one has no metrics. `heads`: id -> heading."""
    heads: dict[str, str] = {}
    lines = []
    for row in rows:
        for title, entry in _planned(row.workloads).items():
            cells = {c.key: _cell(c, entry) for c in _SPEED if c.key in entry.figures}
            for answer in entry.answers:
                for column in (c for c in columns.ANSWER if c.key in answer.figures):
                    key, figure = f"{column.key}|{answer.name}", answer.figures[column.key]
                    cells[key] = price.text(column, answer.figures, entry), figure.median
                    heads[key] = f"{column.heading()} · {task_name(answer.name)}"
            lines.append(_line(row, title, cells, {title: entry}))
    measured = {key for line in lines for key in line["cells"]}
    shown = (c for c in _SPEED if not c.groups & (Group.CONTENT | Group.PRICE) or c.key in measured)
    return {"heads": {**{c.key: c.heading() for c in shown}, **heads}, "lines": lines}


def quality(rows: Iterable[Row]) -> dict[str, Any]:
    """A line for each row that has an artifact or a task, with columns for each task as in TABLES.md."""
    heads, lines = {c.key: c.heading() for c in (*SIZE, *MORE_SIZE)}, []
    for row in rows:
        entries = _planned(row.tasks)
        cells = {c.key: cell for c in (*SIZE, *MORE_SIZE) if (cell := _size(row, c))}
        for title, entry in entries.items():
            for column, cell in _scores(row, entry):
                key = f"{column.key}|{title}{_OVER_SEEDS if Group.SEEDS in column.groups else ''}"
                if key not in heads:
                    heads[key] = _head(column, title)
                cells[key] = cell
        if cells or entries:
            lines.append(_line(row, "", cells, entries))
    # A baseline has no seeds, and comes first: each metric is followed by itself over seeds.
    columns_of = {key: (key, f"{key}{_OVER_SEEDS}") for key in heads if not key.endswith(_OVER_SEEDS)}
    return {"heads": {key: heads[key] for keys in columns_of.values() for key in keys if key in heads}, "lines": lines}


def by_part(rows: Sequence[Row]) -> dict[str, Any]:
    """A line for each row, task, metric and label of its parts but the last, which has the columns."""
    heads: dict[str, str] = {}
    lines = []
    for title in dict.fromkeys(title for row in rows for title, entry in row.tasks.items() if entry.parts):
        having = [row for row in rows if title in row.tasks and row.tasks[title].parts]
        *first, last = parts.axes(having, title)
        for column in parts.shown(having, title):
            name = f"{task_name(title)}: {parts.heading(column, having, title)}"
            for line in parts.part_lines(having, title, column):
                entry = line.row.tasks[title]
                cells = {
                    f"{last}|{label}": (parts.text(column, entry, part), part.metrics[column.key])
                    for label, part in line.by_last.items()
                }
                heads |= {key: key.replace("|", " ") for key in cells}
                labels = [f"{axis} {label}" for axis, label in zip(first, line.labels, strict=True)]
                lines.append({**_line(line.row, "", cells, {title: entry}), "part": ", ".join([name, *labels])})
    return {"heads": heads, "lines": lines}


def _planned(entries: Mapping[str, CellSummary]) -> dict[str, CellSummary]:
    return {title: entry for title, entry in entries.items() if entry.status != "unplanned"}


def _line(row: Row, load: str, cells: Mapping[str, Cell], entries: Mapping[str, CellSummary]) -> dict[str, Any]:
    reasons: dict[str, list[str]] = {}
    for title, entry in entries.items():
        if entry.reason:
            reasons.setdefault(f"{entry.status}: {entry.reason}", []).append(task_name(title))
    shared = len(reasons) == 1 and len(entries) == sum(map(len, reasons.values()))
    reason_texts = [text if shared else f"{', '.join(titles)}: {text}" for text, titles in reasons.items()]
    status = next((e.status for e in entries.values() if e.status != "ok"), "ok")
    names = ("device", "suite", "model", "recipe", "engine", "baseline")
    return {
        **{name: getattr(row, name) for name in names},
        "load": load,
        "status": status,
        "reasons": reason_texts,
        "n": max((e.rounds for e in entries.values()), default=0),
        "cells": cells,
        "marks": list(dict.fromkeys(mark for e in entries.values() for mark in e.marks)),
        "notes": list(dict.fromkeys(e.note for e in entries.values() if e.note)),
    }


def _cell(column: Column, entry: CellSummary) -> Cell:
    return price.text(column, entry.figures, entry), entry.figures[column.key].median


def _size(row: Row, column: Column) -> Cell | None:
    """None where it is unknown, or a column of MORE_SIZE would show a zero."""
    text, value = sections.size(row, column), row.size(column.key)
    return None if value is None or (column in MORE_SIZE and text == "0") else (text, value)


def _scores(row: Row, entry: CellSummary) -> Sequence[tuple[Column, Cell]]:
    """The metrics of a task and its changes against the baseline, those that it has."""
    cells = [(c, _cell(c, entry)) for c in columns.metric_columns(entry.kind) if c.key in entry.figures]
    if row.baseline:
        return cells
    over = [columns.over_seeds(c) for c, _ in cells[:1] if c.key in entry.seeds]
    cells += [(c, (columns.format_seeds(c, entry), entry.seeds[c.key].mean)) for c in over]
    star = " *" if OTHER_ENGINE in entry.marks else ""
    changes = [c for c in columns.task_columns(entry.kind) if Group.CHANGE in c.groups and c.key in entry.change]
    cells += [(c, (columns.format_change(c, entry) + star, entry.change[c.key])) for c in changes]
    if RECOVERY.key in entry.change:
        cells.append((RECOVERY, (format_value(RECOVERY, entry.change[RECOVERY.key]), entry.change[RECOVERY.key])))
    return cells


def _head(column: Column, title: str) -> str:
    heading = column.heading(task_name(title))
    return heading if "{title}" in column.header else f"{heading} · {task_name(title)}"
