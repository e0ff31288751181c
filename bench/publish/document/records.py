"""Which cells a document speaks of, and a number out of them: the words of its commands.

A path is suite/recipe/engine or suite/recipe/engine/workload-or-task; each part a pattern with * and ?,
or several with commas between.
A key is a metric, a change against the baseline or a figure of the artifact, as columns.py has them.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from bench.contract.errors import UserError
from bench.contract.record import Result
from bench.measure.stats import Spread
from bench.publish.tables.columns import quotable
from bench.publish.tables.model import CellSummary, Row, Table

_OVER_CELLS: Mapping[str, Callable[[Sequence[float]], float]] = {"least": min, "most": max, "middle": statistics.median}
_OVER_ROUNDS: Mapping[str, Callable[[Spread], float]] = {"low": lambda s: s.low, "high": lambda s: s.high}
_COMPARED: Mapping[str, Callable[[float, float], bool]] = {
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}


@dataclass(frozen=True)
class Source:
    """What there is to quote: by device and suite the table, and the records it is of."""

    tables: Mapping[tuple[str, str], Table]
    records: Mapping[tuple[str, str], Sequence[Result]]

    @property
    def devices(self) -> list[str]:
        return list(dict.fromkeys(slug for slug, _ in self.records))

    def tables_of(self, device: str) -> dict[str, Table]:
        """By suite."""
        return {suite: table for (slug, suite), table in self.tables.items() if slug == device}

    def records_of(self, device: str) -> dict[str, Sequence[Result]]:
        """By suite."""
        return {suite: its for (slug, suite), its in self.records.items() if slug == device}


@dataclass(frozen=True)
class Found:
    """A row, with its entry for the workload or task that the path names, if it names one."""

    row: Row
    what: str = ""
    entry: CellSummary | None = None

    def figure(self, key: str) -> Spread | None:
        """Of the entry, of its change against the baseline, else of the artifact."""
        if self.entry is not None and key in self.entry.figures:
            return self.entry.figures[key]
        known = self.entry.change.get(key) if self.entry is not None else None
        value = self.row.size(key) if known is None else known
        return None if value is None else Spread(value, value, value, 0.0, 1)


def rows(source: Source, path: str) -> list[Row]:
    """Rows that suite/recipe/engine matches, in the order of their tables."""
    parts = path.split("/")
    if len(parts) != 3:
        raise UserError(f"'{path}' is no suite/recipe/engine")
    found = [row for row in _every(source) if all(map(_matches, (row.suite, row.recipe, row.engine), parts))]
    if not found:
        raise UserError(f"no row is {path}; {_there(source, parts[0])}")
    return found


def cells(source: Source, path: str) -> list[Found]:
    """What a path matches; UserError for nothing."""
    parts = path.split("/", 3)
    found = rows(source, "/".join(parts[:3]))
    if len(parts) == 3:
        return [Found(row) for row in found]
    matched = [Found(row, what, entry) for row in found for what, entry in entries(row, parts[3])]
    if not matched:
        titles = dict.fromkeys(what for row in found for what, _ in entries(row, "*"))
        raise UserError(f"nothing there is {parts[3]}; there are: {', '.join(titles)}")
    return matched


def entries(row: Row, pattern: str) -> Iterator[tuple[str, CellSummary]]:
    """Workloads and tasks of a row that were asked for, by the pattern of their titles."""
    for what, entry in (*row.workloads.items(), *row.tasks.items()):
        if entry.status != "unplanned" and _matches(what, pattern):
            yield what, entry


def only(source: Source, path: str) -> Found:
    """The only cell that a path matches."""
    found = cells(source, path)
    if len(found) > 1:
        names = ", ".join(f"{f.row.recipe}/{f.row.engine}/{f.what}" for f in found[:4])
        raise UserError(f"{path} is {len(found)} cells ({names}, ...); name one")
    return found[0]


def one(source: Source, path: str, key: str) -> Spread:
    """The figure of the only cell that a path matches."""
    return _figure(only(source, path), key)


def having(source: Source, path: str, key: str) -> list[tuple[Found, float]]:
    """The cells that have a figure, with its median."""
    known = [(f, spread.median) for f in cells(source, path) if (spread := f.figure(key)) is not None]
    if not known:
        raise UserError(f"none of {path} has the figure {key}")
    return known


def value(source: Source, words: Sequence[str]) -> float:
    """A number: itself; [low|high|least|most|middle] PATH KEY; ratio PATH PATH KEY; count PATH [STATUS]."""
    match words:
        case [text] if _is_number(text):
            return float(text)
        case ["ratio", above, below, key]:
            return one(source, above, key).median / one(source, below, key).median
        case ["count", path, *status] if len(status) < 2:
            return float(sum(not status or _status(f) in status for f in cells(source, path)))
        case [word, path, key] if word in _OVER_ROUNDS:
            return _OVER_ROUNDS[word](one(source, path, key))
        case [word, path, key] if word in _OVER_CELLS:
            return _OVER_CELLS[word]([median for _, median in having(source, path, key)])
        case [path, key]:
            return one(source, path, key).median
        case _:
            raise UserError(f"'{' '.join(words)}' is no number of the records")


def check(source: Source, words: Sequence[str]) -> None:
    """NUMBER < NUMBER, or with <=, > or >=; UserError with both where the records do not bear it out."""
    at = next((i for i, word in enumerate(words) if word in _COMPARED), None)
    if at is None:
        raise UserError(f"nothing is compared: write one of {' '.join(_COMPARED)} between two numbers")
    left, right = value(source, words[:at]), value(source, words[at + 1 :])
    if not _COMPARED[words[at]](left, right):
        raise UserError(f"the records do not bear this out: {left:.4g} {words[at]} {right:.4g} is not so")


def _figure(found: Found, key: str) -> Spread:
    spread = found.figure(key)
    if spread is None:
        quotable(key)  # which says so where no table knows it
        entry = found.entry
        have = (*entry.figures, *entry.change) if entry else ()
        state = f"it is {entry.status}" if entry and entry.status != "ok" else f"it has: {', '.join(have)}"
        raise UserError(f"no figure {key}; {state}")
    return spread


def _matches(name: str, patterns: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns.split(","))


def _status(found: Found) -> str:
    return found.entry.status if found.entry is not None else "ok"


def _every(source: Source) -> Iterator[Row]:
    for table in source.tables.values():
        yield from table.rows


def _there(source: Source, suite: str) -> str:
    """What there is instead: the suite's rows, or the suites."""
    its = [f"{row.recipe}/{row.engine}" for row in _every(source) if row.suite == suite]
    suites = dict.fromkeys(row.suite for row in _every(source))
    return f"{suite} has: {', '.join(its)}" if its else f"the suites are: {', '.join(suites)}"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
