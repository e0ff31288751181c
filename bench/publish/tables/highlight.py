"""Which cell of a column is best, where the noise leaves no doubt: what tables set in bold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from bench.measure.sanity import BUSY, CLIENT, DUMMY, ENERGY, ERRORS, NVML, REMOTE, ROUND, SHORT, THROTTLED
from bench.publish.tables.columns import CHANGE, CHANGE_ENDS, QUALITY, SCORE_CHANGE, SCORE_ENDS, SIZE, Column
from bench.publish.tables.model import Entry, Row

LEGEND = (
    "bold: best in its column (in quality, of the compressed), its range over rounds or 95 % interval apart "
    "from every other's"
)
# Marks that leave it open whether a figure is the row's own; of a task only that its weights are dummies.
_DOUBTFUL = {BUSY, CLIENT, ERRORS, REMOTE, ROUND, SHORT, THROTTLED}
_ENERGY, _PEAK = "energy_", "peak_memory_bytes"


@dataclass(frozen=True)
class Rival:
    """A row's figure in a column: where it may be. `known`: its noise is, so that it may win."""

    low: float
    high: float
    known: bool


@dataclass(frozen=True)
class Contest:
    """A column of a section: its better side, and a rival for each row, None where it does not take part."""

    better: Literal["lower", "higher"] | None
    rivals: Sequence[Rival | None]


NO_CONTEST = Contest(None, ())


def winners(contests: Sequence[Contest], lines: Sequence[Sequence[str]]) -> frozenset[tuple[int, int]]:
    """Row and column of each best cell; `lines` are the cells as shown: what looks equal is no best."""
    found = set()
    for column, contest in enumerate(contests):
        row = _winner(contest)
        if row is None:
            continue
        others = (lines[i][column] for i, rival in enumerate(contest.rivals) if rival and i != row)
        if lines[row][column] not in others:
            found.add((row, column))
    return frozenset(found)


def _winner(contest: Contest) -> int | None:
    """The row whose whole range is better than that of any other."""
    sign = 1 if contest.better == "lower" else -1
    rivals = [
        (i, rival, sorted((sign * rival.low, sign * rival.high)))
        for i, rival in enumerate(contest.rivals)
        if rival is not None
    ]
    if contest.better is None or len(rivals) < 2:
        return None
    (best, rival, ends), (_, _, next_) = sorted(rivals, key=lambda r: r[2])[:2]
    return best if rival.known and ends[1] < next_[0] else None


def of_load(column: Column, entries: Sequence[Entry]) -> Contest:
    """Figures of a load, each with its range over rounds."""
    return Contest(column.better, [_of_figures(column, entry) for entry in entries])


def of_task(column: Column, rows: Sequence[Row], entries: Sequence[Entry]) -> Contest:
    """Figures of a task, of compressed models: a baseline, or a copy in floats, is as near itself as can be.

    A perplexity is known no better than its change against the baseline, over the same text.
    """
    if column in QUALITY:
        return of_change(CHANGE, rows, entries)
    found = [_of_figures(column, e) if _compressed(row) else None for row, e in zip(rows, entries, strict=True)]
    return Contest(column.better, found)


def of_change(column: Column, rows: Sequence[Row], entries: Sequence[Entry]) -> Contest:
    """A change against the baseline, with its 95 % interval."""
    ends = {CHANGE: CHANGE_ENDS, SCORE_CHANGE: SCORE_ENDS}[column]
    found: list[Rival | None] = []
    for row, entry in zip(rows, entries, strict=True):
        if not _compressed(row) or column.key not in entry.change:
            found.append(None)
            continue
        low, high = (entry.change.get(end, entry.change[column.key]) for end in ends)
        found.append(Rival(low, high, low < high and DUMMY not in entry.marks))
    return Contest(column.better, found)


def of_size(column: Column, rows: Sequence[Row]) -> Contest:
    """What an artifact takes is exact; how long it took to make was measured once."""
    values = [row.size(column.key) for row in rows]
    exact = column in SIZE
    return Contest(column.better, [None if v is None else Rival(v, v, exact) for v in values])


def _compressed(row: Row) -> bool:
    return not (row.baseline or row.whole)


def _of_figures(column: Column, entry: Entry) -> Rival | None:
    found = entry.figures.get(column.key)
    if entry.status != "ok" or found is None:
        return None
    ends = [entry.figures[key] for key in column.interval or () if key in entry.figures]
    low, high = (min(s.low for s in (found, *ends)), max(s.high for s in (found, *ends)))
    return Rival(low, high, (found.n > 1 or len(ends) == 2) and not _doubtful(column, entry))


def _doubtful(column: Column, entry: Entry) -> bool:
    marks = {mark.partition(":")[0] for mark in entry.marks}
    if column.interval is not None:
        return DUMMY in marks
    own = {ENERGY} if column.key.startswith(_ENERGY) else {NVML} if column.key == _PEAK else set()
    return bool(marks & (_DOUBTFUL | own))
