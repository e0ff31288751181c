"""Records as points of charts: cost and quality of each recipe on an engine, one flat list for page and figures.

Quality does not depend on the clock, so a suite that measures none takes it from another suite of the device
and model, of the same artifact (by its digest) on the same engine; the point says which. A metric that was
not measured is absent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from bench.contract.columns import RECOVERY, Column, Group
from bench.contract.workload import Closed, Open, Workload
from bench.measure.stats import Spread
from bench.publish.recommend import recovery
from bench.publish.records import Choice, Records
from bench.publish.tables.columns import MBU, X_AXES, metric_columns, part_columns
from bench.publish.tables.model import CellSummary, Row, names

UNQUANTIZED, CHANGED, UNKNOWN = "unquantized", "pruned, retrained", "unknown"  # families that are no format
Curve = tuple[tuple[float, float], ...]  # tokens before -> value, SI units
Field = tuple[tuple[str, str, float], ...]  # row, column -> value, SI units
Quality = Mapping[tuple[str, str], float]  # (metric, task) -> value; recovery spans all tasks: its task is ""


@dataclass(frozen=True)
class Level:
    """A load's metrics at one number of requests in flight (`over` concurrency), per second (rate), or at one depth."""

    over: str
    level: float
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Point(Choice):
    """`workload` is "" where a suite measures quality alone.

    `metrics` and `quality` are medians over rounds, SI units. `family`: the format its weights are quantized
    in, or what else was done to them. `quality_from`: task -> the suite its quality was taken from, where that
    is not `suite`. `slo`: limits of TTFT and TPOT in seconds, where the load states any. `by_position`: of a metric and
    its task the curve over the only axis of the task's parts. `fields`: of those with two axes, of a metric drawn
    by colours; `field_axes`: what these are called, by task.
    """

    family: str
    baseline: bool
    metrics: Mapping[str, float] = field(default_factory=dict)
    quality: Quality = field(default_factory=dict)
    quality_from: Mapping[str, str] = field(default_factory=dict)
    levels: tuple[Level, ...] = ()
    slo: Mapping[str, float] = field(default_factory=dict)
    by_position: Mapping[tuple[Column, str], Curve] = field(default_factory=dict)
    fields: Mapping[tuple[Column, str], Field] = field(default_factory=dict)
    field_axes: Mapping[str, tuple[str, str]] = field(default_factory=dict)


def build(records: Records) -> list[Point]:
    """Every point, in the order of the tables."""
    digests: dict[tuple[str, ...], str] = {}
    workloads: dict[tuple[str, ...], Workload] = {}
    for result in records.all_results():
        device, suite, model, recipe, _, title = names(result)
        if result.artifact is not None:
            digests[device, suite, model, recipe] = result.artifact.digest
        if result.cell.workload is not None:
            workloads[device, suite, title] = result.cell.workload
    artifacts = [(row, digests.get((row.device, row.suite, row.model, row.recipe), "")) for row in records.rows()]
    same_artifact: dict[tuple[str, ...], list[Row]] = {}
    for row, digest in artifacts:
        same_artifact.setdefault((row.device, row.model, digest, row.engine), []).append(row)
    has_quality = {(row.device, row.suite) for row in records.rows() if _quality(row)}
    points: list[Point] = []
    for row, digest in artifacts:
        borrows = digest and (row.device, row.suite) not in has_quality
        others = same_artifact[row.device, row.model, digest, row.engine]
        curves, fields, axes = _curves(row), *_fields(row)
        drawn = _points(row, workloads, *(_borrowed(row, others) if borrows else (_quality(row), {})))
        points += [replace(point, by_position=curves, fields=fields, field_axes=axes) for point in drawn]
    return points


def family(row: Row) -> str:
    """What was done to the weights: the format they are quantized in, if they are."""
    if row.baseline or row.whole:
        return UNQUANTIZED
    if row.audit is None:
        return UNKNOWN
    return row.audit.format if row.audit.quantized_fraction > 0 else CHANGED


def _points(
    row: Row, workloads: Mapping[tuple[str, ...], Workload], quality: Quality, sources: Mapping[str, str]
) -> Iterator[Point]:
    sizes = {c.key: value for c in X_AXES if (value := row.size(c.key)) is not None}
    measured = {title: entry for title, entry in row.workloads.items() if entry.status == "ok"}
    row_names = (row.device, row.suite, row.model, row.recipe, row.engine)
    for title, entry in measured.items():
        load, metrics = workloads[row.device, row.suite, title], {**sizes, **_metrics(entry)}
        levels, limits = tuple(_levels(load, entry)), load.slo.limits
        yield Point(*row_names, title, family(row), row.baseline, metrics, quality, sources, levels, limits)
    if not measured and quality:
        yield Point(*row_names, "", family(row), row.baseline, sizes, quality, sources)


def _metrics(entry: CellSummary) -> dict[str, float]:
    medians = _medians(entry.figures)
    keys = [c.key for c in (*X_AXES, MBU) if medians.get("energy_valid") or not c.key.startswith("energy_")]
    return {key: medians[key] for key in keys if key in medians}


def _medians(figures: Mapping[str, Spread]) -> dict[str, float]:
    return {key: spread.median for key, spread in figures.items()}


def _levels(load: Workload, entry: CellSummary) -> Iterator[Level]:
    """The stages of a sweep or search; of a load at a depth, a closed or an open one its own level."""
    if entry.curve:
        over = load.over if load.kind == "sweep" else "rate"
        for stage in entry.curve:
            yield Level(over, stage.level, _medians(stage.figures))
    elif load.deepest:
        yield Level("depth", float(load.deepest), _medians(entry.figures))
    elif isinstance(load, Closed | Open):
        over, level = ("concurrency", float(load.concurrency)) if load.kind == "closed" else ("rate", load.rate_per_s)
        yield Level(over, level, _medians(entry.figures))


def _quality(row: Row) -> dict[tuple[str, str], float]:
    metrics = {
        (column.key, title): entry.figures[column.key].median
        for title, entry in row.tasks.items()
        if entry.status == "ok"
        for column in metric_columns(entry.kind)
        if column.key in entry.figures
    }
    fraction = recovery(row)
    return metrics if fraction is None else {**metrics, (RECOVERY.key, ""): fraction}


def _curves(row: Row) -> dict[tuple[Column, str], Curve]:
    """By metric and task, where its parts have one axis."""
    curves: dict[tuple[Column, str], Curve] = {}
    for title, entry in row.tasks.items():
        its = [part for part in entry.parts if len(part.labels) == 1]
        for column in part_columns(entry.kind) if len(its) > 1 else ():
            if curve := tuple((part.at, part.metrics[column.key]) for part in its if column.key in part.metrics):
                curves[column, title] = curve
    return curves


def _fields(row: Row) -> tuple[dict[tuple[Column, str], Field], dict[str, tuple[str, str]]]:
    """By metric and task, where its parts have two axes; and the names of these."""
    fields: dict[tuple[Column, str], Field] = {}
    axes: dict[str, tuple[str, str]] = {}
    for title, entry in row.tasks.items():
        its = [part for part in entry.parts if len(part.labels) == 2]
        for column in part_columns(entry.kind) if its else ():
            if Group.HEAT_MAP not in column.groups:
                continue
            down, across = its[0].labels
            measured = [part for part in its if column.key in part.metrics]
            cells = tuple((p.labels[down], p.labels[across], p.metrics[column.key]) for p in measured)
            if len(cells) > 1:
                fields[column, title] = cells
                axes[title] = (down, across)
    return fields, axes


def _borrowed(row: Row, same_artifact: Sequence[Row]) -> tuple[Quality, dict[str, str]]:
    """The quality of the same artifact on the same engine in other suites, and from which suite by task."""
    quality: dict[tuple[str, str], float] = {}
    sources: dict[str, str] = {}
    for other in same_artifact:
        for (metric, task), value in _quality(other).items():
            if other is not row and (metric, task) not in quality and sources.get(task, other.suite) == other.suite:
                quality[metric, task] = value
                sources[task] = other.suite
    return quality, sources
