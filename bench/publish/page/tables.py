"""The tables of the page: every cell with the text that TABLES.md has and the value it is sorted by."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.contract.columns import RECOVERY, Column, Group
from bench.publish.tables import sections
from bench.publish.tables.columns import (
    MBU,
    MORE_SIZE,
    ONLINE,
    RECOMMENDED_BY,
    SEARCH,
    SERVING,
    SIZE,
    format_change,
    format_interval,
    metric_columns,
    task_columns,
    task_name,
)
from bench.publish.tables.model import OTHER_ENGINE, CellSummary, Row, Table

Cell = tuple[str, float | None]  # what is shown, what it is sorted by
_SPEED = tuple(dict.fromkeys((*SERVING, *ONLINE, *SEARCH, MBU, RECOMMENDED_BY["energy"])))


@dataclass
class Listing:
    """One table: `heads` are id -> heading, in order; the lines are JSON objects that the page reads."""

    heads: dict[str, str] = field(default_factory=dict)
    lines: list[dict[str, Any]] = field(default_factory=list)


def speed(tables: Iterable[Table]) -> Listing:
    """A line for each row and workload; of one that has no figures, why."""
    found = Listing({c.key: c.heading() for c in _SPEED})
    every = ((row, *of) for table in tables for row in table.rows for of in row.workloads.items())
    for row, title, entry in every:
        if entry.status == "unplanned":
            continue
        cells = {c.key: _cell(c, entry) for c in _SPEED if c.key in entry.figures}
        found.lines.append(_line(row, title, cells, {title: entry}))
    return found


def quality(tables: Iterable[Table]) -> Listing:
    """A line for each row that has an artifact or a task, its tasks side by side as in TABLES.md."""
    found = Listing({c.key: c.heading() for c in (*SIZE, *MORE_SIZE)})
    for row in (row for table in tables for row in table.rows):
        entries = {title: entry for title, entry in row.tasks.items() if entry.status != "unplanned"}
        cells = {c.key: cell for c in (*SIZE, *MORE_SIZE) if (cell := _size(row, c))}
        for title, entry in entries.items():
            for column, cell in _scored(row, entry):
                key = f"{column.key}|{title}"
                found.heads.setdefault(key, _head(column, title))
                cells[key] = cell
        if cells or entries:
            found.lines.append(_line(row, "", cells, entries))
    return found


def _line(row: Row, load: str, cells: Mapping[str, Cell], entries: Mapping[str, CellSummary]) -> dict[str, Any]:
    reasons: dict[str, list[str]] = {}
    for title, entry in entries.items():
        if entry.reason:
            reasons.setdefault(f"{entry.status}: {entry.reason}", []).append(task_name(title))
    whole = len(reasons) == 1 and len(entries) == sum(map(len, reasons.values()))
    said = [text if whole else f"{', '.join(titles)}: {text}" for text, titles in reasons.items()]
    status = next((e.status for e in entries.values() if e.status != "ok"), "ok")
    return {
        "device": row.device,
        "suite": row.suite,
        "model": row.model,
        "recipe": row.recipe,
        "engine": row.engine,
        "load": load,
        "baseline": row.baseline,
        "status": status,
        "reasons": said,
        "n": max((e.rounds for e in entries.values()), default=0),
        "cells": cells,
        "marks": list(dict.fromkeys(mark for e in entries.values() for mark in e.marks)),
        "notes": list(dict.fromkeys(e.note for e in entries.values() if e.note)),
    }


def _cell(column: Column, entry: CellSummary) -> Cell:
    return format_interval(column, entry.figures), entry.figures[column.key].median


def _size(row: Row, column: Column) -> Cell | None:
    """Nothing of what is only told where there is something to tell, as of weights at zero."""
    text, value = sections.size(row, column), row.size(column.key)
    return None if value is None or (column in MORE_SIZE and text == "0") else (text, value)


def _scored(row: Row, entry: CellSummary) -> Sequence[tuple[Column, Cell]]:
    """The figures of a task and its changes against the baseline, those that it has."""
    shown = [(c, _cell(c, entry)) for c in metric_columns(entry.kind) if c.key in entry.figures]
    star = " *" if OTHER_ENGINE in entry.marks else ""
    changes = {} if row.baseline else entry.change
    known = [c for c in task_columns(entry.kind) if Group.CHANGE in c.groups and c.key in changes]
    shown += [(c, (format_change(c, entry) + star, changes[c.key])) for c in known]
    if RECOVERY.key in changes:
        shown.append((RECOVERY, (sections.format_recovery(changes), changes[RECOVERY.key])))
    return shown


def _head(column: Column, title: str) -> str:
    """The heading with the task it is of."""
    shown = column.heading(task_name(title))
    return shown if "{title}" in column.header else f"{shown} · {task_name(title)}"
