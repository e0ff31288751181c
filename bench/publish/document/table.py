"""Rows and columns picked out of tables for a document, of several workloads and tasks."""

from __future__ import annotations

import math
from collections.abc import Sequence

from bench.contract import outside
from bench.contract.columns import Column
from bench.publish.document import query
from bench.publish.document.query import Match
from bench.publish.tables import render, sections
from bench.publish.tables.columns import metric_columns, quotable, task_name
from bench.publish.tables.model import CellSummary, Row, Section


def table(rows: Sequence[Row], keys: Sequence[str], order: str = "") -> str:
    """A pipe table with its footnotes, by `order`: the least first, rows without it last. A key: KEY or KEY@PATTERN."""
    if order:
        rows = sorted(rows, key=lambda row: _rank(row, order))
    notes, columns = sections.Notes(), [quotable(key.partition("@")[0]) for key in keys]
    matches = [[_match(row, key) for key in keys] for row in rows]
    columns, matches = _with_seeds(columns, matches)
    lines = [_line(row, its, columns, notes) for row, its in zip(rows, matches, strict=True)]
    notes.add(*sections.source_notes(rows))
    heads = []
    for at, column in enumerate(columns):
        title = task_name(next((its[at].title for its in matches if its[at].title), ""))
        heads.append(_head(column, title, repeated=columns.count(column) > 1))
    entries = [[match.entry for match in its if match.entry is not None] for its in matches]
    if any(marks := [sections.marked(its, notes) for its in entries]):
        heads.append("marks")
        lines = [(*line, mark) for line, mark in zip(lines, marks, strict=True)]
    piped = render.piped(Section("", ("recipe", "engine", *heads), tuple(lines)))
    footnotes = "  \n".join(map(outside.markdown_text, notes.lines(bold=False)))
    return "\n".join([*piped, *(["", footnotes] if footnotes else [])])


def _with_seeds(
    columns: Sequence[Column], matches: Sequence[Sequence[Match]]
) -> tuple[list[Column], list[list[Match]]]:
    """A task's first metric is followed by itself over seeds, where a recipe has replicates."""
    wider: list[Column] = []
    places: list[int] = []
    for at, column in enumerate(columns):
        entries = [entry for its in matches if (entry := its[at].entry) is not None]
        added = sections.with_seeds([column], entries) if any(_is_first(column, entry) for entry in entries) else ()
        wider += added or (column,)
        places += [at] * len(added or (column,))
    return wider, [[its[at] for at in places] for its in matches]


def _is_first(column: Column, entry: CellSummary) -> bool:
    return column == next((c for c in metric_columns(entry.kind) if c.key in entry.figures), None)


def _line(row: Row, matches: Sequence[Match], columns: Sequence[Column], notes: sections.Notes) -> tuple[str, ...]:
    """The status of what could not run stands once in a line, its footnote in each cell."""
    line, last_reason = [row.recipe, row.engine], ""
    for match, column in zip(matches, columns, strict=True):
        reason = match.entry.reason if match.entry is not None and match.entry.status != "ok" else ""
        first = not reason or reason != last_reason
        line.append(sections.format_cell(column, row, match.entry, notes, first=first))
        last_reason = reason
    return tuple(line)


def _rank(row: Row, order: str) -> float:
    spread = _match(row, order).spread(order.partition("@")[0])
    return math.inf if spread is None else spread.median


def _match(row: Row, key: str) -> Match:
    """The row's entry for the workload or task after the @ of a key: one with the metric, else one that failed."""
    metric, _, pattern = key.partition("@")
    if not pattern and row.size(metric) is not None:
        return Match(row)
    matches = [Match(row, title, entry) for title, entry in query.entries(row, pattern or "*")]
    having = (m for m in matches if m.spread(metric) is not None or (m.entry and metric in m.entry.words))
    failed = (m for m in matches if pattern and m.entry is not None and m.entry.status != "ok")
    return next(having, next(failed, Match(row)))


def _head(column: Column, title: str, *, repeated: bool) -> str:
    """The column's heading, with the workload or task if it has a slot for it or the column is there twice."""
    if "{title}" in column.header:
        return column.heading(title)
    return f"{column.heading()}, {title}" if repeated else column.heading()
