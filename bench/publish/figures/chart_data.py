"""Records as points of charts: what each choice won and what it kept, one flat list for page and figures.

Quality does not depend on the clock, so a suite that measures none takes it from another suite of the device
and model, of the same artifact (by its digest) on the same engine; the point says which. A figure that was
not measured is absent.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from bench.contract.columns import RECOVERY
from bench.contract.record import Result
from bench.contract.workload import Workload
from bench.publish.recommend import recovery
from bench.publish.tables import build as tables
from bench.publish.tables.columns import MBU, X_AXES, metric_columns
from bench.publish.tables.model import CellSummary, Row, Table

UNQUANTIZED, CHANGED, UNKNOWN = "unquantized", "pruned, retrained", "unknown"  # families that are no format
Quality = Mapping[tuple[str, str], float]  # (metric, task) -> value; recovery is over all tasks, "" by name


@dataclass(frozen=True)
class Level:
    """A load's figures at one number of requests in flight (`over` concurrency), or per second (rate)."""

    over: str
    level: float
    figures: Mapping[str, float]


@dataclass(frozen=True)
class Point:
    """A recipe on an engine under a workload; `workload` is "" where a suite measures quality alone.

    `figures` and `quality` are medians over rounds, SI units. `family`: the format its weights are quantized
    in, or what else was done to them. `quality_from`: the suite that a task's quality was taken from, by the
    task, where that is not `suite`. `slo`: limits of TTFT and TPOT in seconds, where the load states any.
    """

    device: str
    suite: str
    model: str
    recipe: str
    engine: str
    workload: str
    family: str
    baseline: bool
    figures: Mapping[str, float] = field(default_factory=dict)
    quality: Quality = field(default_factory=dict)
    quality_from: Mapping[str, str] = field(default_factory=dict)
    levels: tuple[Level, ...] = ()
    slo: Mapping[str, float] = field(default_factory=dict)

    @property
    def choice(self) -> str:
        """What one would deploy."""
        return f"{self.recipe} on {self.engine}"


def build(results: Iterable[Result], built: Mapping[tuple[str, str], Table] | None = None) -> list[Point]:
    """Every point, in the tables' order. `built`: tables by device and suite, where the caller has them."""
    places: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        places.setdefault((result.hardware.slug, result.suite), []).append(result)
    made = built or {place: tables.build(found) for place, found in places.items()}
    known = _Known(places)
    rows = [row for place in sorted(places) for row in made[place].rows]
    told = {place: any(_quality(row) for row in made[place].rows) for place in places}
    elsewhere: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        if known.artifact(row):
            elsewhere.setdefault((row.device, row.model, known.artifact(row), row.engine), []).append(row)
    found: list[Point] = []
    for row in rows:
        same = elsewhere.get((row.device, row.model, known.artifact(row), row.engine), [])
        own = told[row.device, row.suite]
        quality, sources = (_quality(row), {}) if own else _taken(row, same)
        found += _points(row, known, quality, sources)
    return found


class _Known:
    """What the rows of a table do not have of their records: digests of artifacts, and loads."""

    def __init__(self, places: Mapping[tuple[str, str], Sequence[Result]]) -> None:
        self._artifacts: dict[tuple[str, ...], str] = {}
        self._loads: dict[tuple[str, str, str], Workload] = {}
        for (slug, suite), results in places.items():
            for result in results:
                cell = result.cell
                if result.artifact is not None:
                    key = (slug, suite, cell.model.shown, cell.recipe.name)
                    self._artifacts[key] = result.artifact.digest
                if cell.workload is not None:
                    self._loads[slug, suite, cell.what] = cell.workload

    def artifact(self, row: Row) -> str:
        """Its digest; "" where no record has it."""
        return self._artifacts.get((row.device, row.suite, row.model, row.recipe), "")

    def load(self, row: Row, title: str) -> Workload:
        return self._loads[row.device, row.suite, title]


def family(row: Row) -> str:
    """What was done to the weights, in a word: the format they are quantized in, if they are."""
    if row.baseline or row.whole:
        return UNQUANTIZED
    if row.audit is None:
        return UNKNOWN
    return row.audit.format if row.audit.quantized_fraction > 0 else CHANGED


def _points(row: Row, known: _Known, quality: Quality, sources: Mapping[str, str]) -> Iterator[Point]:
    sizes = {c.key: value for c in X_AXES if (value := row.size(c.key)) is not None}
    done = {title: entry for title, entry in row.workloads.items() if entry.status == "ok"}
    place = (row.device, row.suite, row.model, row.recipe, row.engine)
    kind = family(row)
    for title, entry in done.items():
        load = known.load(row, title)
        yield Point(
            *place,
            title,
            kind,
            row.baseline,
            {**sizes, **_figures(entry)},
            quality,
            sources,
            tuple(_levels(load, entry)),
            load.slo.limits,
        )
    if not done and quality:
        yield Point(*place, "", kind, row.baseline, sizes, quality, sources)


def _figures(entry: CellSummary) -> dict[str, float]:
    medians = {key: found.median for key, found in entry.figures.items()}
    keys = [c.key for c in (*X_AXES, MBU) if c.key in medians]
    if not medians.get("energy_valid"):
        keys = [key for key in keys if not key.startswith("energy_")]
    return {key: medians[key] for key in keys}


def _levels(load: Workload, entry: CellSummary) -> Iterator[Level]:
    """The stages of a sweep; of another load its own level, a closed one's being what is kept in flight."""
    if entry.curve:
        over = load.over if load.kind == "sweep" else "rate"
        for stage in entry.curve:
            yield Level(over, stage.level, {key: found.median for key, found in stage.figures.items()})
    elif load.kind in ("closed", "open"):
        over, level = ("concurrency", float(load.concurrency)) if load.kind == "closed" else ("rate", load.rate_per_s)
        yield Level(over, level, {key: found.median for key, found in entry.figures.items()})


def _quality(row: Row) -> dict[tuple[str, str], float]:
    found = {
        (column.key, title): entry.figures[column.key].median
        for title, entry in row.tasks.items()
        if entry.status == "ok"
        for column in metric_columns(entry.kind)
        if column.key in entry.figures
    }
    kept = recovery(row)
    return found if kept is None else {**found, (RECOVERY.key, ""): kept}


def _taken(row: Row, same: Sequence[Row]) -> tuple[Quality, dict[str, str]]:
    """The quality of the same artifact on the same engine in other suites, and by task from which."""
    quality: dict[tuple[str, str], float] = {}
    sources: dict[str, str] = {}
    for other in same:
        for (metric, task), value in _quality(other).items():
            if other is not row and (metric, task) not in quality and sources.get(task, other.suite) == other.suite:
                quality[metric, task] = value
                sources[task] = other.suite
    return quality, sources
