"""Two sides, cell by cell: how many times one's figure is the other's, and whether that is more than noise.

Cells are matched on everything but what the two sides differ in by their nature. Loads are judged by their
rounds, tasks by the items that both sides answered; bits and bytes on disk are exact.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from bench.contract.columns import Column
from bench.contract.record import Result
from bench.measure.ratio import EQUAL, Ratio, geometric_mean, ratio
from bench.measure.sanity import marks
from bench.measure.stats import holm, spread
from bench.publish.compare.paired import EXACT, WINDOWS, Points, task_figures
from bench.publish.compare.selectors import AXES, MODEL, Side
from bench.publish.tables.columns import LEVEL, MORE, MORE_SIZE, SIZE, group
from bench.publish.tables.model import CellSummary
from bench.publish.tables.sections import load_columns

BETTER, WORSE, SAME, NO_DIFFERENCE, UNTESTED = ("better", "worse", "same", "no difference shown", "not tested")
Both = tuple[Sequence[Result], Sequence[Result]]
_ORDER = ("size", "task", "load")


@dataclass(frozen=True)
class Place:
    """A cell's names, empty for what the two sides differ in.

    `what` is a load's or a task's title. `kind`: "task", "load", or "size": an artifact's own.
    """

    device: str
    suite: str
    model: str
    recipe: str
    engine: str
    what: str
    kind: str


@dataclass(frozen=True)
class Figure:
    """One figure of a matched cell on both sides: geometric means over `rounds`, in the stored unit.

    `p_holm` is the p-value adjusted over the cells that have this figure. `points`: what a task says of the
    change itself. `marks` are those of either side's cell.
    """

    place: Place
    column: Column
    heading: str
    a: float
    b: float
    rounds: tuple[int, int]
    ratio: Ratio
    points: Points | None = None
    p_holm: float | None = None
    verdict: str = UNTESTED
    marks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Total:
    """One figure over all its cells: the geometric mean of their ratios, and how many have which verdict."""

    column: Column
    heading: str
    ratio: float | None
    cells: int
    verdicts: Mapping[str, int]


@dataclass(frozen=True)
class Comparison:
    """What two sides have in common, and what they have not.

    `only`: for each side the cells that the other lacks, and why where the other tried. `same`: cells whose
    records are the very same on both sides, which nothing can be learnt from. `several`: cells that stand in
    several suites of a side, and are left out. `pairs`: the records of the cells that are compared.
    """

    a: Side
    b: Side
    figures: tuple[Figure, ...]
    totals: tuple[Total, ...]
    only: tuple[Mapping[Place, str], Mapping[Place, str]]
    same: tuple[Place, ...]
    several: tuple[Place, ...]
    pairs: tuple[Both, ...]


def compare(a: Side, b: Side) -> Comparison:
    """Every figure that both have, each with a verdict; Holm's correction is over the cells of one figure."""
    dropped = {*AXES[a.kind]}
    if a.kind == MODEL and not {r.suite for r in a.records} & {r.suite for r in b.records}:
        dropped.add("suite")  # a suite has one model
    mine, theirs = (_cells(side.records, dropped) for side in (a, b))
    several = [p for p in mine if p in theirs and max(map(_suites, (mine[p], theirs[p]))) > 1]
    shared = [p for p in mine if p in theirs and p not in several]
    done = {p: (_done(mine[p]), _done(theirs[p])) for p in shared}
    ran = {p: both for p, both in done.items() if all(both)}
    again = [] if AXES[a.kind] else list(ran.items())  # two days' records can be one record
    same = [p for p, (one, two) in again if p.kind != "size" and _same(one, two)]
    compared = {p: both for p, both in ran.items() if p not in same}
    figures = [f for p, both in _artifacts_once(compared).items() for f in _figures(p, *both)]
    judged = _judged(figures)
    pairs = tuple(both for p, both in compared.items() if p.kind != "size")
    only = tuple(_only(one, two) for one, two in ((mine, theirs), (theirs, mine)))
    judged.sort(key=lambda f: (_ORDER.index(f.place.kind), f.place.what))
    return Comparison(
        a, b, tuple(judged), tuple(_totals(judged)), (only[0], only[1]), tuple(same), tuple(several), pairs
    )


def _cells(records: Iterable[Result], dropped: set[str]) -> dict[Place, list[Result]]:
    """The rounds of each cell, and below "size" one record that has the artifact."""
    found: dict[Place, list[Result]] = {}
    sized = "recipe" in dropped or "engine" not in dropped  # two engines share their artifacts
    for result in sorted(records, key=lambda r: (r.started, r.round)):
        cell = result.cell
        names = {
            "device": result.hardware.slug,
            "suite": result.suite,
            "model": cell.model.shown,
            "recipe": cell.recipe.name,
            "engine": cell.engine.title,
            "what": cell.what,
        }
        kept = {key: "" if key in dropped else name for key, name in names.items()}
        if cell.workload is not None or cell.task is not None:
            found.setdefault(Place(**kept, kind="load" if cell.workload else "task"), []).append(result)
        if result.artifact is not None and result.status == "ok" and sized:
            found[Place(**{**kept, "engine": "", "what": ""}, kind="size")] = [result]
    return found


def _artifacts_once(compared: Mapping[Place, Both]) -> dict[Place, Both]:
    """Without the sizes of artifacts that another suite has too: suites of one model share them."""
    seen, found = set(), {}
    for place, both in compared.items():
        made = tuple(r.artifact.digest if r.artifact else "" for side in both for r in side)
        if place.kind == "size" and made in seen:
            continue
        found[place] = both
        seen |= {made} if place.kind == "size" else set()
    return found


def _suites(rounds: Sequence[Result]) -> int:
    return len({result.suite for result in rounds})


def _done(rounds: Sequence[Result]) -> list[Result]:
    return sorted((r for r in rounds if r.status == "ok"), key=lambda r: r.round)


def _same(one: Sequence[Result], two: Sequence[Result]) -> bool:
    return [(r.digest, r.started, r.metrics) for r in one] == [(r.digest, r.started, r.metrics) for r in two]


def _only(one: Mapping[Place, list[Result]], two: Mapping[Place, list[Result]]) -> dict[Place, str]:
    """Cells that ran on the first side and not on the second, with what became of them there."""
    found = {}
    for place, rounds in one.items():
        if place.kind != "size" and _done(rounds) and not _done(two.get(place, ())):
            tried = [r for r in two.get(place, ()) if r.status != "ok"]
            found[place] = f"{tried[-1].status}: {tried[-1].reason}" if tried else ""
    return found


def _figures(place: Place, one: Sequence[Result], two: Sequence[Result]) -> Iterator[Figure]:
    if place.kind == "size":
        yield from _sizes(place, one[-1], two[-1])
        return
    marked = tuple(sorted({*marks(one), *marks(two)}))
    if place.kind == "task":
        for column, heading, a, b, found, points in task_figures(one[0], two[0]):
            rounds = (len(one), len(two))
            yield Figure(place, column, heading, a, b, rounds, found, points, marks=marked)
        return
    for column in _load_columns(one, two):
        first, second = (_values(column.key, side) for side in (one, two))
        if first and second and (any(first) or any(second)):
            rounds, found = (len(first), len(second)), ratio(first, second)
            yield Figure(place, column, column.heading(), _mean(first), _mean(second), rounds, found, marks=marked)


def _load_columns(*sides: Sequence[Result]) -> list[Column]:
    """The columns that tables have for these records and that have a better side."""
    entries = [CellSummary("ok", figures={k: spread([1.0]) for r in side for k in r.metrics}) for side in sides]
    shown = [column for entry in entries for column in load_columns([entry])]
    shown += [column for its in MORE.values() for column in group(its)]
    return list(dict.fromkeys(column for column in shown if column.better))


def _values(key: str, rounds: Sequence[Result]) -> list[float]:
    """A metric over the rounds that have it; joules only of rounds that call them valid."""
    joules = key.startswith("energy_")
    return [r.metrics[key] for r in rounds if key in r.metrics and (not joules or r.metrics.get("energy_valid"))]


def _mean(values: Sequence[float]) -> float:
    return geometric_mean(values) if min(values) > 0 else statistics.median(values)


def _sizes(place: Place, one: Result, two: Result) -> Iterator[Figure]:
    """What two artifacts take; the same artifact on both sides has nothing to compare."""
    made = [r.artifact for r in (one, two)]
    if made[0] is None or made[1] is None or made[0].digest == made[1].digest:
        return
    for column in (*SIZE, *(c for c in MORE_SIZE if c.key == "made_s")):
        took = column.key == "made_s"
        a, b = (m.make_total_s if took else float(getattr(m.audit, column.key)) for m in made if m)
        if a > 0 and b > 0:
            found = ratio([a], [b])
            kept = found if took else replace(found, rule=EXACT)
            yield Figure(place, column, column.heading(), a, b, (1, 1), kept)


def _judged(figures: Sequence[Figure]) -> list[Figure]:
    """With p-values adjusted over the cells of each figure, and verdicts."""
    adjusted: dict[int, float] = {}
    for key in dict.fromkeys(figure.column.key for figure in figures):
        tested = [(i, f.ratio.p) for i, f in enumerate(figures) if f.column.key == key and f.ratio.p is not None]
        adjusted |= dict(zip([i for i, _ in tested], holm([p for _, p in tested]), strict=True))
    found = [replace(figure, p_holm=adjusted.get(i)) for i, figure in enumerate(figures)]
    return [replace(figure, verdict=_verdict(figure)) for figure in found]


def _verdict(figure: Figure) -> str:
    """By the adjusted p; without one only what is exact has a verdict, and what is the same throughout."""
    change = figure.points.change if figure.points else figure.b - figure.a
    rule = figure.ratio.rule
    if figure.p_holm is None:
        unchanged = change == 0 if figure.points else figure.ratio.value == 1.0
        if unchanged and rule in {EXACT, EQUAL, WINDOWS}:
            return SAME
        if rule != EXACT:
            return UNTESTED
    elif figure.p_holm >= LEVEL:
        return NO_DIFFERENCE
    return BETTER if (change > 0) == (figure.column.better == "higher") else WORSE


def _totals(figures: Sequence[Figure]) -> Iterator[Total]:
    for key in dict.fromkeys(figure.column.key for figure in figures):
        its = [figure for figure in figures if figure.column.key == key]
        headings = {figure.heading for figure in its}
        ratios = [f.ratio.value for f in its if f.ratio.value is not None and f.ratio.value > 0]
        words = [figure.verdict for figure in its]
        yield Total(
            its[0].column,
            headings.pop() if len(headings) == 1 else its[0].column.heading("score"),
            geometric_mean(ratios) if ratios else None,
            len(its),
            {word: words.count(word) for word in dict.fromkeys(words)},
        )
