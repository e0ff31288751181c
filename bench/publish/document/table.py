"""Some rows and columns out of tables, for a document: of several workloads and tasks beside each other."""

from __future__ import annotations

import math
from collections.abc import Sequence

from bench.contract.columns import Column, Group
from bench.publish.document import records
from bench.publish.tables import render, sections
from bench.publish.tables.columns import format_change, quotable, task_name
from bench.publish.tables.model import Row, Section


def table(rows: Sequence[Row], keys: Sequence[str], order: str = "") -> str:
    """A pipe table with its footnotes. A key is KEY or KEY@WORKLOAD-OR-TASK, a pattern.

    `order` is a key too: the least first, and rows without it last.
    """
    if order:
        rows = sorted(rows, key=lambda row: _rank(row, order))
    notes, columns = sections.Notes(), [quotable(key.partition("@")[0]) for key in keys]
    lines = [_line(row, keys, columns, notes) for row in rows]
    heads = [_head(rows, key, c, twice=columns.count(c) > 1) for key, c in zip(keys, columns, strict=True)]
    entries = [[e for key in keys if (e := _found(row, key).entry) is not None] for row in rows]
    if any(marks := [sections.marked(its, notes) for its in entries]):
        heads.append("marks")
        lines = [(*line, mark) for line, mark in zip(lines, marks, strict=True)]
    piped = render.piped(Section("", ("recipe", "engine", *heads), tuple(lines)))
    said = "  \n".join(map(render.escaped, notes.lines(bold=False)))
    return "\n".join([*piped, *(["", said] if said else [])])


def cell(found: records.Found, column: Column, notes: sections.Notes, *, first: bool = True) -> str:
    """A figure as tables show it, or a word in its place; a star where the baseline ran elsewhere."""
    row, entry, changes = found.row, found.entry, Group.CHANGE in column.groups
    if changes and row.baseline:
        return "baseline"
    if entry is None:
        return sections.size(row, column)
    if entry.status != "ok":
        return sections.void(entry, notes, first=first)
    if not changes or column.key not in entry.change:
        return sections.format_cell(column, entry, notes)
    return sections.starred(format_change(column, entry), entry, notes)


def _line(row: Row, keys: Sequence[str], columns: Sequence[Column], notes: sections.Notes) -> tuple[str, ...]:
    """The word for what could not run stands once in a line, its footnote in each cell."""
    line, before = [row.recipe, row.engine], ""
    for key, column in zip(keys, columns, strict=True):
        found = _found(row, key)
        fell = found.entry.reason if found.entry is not None and found.entry.status != "ok" else ""
        line.append(cell(found, column, notes, first=not fell or fell != before))
        before = fell
    return tuple(line)


def _rank(row: Row, order: str) -> float:
    spread = _found(row, order).figure(order.partition("@")[0])
    return math.inf if spread is None else spread.median


def _found(row: Row, key: str) -> records.Found:
    """The row's entry for the workload or task after the @ of a key: with the figure, else fallen."""
    word, _, pattern = key.partition("@")
    if not pattern and row.size(word) is not None:
        return records.Found(row)
    matched = [records.Found(row, what, entry) for what, entry in records.entries(row, pattern or "*")]
    has = (f for f in matched if f.figure(word) is not None or (f.entry and word in f.entry.words))
    fell = (f for f in matched if pattern and f.entry is not None and f.entry.status != "ok")
    return next(has, next(fell, records.Found(row)))


def _head(rows: Sequence[Row], key: str, column: Column, *, twice: bool) -> str:
    """The column's header, with the workload or task where it has a place for it or stands there twice."""
    title = task_name(next((found.what for row in rows if (found := _found(row, key)).what), ""))
    if "{title}" in column.header:
        return column.heading(title)
    return f"{column.heading()}, {title}" if twice else column.heading()
