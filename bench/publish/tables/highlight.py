"""Which cell of a column is best, where the noise leaves no doubt: what tables set in bold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from bench.contract.columns import Column, Group
from bench.measure.sanity import BUSY, CLIENT, DUMMY, ENERGY, ERRORS, EVENTS, NVML, REMOTE, ROUND, SHORT, THROTTLED
from bench.measure.seeds import SeedSpread
from bench.publish.tables.model import CellSummary, Row

LEGEND = (
    "bold: best in its column (in quality, of the compressed), its range over rounds or 95 % interval apart "
    "from every other's"
)
# Marks that make a load's figure doubtful; a task's is so only with dummy weights.
_DOUBTFUL = {BUSY, CLIENT, ERRORS, EVENTS, REMOTE, ROUND, SHORT, THROTTLED}


@dataclass(frozen=True)
class Interval:
    """The range of a row's figure; it may be the best only if its `noise_known`."""

    low: float
    high: float
    noise_known: bool


# Of a column: which direction is better, and an interval per row, None if that is not ranked.
Ranking = tuple[Literal["lower", "higher"] | None, Sequence[Interval | None]]


def best_cells(rankings: Sequence[Ranking], lines: Sequence[Sequence[str]], offset: int) -> frozenset[tuple[int, int]]:
    """Row and column (plus `offset`) of each best cell, unless another one in `lines` has the same text."""
    best = set()
    for column, (better, intervals) in enumerate(rankings):
        row = _best_row(better, intervals)
        others = (lines[i][column] for i, interval in enumerate(intervals) if interval and i != row)
        if row is not None and lines[row][column] not in others:
            best.add((row, column + offset))
    return frozenset(best)


def _best_row(better: str | None, intervals: Sequence[Interval | None]) -> int | None:
    """The row whose whole interval is better than that of any other."""
    sign = 1 if better == "lower" else -1
    ordered = sorted(
        (sorted((sign * interval.low, sign * interval.high)), row, interval.noise_known)
        for row, interval in enumerate(intervals)
        if interval is not None
    )
    if better is None or len(ordered) < 2:
        return None
    (best, row, noise_known), (second, _, _) = ordered[:2]
    return row if noise_known and best[1] < second[0] else None


def of_load(column: Column, cells: Sequence[CellSummary]) -> Ranking:
    """Figures of a load, each with its range over rounds."""
    return column.better, [_of_figures(column, cell) for cell in cells]


def of_task(column: Column, rows: Sequence[Row], cells: Sequence[CellSummary]) -> Ranking:
    """Figures of a task, without the baseline and copies in floats, which nothing can be nearer to, and replicates.

    A metric without an interval of its own is ranked by that of its change against the baseline. The interval of a
    recipe with replicates reaches over that of their mean.
    """
    change = column if Group.CHANGE in column.groups else column.change if column.interval is None else None
    intervals = [_of_figures(column, cell) if change is None else _of_change(change, cell) for cell in cells]
    pairs = zip(rows, intervals, strict=True)
    return column.better, [
        None if row.baseline or row.whole or row.replicate_of else interval for row, interval in pairs
    ]


def _of_change(change: Column, cell: CellSummary) -> Interval | None:
    if change.key not in cell.change:
        return None
    ends = change.interval or (change.key, change.key)
    low, high = (cell.change.get(end, cell.change[change.key]) for end in ends)
    return _reaching(Interval(low, high, low < high and DUMMY not in cell.marks), cell.seeds.get(change.key))


def _reaching(interval: Interval, seeds: SeedSpread | None) -> Interval:
    """The interval, reaching over that of the replicates' mean."""
    if seeds is None:
        return interval
    return replace(interval, low=min(interval.low, seeds.low), high=max(interval.high, seeds.high))


def of_size(column: Column, rows: Sequence[Row]) -> Ranking:
    """What an artifact takes is exact; how long it took to make was measured once."""
    values = [None if row.replicate_of else row.size(column.key) for row in rows]
    exact = Group.SIZE in column.groups
    return column.better, [None if v is None else Interval(v, v, exact) for v in values]


def _of_figures(column: Column, cell: CellSummary) -> Interval | None:
    figure = cell.figures.get(column.key)
    if cell.status != "ok" or figure is None:
        return None
    ends = [cell.figures[key] for key in column.interval or () if key in cell.figures]
    low, high = min(s.low for s in (figure, *ends)), max(s.high for s in (figure, *ends))
    known = (figure.n > 1 or len(ends) == 2) and not _doubtful(column, cell)
    return _reaching(Interval(low, high, known), cell.seeds.get(column.key))


def _doubtful(column: Column, cell: CellSummary) -> bool:
    if column.interval is not None:
        return DUMMY in cell.marks
    own = {ENERGY} if column.key.startswith("energy_") else {NVML} if column.key == "peak_memory_bytes" else set()
    return not (_DOUBTFUL | own).isdisjoint(mark.partition(":")[0] for mark in cell.marks)
