"""Records to a table: rounds grouped into cells, cells into rows, each change against its baseline.

Figures are medians over rounds. The baseline is the recipe of that name, else one without steps, else the
first whose artifact is in the original format; the change is computed by the task's own `compare`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from bench import formats
from bench.contract import plugins
from bench.contract.columns import ADJUSTED, TESTED
from bench.contract.errors import UserError
from bench.contract.record import Artifact, Result
from bench.contract.spec import Cell
from bench.contract.workload import Offline, Trace
from bench.measure.roofline import bound
from bench.measure.sanity import CLIENT, marks
from bench.measure.stats import holm, spread
from bench.publish.tables import render as renderers
from bench.publish.tables.columns import AT_ROOFLINE, BOUND, CEILING, GAINED, task_name
from bench.publish.tables.model import OTHER_ENGINE, CellSummary, Point, Row, Table

Format = Literal["terminal", "md", "csv", "json"]
Place = tuple[str, str, str]  # device slug, suite, model
Key = tuple[str, str, str, str, str]  # place, recipe, engine
What = tuple[bool, str]  # is a task, title


@dataclass
class _Gathered:
    """Records by row and column; every dict is in the order in which things are to be shown."""

    cells: dict[Key, dict[What, list[Result]]]
    artifacts: dict[tuple[str, ...], Artifact]
    whats: dict[What, None]
    expected: set[tuple[Key, What]] | None


def build(results: Iterable[Result], expected: Iterable[Cell] | None = None) -> Table:
    """A row per device, suite, model, recipe and engine. `expected` cells without a record are "not run yet".

    Rows come in the order of `expected` where given, else as they started, the baseline first.
    """
    ordered = sorted(results, key=lambda r: (r.started, r.round))
    gathered = _gather(ordered, expected)
    places = sorted(dict.fromkeys(key[:3] for key in gathered.cells), key=lambda p: p[:2])
    rows = [row for place in places for row in _adjusted(_rows(place, gathered))]
    titles = [[title for is_task, title in gathered.whats if is_task is wanted] for wanted in (True, False)]
    return Table(tuple(rows), tuple(titles[0]), tuple(titles[1]), tuple(_mixed(ordered)))


def render(
    table: Table,
    format: Format,  # noqa: A002  (the command line's word)
    width: int = 120,
    *,
    bold: bool = False,
) -> str:
    """The table as text. `width` and `bold` are the terminal form's; csv and json hold stored values."""
    shapes: dict[str, Callable[[], str]] = {
        "terminal": lambda: renderers.terminal(table, width, bold=bold),
        "md": lambda: renderers.markdown(table),
        "csv": lambda: renderers.csv_text(table),
        "json": lambda: renderers.json_text(table),
    }
    if format not in shapes:
        raise UserError(plugins.unknown("format", format, tuple(shapes)))
    return shapes[format]()


def _gather(results: Sequence[Result], expected: Iterable[Cell] | None) -> _Gathered:
    gathered = _Gathered({}, {}, {}, None)
    if expected is not None:
        gathered.expected = set()
        where, suite = _places(results), next((r.suite for r in results), "")
        for cell in expected:
            for slug, suite_ in where.get(cell.device, [(cell.device, suite)]):
                key, what = _key(slug, suite_, cell), _what(cell)
                gathered.expected.add((key, what))
                gathered.cells.setdefault(key, {})
                gathered.whats.setdefault(what)
    for result in results:
        key, cell = _key(result.hardware.slug, result.suite, result.cell), result.cell
        if result.artifact is not None:
            gathered.artifacts[key[:4]] = _latest(gathered.artifacts.get(key[:4]), result.artifact)
        if cell.workload is not None or cell.task is not None:
            gathered.cells.setdefault(key, {}).setdefault(_what(cell), []).append(result)
            gathered.whats.setdefault(_what(cell))
    return gathered


def _latest(before: Artifact | None, now: Artifact) -> Artifact:
    """The later of two; of the same artifact the one whose making was timed whole."""
    timed = before is not None and before.digest == now.digest and before.make_total_s > 0
    return before if before is not None and timed and not now.make_total_s else now


def _mixed(results: Sequence[Result]) -> Iterator[str]:
    """A sentence for each place whose records come from CPUs of one name with other instruction sets."""
    seen: dict[tuple[str, str], set[tuple[str, ...]]] = {}
    for result in results:
        if result.status == "ok":
            place, isa = (result.hardware.slug, result.suite), tuple(sorted(result.hardware.isa))
            seen.setdefault(place, set()).add(isa)
    for (slug, suite), kinds in seen.items():
        if len(kinds) > 1:
            every = [word for isa in kinds for word in isa]
            differ = sorted({word for word in every if every.count(word) < len(kinds)})
            yield (
                f"{slug} / {suite}: its records come from {len(kinds)} CPUs of that name, with and without "
                f"{', '.join(differ)}: run the suite again on one to compare its times"
            )


def _places(results: Sequence[Result]) -> dict[str, list[tuple[str, str]]]:
    """The slugs and suites that a device's word stands for in these records."""
    found: dict[str, dict[tuple[str, str], None]] = {}
    for result in results:
        found.setdefault(result.cell.device, {}).setdefault((result.hardware.slug, result.suite))
    return {device: list(places) for device, places in found.items()}


def _key(slug: str, suite: str, cell: Cell) -> Key:
    return slug, suite, cell.model.display_name, cell.recipe.name, cell.engine.title


def _what(cell: Cell) -> What:
    return cell.task is not None, cell.measurement


def _rows(place: Place, gathered: _Gathered) -> list[Row]:
    keys = [key for key in gathered.cells if key[:3] == place]
    recipes = list(dict.fromkeys(key[3] for key in keys))
    engines = list(dict.fromkeys(key[4] for key in keys))
    baseline = _baseline(place, keys, gathered)
    keys.sort(key=lambda k: (k[3] != baseline, recipes.index(k[3]), engines.index(k[4])))
    references = [gathered.cells[key] for key in keys if key[3] == baseline]
    return [_row(key, baseline, references, gathered) for key in keys]


def _adjusted(rows: Sequence[Row]) -> list[Row]:
    """With the p-values of each task adjusted over the recipes: one in twenty of them would be below 0.05."""
    found = [dict(row.tasks) for row in rows]
    for title in {title for tasks in found for title in tasks}:
        tested = [tasks for tasks in found if TESTED in tasks[title].change]
        adjusted = holm([tasks[title].change[TESTED] for tasks in tested])
        for tasks, p in zip(tested, adjusted, strict=True):
            entry = tasks[title]
            tasks[title] = replace(entry, change={**entry.change, ADJUSTED: p})
    return [replace(row, tasks=tasks) for row, tasks in zip(rows, found, strict=True)]


def _baseline(place: Place, keys: Sequence[Key], gathered: _Gathered) -> str | None:
    """Without a plan, records come in the shuffled order they ran in: the widest weights are the original."""
    recipes = list(dict.fromkeys(key[3] for key in keys))
    cells = {key[3]: rounds[0].cell for key in keys for rounds in gathered.cells[key].values()}
    stepless = [name for name in recipes if name in cells and not cells[name].recipe.steps]
    bits = {
        name: found.audit.bits_per_weight
        for name in recipes
        if (found := gathered.artifacts.get((*place, name))) is not None and formats.holds_floats(found.format)
    }
    original = list(bits) if gathered.expected is not None else sorted(bits, key=bits.__getitem__, reverse=True)
    named = ["baseline"] if "baseline" in recipes else []
    return next(iter([*named, *stepless, *original]), None)


def _row(key: Key, baseline: str | None, references: Sequence[Mapping[What, list[Result]]], gathered: _Gathered) -> Row:
    cells, tasks, workloads = gathered.cells[key], {}, {}
    for what in gathered.whats:
        planned = gathered.expected is not None and (key, what) in gathered.expected
        entry = _entry(cells.get(what, []), planned=planned)
        if what[0]:
            own = gathered.cells[key] if key[3] == baseline else None
            tasks[what[1]] = entry if own is not None else _compared(entry, key[4], what, cells, references)
        else:
            workloads[what[1]] = (
                entry if key[3] == baseline else _gained(entry, key[4], [r.get(what, []) for r in references])
            )
    device, suite, model, recipe, engine = key
    made = gathered.artifacts.get(key[:4])
    return Row(
        device,
        suite,
        model,
        recipe,
        engine,
        recipe == baseline,
        made.audit if made else None,
        tasks,
        workloads,
        made.make_total_s if made else 0.0,
        made is not None and _whole(made),
    )


def _whole(artifact: Artifact) -> bool:
    """Whether every step kept the weights it was given but for their floating type."""
    try:
        kept = [method.is_lossless(options) for method, options in map(plugins.method_of, artifact.steps)]
    except (UserError, TypeError):  # a method or option of another version
        return False
    return all(kept) and artifact.audit.quantized_fraction == 0


def _entry(rounds: Sequence[Result], *, planned: bool) -> CellSummary:
    """The rounds of one cell: figures if any is ok, else the latest reason, a failure's first."""
    done = [r for r in rounds if r.status == "ok"]
    if not done:
        for status in ("failed", "unsupported"):
            reasons = [r.reason for r in rounds if r.status == status]
            if reasons:
                return CellSummary(status, reasons[-1] or "no reason was recorded")
        return CellSummary("missing" if planned else "unplanned")
    metrics = dict.fromkeys(key for r in done for key in r.metrics)
    figures = {key: spread([r.metrics[key] for r in done if key in r.metrics]) for key in metrics}
    found = marks(rounds)
    return CellSummary(
        "ok",
        rounds=len(done),
        figures=figures,
        marks=found,
        curve=_curve(done),
        note=_note(done[0]),
        metric=str(done[0].facts.get("metric", "")),
        words=_words(done[0], {key: one.median for key, one in figures.items()}, client=CLIENT in found),
        sizes=_sizes(done[0].cell),
        kind=done[0].cell.task.kind if done[0].cell.task else "",
    )


def _words(result: Result, medians: Mapping[str, float], *, client: bool) -> dict[str, str]:
    """What bounds a load's steps, and whose word the ceiling is that says so."""
    if not {"mbu_fraction", "mfu_fraction"} & set(medians):
        return {}
    ceilings = result.facts.get("ceiling") or {}
    source = (ceilings.get("vendor") or ceilings.get("measured") or {}).get("source", "")
    words = {BOUND: bound(medians, client=client), CEILING: str(source)}
    return {name: word for name, word in words.items() if word}


def _sizes(cell: Cell) -> tuple[int, int, int] | None:
    load = cell.workload
    return (load.batch, load.prompt_tokens, load.new_tokens) if isinstance(load, Offline) else None


def _note(result: Result) -> str:
    """Where a load or task is not quite what its name says: lengths cut, or not to be had exactly."""
    load, facts, said = result.cell.workload, result.facts, []
    if load is None:
        cut = facts.get("truncated", 0)
        return (
            f"{task_name(result.cell.measurement)}: {cut} of {facts['requests']} requests cut to max_length"
            if cut
            else ""
        )
    if isinstance(load, Trace) and facts.get("capped"):
        context = result.artifact.audit.context if result.artifact else 0
        said.append(f"{facts['capped']} of {load.requests} requests cut to a context of {context}")
    if facts.get("prompts") in ("chat", "words"):
        said.append(f"prompts on {result.cell.engine.title} are about as long as asked, not exactly")
    return f"{load.title}: {'; '.join(said)}" if said else ""


def _curve(done: Sequence[Result]) -> tuple[Point, ...]:
    """The levels the rounds went through; one tried several times has its figures spread over them all."""
    found: dict[float, dict[str, list[float]]] = {}
    for stage in (stage for result in done for stage in result.facts.get("stages", ())):
        at = found.setdefault(float(f"{stage['level']:.6g}"), {})
        for key, value in stage["metrics"].items():
            at.setdefault(key, []).append(value)
    return tuple(Point(level, {key: spread(values) for key, values in found[level].items()}) for level in sorted(found))


def _compared(
    entry: CellSummary,
    engine: str,
    what: What,
    cells: Mapping[What, list[Result]],
    references: Sequence[Mapping[What, list[Result]]],
) -> CellSummary:
    """The entry with its change against the baseline: on the same engine if it ran there, else another."""
    mine = _first_ok(cells.get(what, []))
    found = [r for r in (_first_ok(ref.get(what, [])) for ref in references) if r is not None]
    if mine is None or not found:
        return entry
    reference = next((r for r in found if r.cell.engine.title == engine), found[0])
    change = _change(mine, reference)
    if change and reference.cell.engine.title != engine:
        return replace(entry, change=change, marks=(*entry.marks, OTHER_ENGINE))
    return replace(entry, change=change)


def _gained(entry: CellSummary, engine: str, references: Sequence[list[Result]]) -> CellSummary:
    """The entry with how many times as fast its steps are as the baseline's, and would be at the roofline."""
    mine = {key: found.median for key, found in entry.figures.items()}
    done = [rounds for rounds in references if _first_ok(rounds) is not None]
    if not done or not mine.get("roofline_s") or not mine.get("tpot_s"):
        return entry
    same = next((rounds for rounds in done if rounds[0].cell.engine.title == engine), None)
    theirs = {key: found.median for key, found in _entry(same or done[0], planned=True).figures.items()}
    change = {GAINED: theirs["tpot_s"] / mine["tpot_s"]} if "tpot_s" in theirs else {}
    if "roofline_s" in theirs:
        change[AT_ROOFLINE] = theirs["roofline_s"] / mine["roofline_s"]
    other = () if same or not change else (OTHER_ENGINE,)
    return replace(entry, change=change, marks=(*entry.marks, *other))


def _first_ok(rounds: Sequence[Result]) -> Result | None:
    return next((r for r in sorted(rounds, key=lambda r: r.round) if r.status == "ok"), None)


def task_change(mine: Result, other: Result) -> Mapping[str, float]:
    """By the task's own comparison of the two; UserError where they are not over the same items, or it is gone."""
    module = plugins.load(plugins.TASKS, mine.cell.task.kind if mine.cell.task else "")
    compare = module.compare_by_reference if module.REFERENCE else module.compare_to_baseline
    changes: Mapping[str, float] = compare(mine.facts, other.facts)
    return changes


def _change(mine: Result, baseline: Result) -> Mapping[str, float]:
    """Empty where the two cannot be compared, or where the metrics are against the baseline already."""
    try:
        if plugins.load(plugins.TASKS, mine.cell.task.kind if mine.cell.task else "").REFERENCE:
            return {}
        return task_change(mine, baseline)
    except UserError:
        return {}
