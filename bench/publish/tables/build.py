"""Records to a table: rounds grouped into cells, cells into rows, each change against its baseline.

Figures are medians over rounds. The baseline is the recipe of that name, else one without steps, else the
first whose artifact is in the original format; the task's own comparison computes the change.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial

from bench import formats
from bench.contract import hooks, plugins
from bench.contract.columns import Group, Part
from bench.contract.errors import UserError
from bench.contract.record import Artifact, Result
from bench.contract.spec import Cell
from bench.contract.speculation import method_of
from bench.contract.workload import Offline, Trace
from bench.measure.roofline import bound, depth_stage_metrics, kv_bits
from bench.measure.sanity import CLIENT, OTHER_MODEL, OTHER_TOKENS, marks
from bench.measure.stats import Spread, spread
from bench.measure.throughput import input_rate
from bench.publish.tables import adjust, price, replicates, served, speculation, without_data
from bench.publish.tables.columns import AT_ROOFLINE, BOUND, CEILING, GAINED, task_columns, task_name
from bench.publish.tables.model import NO_GAIN, OTHER_ENGINE, ROUNDED_CACHE, Category, CellSummary, Point, Row, Table

RowKey = tuple[str, str, str, str, str]  # device slug, suite, model, recipe, engine
ColumnKey = tuple[bool, str]  # is a task, title
_DIFFERENT = {OTHER_MODEL: "other_model", OTHER_TOKENS: "other_tokenizer"}  # how, of a checkpoint
_MISSING, _UNPLANNED = CellSummary("missing"), CellSummary("unplanned")  # of most cells of a large table


@dataclass
class _Grid:
    """Records by row and column, both in display order; `artifacts` by row without the engine."""

    cells: dict[RowKey, dict[ColumnKey, list[Result]]] = field(default_factory=dict)
    artifacts: dict[tuple[str, ...], Artifact] = field(default_factory=dict)
    columns: dict[ColumnKey, None] = field(default_factory=dict)
    replicate_of: dict[RowKey, str] = field(default_factory=dict)  # whose recipe has a row on the same engine
    expected: set[tuple[RowKey, ColumnKey]] | None = None

    def add_replicate(self, key: RowKey, cell: Cell) -> None:
        if cell.recipe.replicate_of:
            self.replicate_of[key] = cell.recipe.replicate_of


def build(results: Iterable[Result], expected: Iterable[Cell] | None = None, *, with_replicates: bool = False) -> Table:
    """A row per device, suite, model, recipe and engine. `expected` cells without a record are "not run yet".

    Rows come in the order of `expected` if given, else in the order of their first round, the baseline first. A
    recipe's replicates have rows of their own only `with_replicates`; its own has the spread over them either way.
    """
    ordered = sorted(results, key=lambda r: (r.started, r.round))
    grid = _grid(ordered, expected)
    models = sorted(dict.fromkeys(key[:3] for key in grid.cells), key=lambda model: model[:2])
    rows = [row for model in models for row in adjust.adjusted(_rows(model, grid, with_replicates=with_replicates))]
    tasks, workloads = (tuple(title for is_task, title in grid.columns if is_task is kind) for kind in (True, False))
    return Table(tuple(rows), tasks, workloads, tuple(_mixed(ordered)))


def _grid(results: Sequence[Result], expected: Iterable[Cell] | None) -> _Grid:
    grid = _Grid()
    if expected is not None:
        grid.expected = set()
        suite = next((r.suite for r in results), "")
        folders = {r.cell.device: dict[tuple[str, str], None]() for r in results}
        for result in results:
            folders[result.cell.device].setdefault((result.hardware.slug, result.suite))
        for cell in expected:
            for folder in folders.get(cell.device, [(cell.device, suite)]):
                key, column = _keys(*folder, cell)
                grid.expected.add((key, column))
                grid.add_replicate(key, cell)
                grid.cells.setdefault(key, {})
                grid.columns.setdefault(column)
    for result in results:
        key, column = _keys(result.hardware.slug, result.suite, result.cell)
        if result.artifact is not None:
            grid.artifacts[key[:4]] = _latest(grid.artifacts.get(key[:4]), result.artifact)
        if result.cell.workload is not None or result.cell.task is not None:
            grid.cells.setdefault(key, {}).setdefault(column, []).append(result)
            grid.columns.setdefault(column)
        grid.add_replicate(key, result.cell)
    grid.replicate_of = {k: its for k, its in grid.replicate_of.items() if (*k[:3], its, k[4]) in grid.cells}
    return grid


def _latest(before: Artifact | None, after: Artifact) -> Artifact:
    """The later one, unless only the earlier record of the same artifact has the time of all its steps."""
    if before is not None and before.digest == after.digest and before.make_total_s > 0 and not after.make_total_s:
        return before
    return after


def _mixed(results: Sequence[Result]) -> Iterator[str]:
    """A warning for each suite whose records come from CPUs of one name with different instruction sets."""
    sets: dict[tuple[str, str], set[frozenset[str]]] = {}
    for result in results:
        if result.status == "ok":
            sets.setdefault((result.hardware.slug, result.suite), set()).add(frozenset(result.hardware.isa))
    for (slug, suite), isas in sets.items():
        if len(isas) > 1:
            differ = sorted(frozenset.union(*isas) - frozenset.intersection(*isas))
            yield (
                f"{slug} / {suite}: its records come from {len(isas)} CPUs of that name, with and without "
                f"{', '.join(differ)}: run the suite again on one to compare its times"
            )


def _keys(slug: str, suite: str, cell: Cell) -> tuple[RowKey, ColumnKey]:
    row = (slug, suite, cell.model.display_name, cell.recipe.name, cell.engine.title)
    return row, (cell.task is not None, cell.measurement)


def _rows(model: tuple[str, ...], grid: _Grid, *, with_replicates: bool) -> list[Row]:
    keys = [key for key in grid.cells if key[:3] == model]
    own = [key for key in keys if key not in grid.replicate_of]
    recipes = list(dict.fromkeys(key[3] for key in own))
    engines = list(dict.fromkeys(key[4] for key in keys))
    baseline = _baseline(recipes, own, grid)
    recipe_of = {key: grid.replicate_of.get(key, key[3]) for key in keys}
    place = {key: (its != baseline, recipes.index(its)) for key, its in recipe_of.items()}
    keys.sort(key=lambda k: (place[k], len(k[3]), k[3], engines.index(k[4])))  # replicates behind their recipe
    references = {key[4]: grid.cells[key] for key in keys if key[3] == baseline}
    steps = {key[3]: artifact.steps for key, artifact in grid.artifacts.items() if key[:3] == model}
    counterparts = {name: without_data.counterpart(its, steps) for name, its in steps.items()}
    rows = [_row(key, baseline, references, counterparts.get(recipe_of[key]), grid) for key in keys]
    return replicates.folded(rows, partial(_over_the_same, grid=grid), shown=with_replicates)


def _over_the_same(one: Row, other: Row, title: str, grid: _Grid) -> bool:
    """Whether both have finished rounds of a task, over the same items."""
    keys = [(row.device, row.suite, row.model, row.recipe, row.engine) for row in (one, other)]
    rounds = [_finished(grid.cells[key].get((True, title), [])) for key in keys]
    with suppress(UserError):
        if all(rounds):
            task_change(rounds[0][0], rounds[1][0])
            return True
    return False


def _baseline(recipes: Sequence[str], keys: Sequence[RowKey], grid: _Grid) -> str | None:
    """Without a plan, records are in the shuffled order of the run: the widest float weights are the original."""
    if "baseline" in recipes:
        return "baseline"
    recipe_of = {key[3]: rounds[0].cell.recipe for key in keys for rounds in grid.cells[key].values()}
    checkpoints = {name for name, recipe in recipe_of.items() if recipe.checkpoint}
    stepless = {name for name, recipe in recipe_of.items() if not recipe.steps} - checkpoints
    artifacts = {k[3]: grid.artifacts[k[:4]] for k in keys if k[:4] in grid.artifacts and k[3] not in checkpoints}
    bits = {name: a.audit.bits_per_weight for name, a in artifacts.items() if formats.holds_floats(a.format)}
    original = list(bits) if grid.expected is not None else sorted(bits, key=bits.__getitem__, reverse=True)
    return next(iter([*(name for name in recipes if name in stepless), *original]), None)


def _row(
    key: RowKey,
    baseline: str | None,
    references: Mapping[str, Mapping[ColumnKey, list[Result]]],
    counterpart: str | None,
    grid: _Grid,
) -> Row:
    """`references`: the baseline's cells by engine; `counterpart`: the recipe's like without data."""
    summaries: dict[bool, dict[str, CellSummary]] = {True: {}, False: {}}
    for column in grid.columns:
        rounds = grid.cells[key].get(column, [])
        entry = _entry(rounds, planned=grid.expected is not None and (key, column) in grid.expected)
        if entry.status == "ok" and method_of(rounds[0].cell.engine.options) != "off":
            others = _plain(key, column, grid)
            entry = speculation.speedup(entry, _finished(rounds), _entry(others, planned=True), others)
        if key[3] != baseline and entry.status == "ok":
            entry = _compared(entry, _finished(rounds), _reference(key[4], column, references))
            if column[0] and _loses_to_no_data(key, column, counterpart, grid):
                entry = replace(entry, marks=(*entry.marks, NO_GAIN))
        if entry.status == "ok" and served.is_served(rounds[0].cell.task):
            entry = served.beside_in_process(entry, _finished(rounds)[0], grid.cells, key, task_change)
        summaries[column[0]][column[1]] = entry
    artifact = grid.artifacts.get(key[:4])
    return Row(
        *key,
        baseline=key[3] == baseline,
        audit=artifact.audit if artifact else None,
        tasks=summaries[True],
        workloads=summaries[False],
        made_s=artifact.make_total_s if artifact else 0.0,
        made_peak_bytes=artifact.make_peak_bytes if artifact else 0,
        made_alone=artifact is None or artifact.make_alone,
        whole=artifact is not None and _is_whole(artifact) and not _checkpoint(key, grid),
        checkpoint=_checkpoint(key, grid),
        source_type=str(artifact.facts.get("source_type", "")) if artifact else "",
        replicate_of=grid.replicate_of.get(key, ""),
        predicted_kl=_predicted_kl(artifact),
    )


def _predicted_kl(artifact: Artifact | None) -> float | None:
    """Of mixed types, in nats a token; None of all else."""
    value = artifact.facts.get("predicted_kl") if artifact else None
    return float(value) if isinstance(value, int | float) else None


def _plain(key: RowKey, column: ColumnKey, grid: _Grid) -> list[Result]:
    """The finished rounds of the same engine without its speculation."""
    engine = grid.cells[key][column][0].cell.engine
    for other, cells in grid.cells.items():
        rounds = _finished(cells.get(column, [])) if other[:4] == key[:4] else []
        if rounds and speculation.is_plain(engine, rounds[0].cell.engine):
            return rounds
    return []


def _checkpoint(key: RowKey, grid: _Grid) -> str:
    """Where the row's checkpoint is from, with its revision of the Hub if one is named; "" for what was made here."""
    recipes = (rounds[0].cell.recipe for rounds in grid.cells[key].values() if rounds)
    recipe = next(recipes, None)
    if recipe is None or not recipe.checkpoint:
        return ""
    return f"{recipe.checkpoint}@{recipe.revision}" if recipe.revision else recipe.checkpoint


def _loses_to_no_data(key: RowKey, column: ColumnKey, counterpart: str | None, grid: _Grid) -> bool:
    """Whether a calibrated recipe scores worse than the same without data, measured on the same engine."""
    other = _finished(grid.cells.get((*key[:3], counterpart, key[4]), {}).get(column, [])) if counterpart else []
    if not other:
        return False
    first, reference = (min(its, key=lambda r: r.round) for its in (_finished(grid.cells[key][column]), other))
    try:
        return without_data.is_worse(_task(first).COLUMNS, task_change(first, reference))
    except UserError:
        return False


def _is_whole(artifact: Artifact) -> bool:
    """Whether every step kept the weights as they are but for their floating type."""
    try:
        lossless = all(method.is_lossless(options) for method, options in map(plugins.method_of, artifact.steps))
    except UserError:  # a method or an option that this version does not have
        return False
    return lossless and artifact.audit.quantized_fraction == 0


def _finished(rounds: Sequence[Result]) -> list[Result]:
    return [r for r in rounds if r.status == "ok"]


def _medians(rounds: Sequence[Result]) -> dict[str, Spread]:
    by_round = [{**r.metrics, **input_rate(r.metrics, r.cell.workload)} for r in rounds]
    keys = dict.fromkeys(key for metrics in by_round for key in metrics)
    return {key: spread([metrics[key] for metrics in by_round if key in metrics]) for key in keys}


def _entry(rounds: Sequence[Result], *, planned: bool) -> CellSummary:
    """The rounds of one cell: figures if any is ok, else the latest reason, a failure's first."""
    done = _finished(rounds)
    if not done:
        for status in ("failed", "unsupported"):
            if reasons := [r.reason for r in rounds if r.status == status]:
                return CellSummary(status, reasons[-1] or "no reason was recorded")
        return _MISSING if planned else _UNPLANNED
    cell, figures = done[0].cell, _medians(done)
    names = marks(rounds, figures)
    if OTHER_TOKENS in names and cell.task is not None:
        per_token = {c.key for c in task_columns(cell.task.kind) if Group.PER_TOKEN in c.groups}
        figures = {name: figure for name, figure in figures.items() if name not in per_token}
    load = cell.workload
    return CellSummary(
        "ok",
        rounds=len(done),
        figures=figures,
        marks=names,
        curve=_curve(done),
        note=_note(done[0]),
        metric=str(done[0].facts.get("metric", "")),
        words={
            **_bound_texts(done[0], {key: figure.median for key, figure in figures.items()}, client=CLIENT in names),
            **{name: str(done[0].facts[fact]) for name, fact in _DIFFERENT.items() if fact in done[0].facts},
            **({ROUNDED_CACHE: str(done[0].receipts["kv_dtype"])} if (kv_bits(done[0].receipts) or 16) < 16 else {}),
        },
        sizes=(load.batch, load.prompt_tokens, load.new_tokens)
        if isinstance(load, Offline) and not (load.prompts or load.depth_tokens)
        else None,
        kind=cell.task.kind if cell.task else "",
        categories=_categories(done),
        parts=_parts(done),
    )


def _bound_texts(result: Result, medians: Mapping[str, float], *, client: bool) -> dict[str, str]:
    """What bounds a load's steps, and the source of the ceiling they are compared to."""
    if not {"mbu_fraction", "mfu_fraction"} & set(medians):
        return {}
    ceilings = result.facts.get("ceiling") or {}
    source = (ceilings.get("vendor") or ceilings.get("measured") or {}).get("source", "")
    texts = {BOUND: bound(medians, client=client), CEILING: str(source)}
    return {name: text for name, text in texts.items() if text}


def _note(result: Result) -> str:
    """How a load or task deviates from what its title says: requests cut, lengths inexact, another tool's figures."""
    cell, facts, parts = result.cell, result.facts, []
    if isinstance(its := facts.get("tool_notes"), list) and its:
        return f"{task_name(cell.measurement)}: {'; '.join(map(str, its))}"
    if cell.workload is None:
        cut = facts.get("truncated", 0)
        return f"{task_name(cell.measurement)}: {cut} of {facts['requests']} requests cut to max_length" if cut else ""
    if isinstance(cell.workload, Trace) and facts.get("capped"):
        context = result.artifact.audit.context if result.artifact else 0
        parts.append(f"{facts['capped']} of {cell.workload.requests} requests cut to a context of {context}")
    if facts.get("prompts") in ("chat", "words") and "prompt_file" not in facts:
        parts.append(f"prompts on {cell.engine.title} are about as long as asked, not exactly")
    return f"{cell.workload.title}: {'; '.join(parts)}" if parts else ""


def _categories(done: Sequence[Result]) -> tuple[Category, ...]:
    """Of a load with a file of prompts: cold and warm prompts of a shared prefix have columns of their own."""
    values: dict[str, dict[str, list[float]]] = {}
    for its in (result.facts.get("by_category", {}) for result in done if "prompt_file" in result.facts):
        for name, metrics in its.items():
            for key, value in metrics.items():
                values.setdefault(name, {}).setdefault(key, []).append(value)
    return tuple(Category(name, {key: spread(v) for key, v in its.items()}) for name, its in sorted(values.items()))


def _curve(done: Sequence[Result]) -> tuple[Point, ...]:
    """The levels that the rounds went through, each with its figures over all tries."""
    levels: dict[float, dict[str, list[float]]] = {}
    for round_, stage in ((result, stage) for result in done for stage in result.facts.get("stages", ())):
        metrics = levels.setdefault(float(f"{stage['level']:.6g}"), {})
        more = {**input_rate(stage["metrics"], round_.cell.workload), **price.kept_limits(round_, stage)}
        for key, value in {**stage["metrics"], **depth_stage_metrics(round_, stage), **more}.items():
            metrics.setdefault(key, []).append(value)
    return tuple(
        Point(level, {key: spread(values) for key, values in levels[level].items()}) for level in sorted(levels)
    )


def _reference(
    engine: str, column: ColumnKey, references: Mapping[str, Mapping[ColumnKey, list[Result]]]
) -> list[Result]:
    """The baseline's finished rounds: on the same engine if it ran there, else on the first where it did, or none."""
    for cells in (references.get(engine, {}), *references.values()):
        if done := _finished(cells.get(column, [])):
            return done
    return []


def _compared(entry: CellSummary, rounds: Sequence[Result], reference: Sequence[Result]) -> CellSummary:
    """The entry with its change against the baseline's rounds."""
    if not reference:
        return entry
    is_task = rounds[0].cell.task is not None
    change = _task_change(rounds, reference) if is_task else _speedup(entry, reference)
    other_engine = bool(change) and reference[0].cell.engine.title != rounds[0].cell.engine.title
    marks = (*entry.marks, *([OTHER_ENGINE] if other_engine else []))
    return replace(entry, change=change, marks=marks, parts=_parts(rounds, reference) if entry.parts else ())


def _parts(rounds: Sequence[Result], baseline: Sequence[Result] = ()) -> tuple[Part, ...]:
    """Those of a task's first round, against the baseline's where that is over the same items."""
    first, *bases = (min(its, key=lambda r: r.round) for its in (rounds, baseline) if its)
    if first.cell.task is None:
        return ()
    with suppress(UserError):  # of a task that is gone, or over other items
        task = _task(first)
        return tuple(task.parts(first.facts, bases[0].facts if bases and not task.REFERENCE else None))
    return _parts(rounds) if bases else ()


def _speedup(entry: CellSummary, baseline: Sequence[Result]) -> dict[str, float]:
    """How many times as fast as the baseline's the steps are, and would be at the roofline."""
    keys = {GAINED: "tpot_s", AT_ROOFLINE: "roofline_s"}
    if not all(key in entry.figures and entry.figures[key].median for key in keys.values()):
        return {}
    medians = {name: [r.metrics[key] for r in baseline if key in r.metrics] for name, key in keys.items()}
    return {n: statistics.median(its) / entry.figures[keys[n]].median for n, its in medians.items() if its}


def _task_change(rounds: Sequence[Result], baseline: Sequence[Result]) -> Mapping[str, float]:
    """Empty where the two cannot be compared, or where the metrics are against the baseline already."""
    first, reference = (min(its, key=lambda r: r.round) for its in (rounds, baseline))
    with suppress(UserError):
        return {} if _task(first).REFERENCE else task_change(first, reference)
    return {}


def task_change(result: Result, baseline: Result) -> Mapping[str, float]:
    """By the task's own comparison; UserError where the two are not over the same items, or the task is gone."""
    task = _task(result)
    compare = task.compare_by_reference if task.REFERENCE else task.compare_to_baseline
    changes: Mapping[str, float] = compare(result.facts, baseline.facts)
    return changes


def _task(result: Result) -> hooks.Task:
    return plugins.load(plugins.TASKS, result.cell.task.kind if result.cell.task else "")
