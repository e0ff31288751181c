"""A task through an engine's server beside the same in process: what serving and batching changed, item by item."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from bench.contract import served
from bench.contract.columns import SCORE_CHANGE, TESTED, Column
from bench.contract.errors import UserError
from bench.contract.record import Result
from bench.contract.spec import Task
from bench.measure.stats import spread
from bench.publish.tables.columns import DASH, LEVEL, format_figure, number, quotable
from bench.publish.tables.model import CellSummary

_CHANGE, _FLIPS, _P, _SAME = "vs in process, points", "lost / won", "p in process", "same answers"
_HEADS = (_CHANGE, _FLIPS, _P, _SAME)
_LOAD = ("concurrency", "ttft_s", "tpot_s", "output_tok_per_s", "request_per_s")
FEW = 5  # right answers of both together, below which the items say nothing
_NOTE = (
    "vs in process: the same items, asked of the server at the concurrency named and scored in process by the same "
    "scorer; p: McNemar's exact test; same answers: identical texts. Latencies and rates are of "
    "the items' own requests"
)
_ELSEWHERE = "vs in process: on {}, since {} has no session in process"


def is_served(task: Task | None) -> bool:
    return task is not None and served.is_served(task.options)


def is_in_process(task: Task | None, other: Task | None) -> bool:
    """Whether `other` is in process what `task` is through a server."""
    if task is None or other is None or served.is_served(other.options) or task.kind != other.kind:
        return False
    return served.in_process(task.options) == served.in_process(other.options)


def beside_in_process(
    entry: CellSummary,
    result: Result,
    cells: Mapping[Any, Mapping[tuple[bool, str], Sequence[Result]]],
    row: tuple[str, ...],
    compare: Callable[[Result, Result], Mapping[str, float]],
) -> CellSummary:
    """The entry beside the same task in process over the same items: of its own row, else of its recipe's first other.

    `cells`: rounds by row and column, a row's key ending in its engine. `compare` is the task's own comparison,
    UserError for other items.
    """
    rows = [row, *(other for other in cells if other[:-1] == row[:-1] and other != row)]
    for rounds in (its for key in rows for its in cells[key].values()):
        other = next((r for r in rounds if r.status == "ok" and is_in_process(result.cell.task, r.cell.task)), None)
        with suppress(UserError):
            if other is not None:
                return _with_change(entry, result, other, compare(result, other))
    return entry


def _with_change(entry: CellSummary, result: Result, other: Result, change: Mapping[str, float]) -> CellSummary:
    """The entry with its `change` against another record of the same items."""
    keys = {f"in_process_{key}": value for key, value in change.items()}
    words = {_SAME: same_answers(result, other)}
    if TESTED in change:
        words |= {_CHANGE: _change(result, other, change), _P: number(change[TESTED], 2)}
        words[_FLIPS] = "{flips_worse:.0f} / {flips_better:.0f}".format_map(change)
    note = entry.note
    if result.cell.engine.title != other.cell.engine.title:
        elsewhere = _ELSEWHERE.format(other.cell.engine.title, result.cell.engine.title)
        note = f"{note}; {elsewhere}" if note else elsewhere
    figures = {**entry.figures, **{key: spread([value]) for key, value in keys.items()}}
    return replace(entry, words={**entry.words, **words}, figures=figures, note=note)


def same_answers(result: Result, other: Result) -> str:
    """How many items have the very same answer in both; a dash where a record has no texts."""
    digests = [str(each.facts.get("item_answers") or "") for each in (result, other)]
    if not all(digests) or len(digests[0]) != len(digests[1]):
        return DASH
    size = served.ANSWER_DIGITS
    items = range(0, len(digests[0]), size)
    return f"{sum(digests[0][i : i + size] == digests[1][i : i + size] for i in items)} of {len(items)}"


def heads(cells: Sequence[CellSummary]) -> list[str]:
    """Those of the columns that a task through a server has besides; none of one in process."""
    paired = [head for head in _HEADS if any(head in cell.words for cell in cells)]
    return [*paired, *(column.heading() for column in _load_columns(cells))]


def texts(cell: CellSummary, cells: Sequence[CellSummary]) -> list[str]:
    """A cell's in these columns."""
    paired = [cell.words.get(head, DASH) for head in _HEADS if any(head in each.words for each in cells)]
    figures = cell.figures
    load = (format_figure(c, figures[c.key]) if c.key in figures else DASH for c in _load_columns(cells))
    return [*paired, *load]


def notes(cells: Sequence[CellSummary]) -> list[str]:
    """What the columns mean."""
    return [_NOTE] if any(_CHANGE in cell.words for cell in cells) else []


def _load_columns(cells: Sequence[CellSummary]) -> list[Column]:
    measured = {key for cell in cells for key in cell.figures}
    return [quotable(key) for key in _LOAD if key in measured] if "concurrency" in measured else []


def _change(result: Result, other: Result, change: Mapping[str, float]) -> str:
    """In points with half its 95 % interval, and whether it is more than noise; or that nothing can be told."""
    right = [round(sum(float(item) for item in each.facts["item_scores"])) for each in (result, other)]
    if sum(right) < FEW:
        return f"uninformative ({right[0]} and {right[1]} of {result.facts['items']} right)"
    low, high = (100 * change[key] for key in SCORE_CHANGE.interval or ())
    text = f"{round(100 * change[SCORE_CHANGE.key], 1) + 0.0:+.1f} ± {(high - low) / 2:.1f}"
    return text if change[TESTED] < LEVEL else f"noise ({text})"
