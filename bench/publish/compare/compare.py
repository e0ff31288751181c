"""Two selections of records, cell by cell: how many times one's metric is the other's, and whether that is noise.

Cells are matched on everything but what the two differ in by their nature. Loads are judged by their rounds, tasks by
the items that both answered; bits and bytes on disk are exact. A is the baseline, B the candidate.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from bench.contract.columns import Column, Part
from bench.contract.record import Result
from bench.measure.ratio import EQUAL, Ratio, ratio
from bench.measure.sanity import marks
from bench.measure.stats import holm, spread
from bench.publish.compare import seeds
from bench.publish.compare.paired import EXACT, WINDOWS, Difference, part_changes, task_metrics
from bench.publish.compare.selectors import AXES, MODEL, Selection
from bench.publish.tables.columns import LEVEL, MORE, SIZE, group, quotable
from bench.publish.tables.model import CellSummary, names
from bench.publish.tables.sections import load_columns

VERDICTS = BETTER, WORSE, SAME, NO_DIFFERENCE, UNTESTED = (
    "better",
    "worse",
    "same",
    "no difference shown",
    "not tested",
)
Rounds = Sequence[Result]
Pair = tuple[Rounds, Rounds]  # baseline, candidate
FIELDS = ("device", "suite", "model", "recipe", "engine", "what")  # of a cell, in the order of `names`
_ORDER = ("size", "task", "load")


@dataclass(frozen=True)
class CellKey:
    """A cell's names, empty for what the two selections differ in.

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
class MetricComparison:
    """One metric of a matched cell: geometric means over `rounds`, in the stored unit, and their ratio.

    `p_holm` is the p-value adjusted over the cells that have this metric. `difference`: what a task says of the
    change itself. `marks` are those of either cell. `seeds`: how many replicates of each are in interval and p.
    """

    cell: CellKey
    column: Column
    heading: str
    baseline: float
    candidate: float
    rounds: tuple[int, int]
    ratio: Ratio
    difference: Difference | None = None
    p_holm: float | None = None
    verdict: str = UNTESTED
    marks: tuple[str, ...] = ()
    seeds: tuple[int, int] = (1, 1)


@dataclass(frozen=True)
class PartDifference:
    """By how much a metric differs over a part of a task's items: `change` says which of the part's metrics that is."""

    cell: CellKey
    kind: str
    metric: Column
    change: Column
    part: Part


@dataclass(frozen=True)
class Total:
    """One metric over all its cells: the geometric mean of their ratios, and how many have which verdict."""

    column: Column
    heading: str
    ratio: float | None
    verdicts: Counter[str]


@dataclass(frozen=True)
class Comparison:
    """What two selections have in common, and what they have not.

    `baseline_only`, `candidate_only`: cells that the other lacks, and why where it tried. `same`: cells with identical
    records, `several`: cells in several suites of one: both left out. `pairs`: records of the compared cells. `parts`:
    the differences over parts of tasks' items.
    """

    baseline: Selection
    candidate: Selection
    metrics: tuple[MetricComparison, ...]
    totals: tuple[Total, ...]
    baseline_only: Mapping[CellKey, str]
    candidate_only: Mapping[CellKey, str]
    same: tuple[CellKey, ...]
    several: tuple[CellKey, ...]
    pairs: tuple[Pair, ...]
    parts: tuple[PartDifference, ...] = ()


def compare(baseline: Selection, candidate: Selection) -> Comparison:
    """Every metric that both have, each with a verdict; Holm's correction is over the cells of one metric."""
    ignored = set(AXES[baseline.kind])
    if baseline.kind == MODEL and not {r.suite for r in baseline.records} & {r.suite for r in candidate.records}:
        ignored.add("suite")  # a suite has one model
    (a, a_replicates), (b, b_replicates) = (_cells(s.records, ignored) for s in (baseline, candidate))
    several = {key: None for key in a if key in b and max(len({r.suite for r in its[key]}) for its in (a, b)) > 1}
    pairs = {key: (_ok(a[key]), _ok(b[key])) for key in a if key in b and key not in several}
    pairs = {key: pair for key, pair in pairs.items() if all(pair)}
    # Records of different days can be one record.
    dated = not AXES[baseline.kind]
    records = {key: [[(r.digest, r.started, r.metrics) for r in its] for its in pair] for key, pair in pairs.items()}
    same = {key: None for key, (one, two) in records.items() if dated and key.kind != "size" and one == two}
    pairs = {key: pair for key, pair in pairs.items() if key not in same}
    replicates = {key: (a_replicates.get(key, {}), b_replicates.get(key, {})) for key in pairs}
    distinct = _distinct_artifacts(pairs)
    metrics = _with_verdicts([m for key, pair in distinct.items() for m in _metrics(key, pair, replicates[key])])
    metrics.sort(key=lambda m: (_ORDER.index(m.cell.kind), m.cell.what))
    return Comparison(
        baseline,
        candidate,
        tuple(metrics),
        tuple(_totals(metrics)),
        _only(a, b),
        _only(b, a),
        tuple(same),
        tuple(several),
        tuple(pair for key, pair in pairs.items() if key.kind != "size"),
        tuple(part for key, pair in pairs.items() if key.kind == "task" for part in _parts(key, pair)),
    )


def _cells(
    records: Iterable[Result], ignored: set[str]
) -> tuple[dict[CellKey, Rounds], dict[CellKey, seeds.Replicates]]:
    """The rounds of each cell, and of kind "size" one record that has the artifact; the rounds of its replicates.

    Replicates are recipes of their own where theirs is not among the records.
    """
    cells: dict[CellKey, list[Result]] = {}
    replicates: dict[CellKey, dict[str, list[Result]]] = {}
    has_sizes = "recipe" in ignored or "engine" not in ignored  # two engines share their artifacts
    ordered = sorted(records, key=lambda r: (r.started, r.round))
    recipes = {result.cell.recipe.name for result in ordered}
    for result in ordered:
        cell, recipe = result.cell, result.cell.recipe.replicate_of
        fields = {**dict(zip(FIELDS, names(result), strict=True)), **dict.fromkeys(ignored, "")}
        if recipe and recipe in recipes:
            fields = {**fields, **({} if "recipe" in ignored else {"recipe": recipe})}
            if cell.task and result.status == "ok":
                its = replicates.setdefault(CellKey(**fields, kind="task"), {})
                its.setdefault(cell.recipe.name, []).append(result)
            continue
        if cell.measurement:
            cells.setdefault(CellKey(**fields, kind="load" if cell.workload else "task"), []).append(result)
        if result.artifact is not None and result.status == "ok" and has_sizes:
            cells[CellKey(**{**fields, "engine": "", "what": ""}, kind="size")] = [result]
    return dict(cells), dict(replicates)


def _distinct_artifacts(pairs: Mapping[CellKey, Pair]) -> dict[CellKey, Pair]:
    """Without the sizes of artifacts that another suite has too: suites of one model share them."""
    first: dict[tuple[str, ...], CellKey] = {}
    for key, pair in pairs.items():
        if key.kind == "size":
            first.setdefault(tuple(r.artifact.digest for rounds in pair for r in rounds if r.artifact), key)
    listed = set(first.values())
    return {key: pair for key, pair in pairs.items() if key.kind != "size" or key in listed}


def _ok(rounds: Rounds) -> Rounds:
    return sorted((r for r in rounds if r.status == "ok"), key=lambda r: r.round)


def _only(cells: Mapping[CellKey, Rounds], other: Mapping[CellKey, Rounds]) -> dict[CellKey, str]:
    """Cells that ran in one selection and not in the other, with what became of them there."""
    only = {}
    for key, rounds in cells.items():
        others = other.get(key, ())
        if key.kind != "size" and _ok(rounds) and not _ok(others):
            only[key] = f"{others[-1].status}: {others[-1].reason}" if others else ""
    return only


def _metrics(
    key: CellKey, pair: Pair, replicates: tuple[seeds.Replicates, seeds.Replicates]
) -> Iterator[MetricComparison]:
    one, two = pair
    if key.kind == "size":
        yield from _sizes(key, one[-1], two[-1])
        return
    marked, rounds = tuple(sorted({*marks(one), *marks(two)})), (len(one), len(two))
    if key.kind == "task":
        by_seed = [seeds.same_items(own[0], its) for own, its in zip(pair, replicates, strict=True)]
        for column, heading, a, b, compared, difference in task_metrics(one[0], two[0]):
            metric = MetricComparison(key, column, heading, a, b, rounds, compared, difference, marks=marked)
            yield _of_task(metric, *by_seed)
        return
    for column in _load_columns(pair):
        first, second = (values_of(column.key, rounds) for rounds in pair)
        if first and second and (any(first) or any(second)):
            means, having = (_mean(first), _mean(second)), (len(first), len(second))
            yield MetricComparison(key, column, column.heading(), *means, having, ratio(first, second), marks=marked)


def _of_task(metric: MetricComparison, one: Rounds, two: Rounds) -> MetricComparison:
    """The metric with the noise of the seeds of `one` and `two`: a record of each replicate, its recipe's own first."""
    wider = seeds.widened(metric.column, (metric.ratio, metric.difference), one, two)
    if wider is None:
        return metric
    return replace(metric, ratio=wider[0], difference=wider[1], seeds=(len(one), len(two)))


def _parts(key: CellKey, pair: Pair) -> Iterator[PartDifference]:
    one, two = (rounds[0] for rounds in pair)
    kind = two.cell.task.kind if two.cell.task else ""
    return (PartDifference(key, kind, *its) for its in part_changes(one, two))


def _load_columns(pair: Pair) -> list[Column]:
    """The columns that tables have for these records and that have a better side."""
    one = spread([1.0])
    cells = [CellSummary("ok", figures=dict.fromkeys((k for r in rounds for k in r.metrics), one)) for rounds in pair]
    shown = (*map(load_columns, ([cell] for cell in cells)), *map(group, MORE.values()))
    return list(dict.fromkeys(column for columns in shown for column in columns if column.better))


def values_of(key: str, rounds: Rounds) -> list[float]:
    """A metric over the rounds that have it; joules only of rounds that call them valid."""
    joules = key.startswith("energy_") and key != "energy_valid"
    return [r.metrics[key] for r in rounds if key in r.metrics and (not joules or r.metrics.get("energy_valid"))]


def _mean(values: Sequence[float]) -> float:
    return statistics.geometric_mean(values) if min(values) > 0 else statistics.median(values)


def _sizes(key: CellKey, one: Result, two: Result) -> Iterator[MetricComparison]:
    """What two artifacts take; two of the same digest have nothing to compare."""
    a, b = one.artifact, two.artifact
    if a is None or b is None or a.digest == b.digest:
        return
    made_s = quotable("made_s")
    for column in (*SIZE, made_s):
        timed = column == made_s
        first, second = (x.make_total_s if timed else float(getattr(x.audit, column.key)) for x in (a, b))
        if first > 0 and second > 0 and not (timed and not (a.make_alone and b.make_alone)):
            compared = ratio([first], [second])
            compared = compared if timed else replace(compared, rule=EXACT)
            yield MetricComparison(key, column, column.heading(), first, second, (1, 1), compared)


def _with_verdicts(metrics: Sequence[MetricComparison]) -> list[MetricComparison]:
    """With p-values adjusted over the cells of each metric."""
    adjusted: dict[int, float] = {}
    for key in dict.fromkeys(metric.column.key for metric in metrics):
        tested = {i: m.ratio.p for i, m in enumerate(metrics) if m.column.key == key and m.ratio.p is not None}
        adjusted |= zip(tested, holm(list(tested.values())), strict=True)
    return [_with_verdict(replace(metric, p_holm=adjusted.get(i))) for i, metric in enumerate(metrics)]


def _with_verdict(metric: MetricComparison) -> MetricComparison:
    """By the adjusted p; without one only what is exact has a verdict, and what is the same throughout."""
    change = metric.difference.change if metric.difference else metric.candidate - metric.baseline
    verdict = BETTER if (change > 0) == (metric.column.better == "higher") else WORSE
    if metric.p_holm is None:
        unchanged = change == 0 if metric.difference else metric.ratio.value == 1.0
        if unchanged and metric.ratio.rule in {EXACT, EQUAL, WINDOWS}:
            verdict = SAME
        elif metric.ratio.rule != EXACT:
            verdict = UNTESTED
    elif metric.p_holm >= LEVEL:
        verdict = NO_DIFFERENCE
    return replace(metric, verdict=verdict)


def _totals(metrics: Sequence[MetricComparison]) -> Iterator[Total]:
    for key in dict.fromkeys(metric.column.key for metric in metrics):
        its = [metric for metric in metrics if metric.column.key == key]
        headings = {metric.heading for metric in its}
        ratios = [m.ratio.value for m in its if m.ratio.value is not None and m.ratio.value > 0]
        yield Total(
            its[0].column,
            headings.pop() if len(headings) == 1 else its[0].column.heading("score"),
            statistics.geometric_mean(ratios) if ratios else None,
            Counter(metric.verdict for metric in its),
        )
