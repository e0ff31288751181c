"""Which rows and cells of the tables a document names, and a number out of them.

A path is suite/recipe/engine or suite/recipe/engine/workload-or-task; each part a pattern with * and ?,
or several with commas between. Imported records are named by their device, as foreign-NAME:suite/recipe/engine;
no other path means them. A key is a metric, a change against the baseline or a property of the artifact, as in
tables/columns.py.
"""

from __future__ import annotations

import operator
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase

from bench.contract.columns import Group
from bench.contract.errors import UserError
from bench.foreign import is_foreign, is_selected
from bench.measure.stats import Spread
from bench.publish.records import Records
from bench.publish.tables.columns import CURRENCY, quotable
from bench.publish.tables.model import CellSummary, Row

_LEAST_PAIRS = 3
_OVER_CELLS: Mapping[str, Callable[[Sequence[float]], float]] = {"least": min, "most": max, "middle": statistics.median}
_COMPARED: Mapping[str, Callable[[float, float], bool]]
_COMPARED = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}


@dataclass(frozen=True)
class Match:
    """A row, with its entry for the workload or task that the path names, if it names one."""

    row: Row
    title: str = ""
    entry: CellSummary | None = None

    def spread(self, key: str) -> Spread | None:
        """Of a metric of the entry, of its change against the baseline, else of the artifact."""
        figures, changes = (self.entry.figures, self.entry.change) if self.entry is not None else ({}, {})
        if key in figures:
            return figures[key]
        value = changes.get(key, self.row.size(key))
        return None if value is None else Spread(value, value, value, 0.0, 1)

    def require(self, key: str) -> Spread:
        """The same; UserError that says what there is instead."""
        if (spread := self.spread(key)) is not None:
            return spread
        quotable(key)  # its own UserError where no table has such a column
        if self.entry is not None and self.entry.status != "ok":
            raise UserError(f"no value of {key}: the status is {self.entry.status}")
        if Group.PRICE in quotable(key).groups and self.entry is not None and CURRENCY not in self.entry.words:
            raise UserError(f"no value of {key}, as no price of the machine is given: name its device in prices.yaml")
        keys = (*self.entry.figures, *self.entry.change) if self.entry is not None else ()
        raise UserError(f"no value of {key}; available: {', '.join(keys)}")


def rows(records: Records, path: str) -> list[Row]:
    """Rows that suite/recipe/engine matches, in the order of their tables; UserError for none."""
    device, _, below = path.partition(":") if is_foreign(path) else ("", "", path)
    parts = below.split("/")
    if len(parts) != 3:
        raise UserError(f"invalid path '{path}': expected SUITE/RECIPE/ENGINE")
    candidates = [row for row in records.rows() if is_selected(row.device, device)]
    matched = [row for row in candidates if all(map(_matches, (row.suite, row.recipe, row.engine), parts))]
    if not matched:
        in_suite = [f"{row.recipe}/{row.engine}" for row in candidates if row.suite == parts[0]]
        suites = dict.fromkeys(row.suite for row in candidates)
        instead = f"{parts[0]} has: {', '.join(in_suite)}" if in_suite else f"the suites are: {', '.join(suites)}"
        raise UserError(f"no row matches {path}; {instead}")
    return matched


def cells(records: Records, path: str) -> list[Match]:
    """What a path matches; UserError for nothing."""
    parts = path.split("/", 3)
    matched_rows = rows(records, "/".join(parts[:3]))
    if len(parts) == 3:
        return [Match(row) for row in matched_rows]
    matches = [Match(row, title, entry) for row in matched_rows for title, entry in entries(row, parts[3])]
    if not matches:
        titles = dict.fromkeys(title for row in matched_rows for title, _ in entries(row, "*"))
        raise UserError(f"no workload or task matches {parts[3]}; available: {', '.join(titles)}")
    return matches


def entries(row: Row, pattern: str) -> Iterator[tuple[str, CellSummary]]:
    """Planned workloads and tasks of a row whose titles match."""
    for title, entry in (*row.workloads.items(), *row.tasks.items()):
        if entry.status != "unplanned" and _matches(title, pattern):
            yield title, entry


def only(records: Records, path: str) -> Match:
    """The only cell that a path matches."""
    matches = cells(records, path)
    if len(matches) > 1:
        names = ", ".join(f"{m.row.recipe}/{m.row.engine}/{m.title}" for m in matches[:4])
        raise UserError(f"{path} matches {len(matches)} cells ({names}, ...): narrow it to one")
    return matches[0]


def value(records: Records, args: Sequence[str]) -> float:
    """A number: itself; [low|high|least|most|middle|seeds] PATH KEY; ratio PATH PATH KEY; count PATH [STATUS].

    seeds is half the 95 % interval of the mean over a recipe's replicates.
    rank PATH PATH KEY is Spearman's rank correlation over the recipes and engines that both have, pairs PATH PATH KEY
    how many these are.
    """
    if len(args) == 1:
        with suppress(ValueError):
            return float(args[0])
    match args:
        case ["ratio" | "rank" | "pairs" as what, one, other, key]:
            return _OF_TWO[what](records, one, other, key)
        case ["count", path, *status] if len(status) < 2:
            statuses = [match.entry.status if match.entry is not None else "ok" for match in cells(records, path)]
            return float(sum(not status or one in status for one in statuses))
        case ["low" | "high" | "seeds" as end, path, key]:
            match = only(records, path)
            spread = match.require(key)
            return _over_seeds(match, key) if end == "seeds" else spread.low if end == "low" else spread.high
        case [which, path, key] if which in _OVER_CELLS:
            medians = [s.median for match in cells(records, path) if (s := match.spread(key))]
            if not medians:
                raise UserError(f"no cell of {path} has a value of {key}")
            return _OVER_CELLS[which](medians)
        case [path, key]:
            return only(records, path).require(key).median
        case _:
            raise UserError(f"'{' '.join(args)}' is not a number: expected [low|high|least|most|middle|seeds] PATH KEY")


def currency(records: Records, args: Sequence[str]) -> str:
    """The currency of a number that is money; UserError where its cells are priced in several."""
    paths = [arg for arg in args[:-1] if "/" in arg]
    texts = {match.entry.words.get(CURRENCY, "") for path in paths for match in cells(records, path) if match.entry}
    if len(named := sorted(texts - {""})) > 1:
        raise UserError(f"the cells are priced in {' and '.join(named)}: narrow the path to one currency")
    return next(iter(named), "")


def _over_seeds(match: Match, key: str) -> float:
    spread = match.entry.seeds.get(key) if match.entry is not None else None
    if spread is None:
        raise UserError(f"no spread of {key} over seeds: give {match.row.recipe} replicates, and run them")
    return spread.half


def _ratio(records: Records, above: str, below: str, key: str) -> float:
    return only(records, above).require(key).median / only(records, below).require(key).median


def _pairs(records: Records, one: str, other: str, key: str) -> list[tuple[float, float]]:
    """Medians of cells that have one recipe and engine in both paths; UserError where a path has two of a pair."""
    sides: list[dict[tuple[str, str], float]] = [{}, {}]
    for side, path in zip(sides, (one, other), strict=True):
        for match in cells(records, path):
            if (spread := match.spread(key)) is None:
                continue
            name = (match.row.recipe, match.row.engine)
            if name in side:
                raise UserError(f"{path} matches several cells of {name[0]} on {name[1]}: narrow it to one of each")
            side[name] = spread.median
    return [(value, sides[1][name]) for name, value in sides[0].items() if name in sides[1]]


def _rank(records: Records, one: str, other: str, key: str) -> float:
    from scipy import stats  # slow to import, and needed for few documents

    pairs = _pairs(records, one, other, key)
    if len(pairs) < _LEAST_PAIRS:
        raise UserError(f"{len(pairs)} recipes are in both: a rank correlation needs {_LEAST_PAIRS}")
    ours, others = (list(values) for values in zip(*pairs, strict=True))
    return float(stats.spearmanr(ours, others).statistic)


def check(records: Records, args: Sequence[str]) -> None:
    """NUMBER < NUMBER, or with <=, > or >=; UserError with both where the records contradict it."""
    at = next((i for i, arg in enumerate(args) if arg in _COMPARED), None)
    if at is None:
        raise UserError(f"no comparison: write one of {' '.join(_COMPARED)} between two numbers")
    left, right = value(records, args[:at]), value(records, args[at + 1 :])
    if not _COMPARED[args[at]](left, right):
        raise UserError(f"the records contradict this: {left:.4g} {args[at]} {right:.4g} is false")


_OF_TWO: Mapping[str, Callable[[Records, str, str, str], float]] = {
    "ratio": _ratio,
    "rank": _rank,
    "pairs": lambda *args: float(len(_pairs(*args))),
}


def _matches(name: str, patterns: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns.split(","))
