"""A suite to the list of rounds to run: what each is, in which order, and why some cannot be."""

from __future__ import annotations

import fnmatch
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from bench.contract import plugins, wire
from bench.contract.record import SCHEMA, Hardware
from bench.contract.spec import Cell, EngineSpec, Model, Recipe, Suite, Task
from bench.contract.workload import LOAD_FIELDS, Workload
from bench.envs import environment
from bench.formats import folder as model_folder
from bench.machine import hardware as machine
from bench.models import resolve
from bench.models.download import Report
from bench.models.resolve import Resolved
from bench.run import artifacts, questions, references
from bench.run import memory_fit as fit
from bench.run.planned import Plan, PlannedArtifact, PlannedRound, Questions, Reference, SkippedPair


def plan(
    suite: Suite,
    *,
    fetch: bool,
    only: str = "",
    engine: str = "",
    beside: Plan | None = None,
    on: Sequence[Hardware] = (),
    report: Report = lambda _: None,
) -> Plan:
    """Plan the suite's cells whose title matches `only` (a glob) on the engine called `engine`.

    The baseline of its tasks is the one of the plan `beside`, another model maybe, where that is given. `on`
    are devices in place of the suite's own, which need not be here. `report` hears of a download.
    """
    resolved = resolve.resolve(suite.model, fetch=fetch, report=report)
    cells: list[PlannedRound] = []
    apart: dict[SkippedPair, None] = {}
    for hardware in on or machine.devices(suite.devices):
        all_made = [_made(suite.model, recipe, resolved, hardware) for recipe in suite.recipes]
        sides = _references(beside.suite, beside.made, hardware) if beside else _references(suite, all_made, hardware)
        asked = _questions(suite, resolved)
        for made in all_made:
            paired = _paired(suite, made)
            for cell in _cells(suite, made.recipe, hardware):
                if not _wanted(cell, only, engine):
                    continue
                if cell.engine.title not in paired:
                    apart[SkippedPair(cell.engine.title, made.format, made.recipe.name)] = None
                    continue
                side = sides.get(cell.what) if cell.task else None
                ask = asked.get(cell.what) if cell.task else None
                reason = made.reason or _against(cell, made, hardware) or (side.reason if side else "")
                digest = _digest(cell, made, suite.seed, side or ask)
                cells.append(PlannedRound(len(cells), cell, 0, made, digest, reason, side, ask))
    items: list[PlannedRound] = []
    for number in range(max(suite.rounds, suite.task_rounds)):
        running = [i for i in cells if number < (suite.task_rounds if i.cell.task else suite.rounds)]
        these = [replace(item, round=number) for item in running]
        random.Random(f"{suite.seed}/{number}").shuffle(these)  # noqa: S311  (reproducible, not secret)
        items += these
    return Plan(suite, resolved, tuple(items), tuple(apart))


def _paired(suite: Suite, made: PlannedArtifact) -> set[str]:
    """Titles of the engines that load the recipe's format; all of them when none does, to say so."""
    fit = {e.title for e in suite.engines if made.format in plugins.load(plugins.ENGINES, e.name).LOADS}
    return fit or {e.title for e in suite.engines}


def _cells(suite: Suite, recipe: Recipe, hardware: Hardware) -> Iterator[Cell]:
    for engine in suite.engines:
        spec = _settled(engine, hardware)
        for workload in suite.workloads:
            yield Cell(suite.model, recipe, spec, hardware.device, workload=workload)
        for task in suite.tasks:
            yield Cell(suite.model, recipe, spec, hardware.device, task=task)


def _settled(engine: EngineSpec, hardware: Hardware) -> EngineSpec:
    """What `dtype: auto` and `threads: 0` stand for on this hardware, so that records say it."""
    options = dict(engine.options)
    if options.get("dtype") == "auto":
        options["dtype"] = hardware.compute_dtype
    if options.get("threads") == 0:
        options["threads"] = hardware.physical_cores
    return replace(engine, options=options)


def _made(model: Model, recipe: Recipe, resolved: Resolved, hardware: Hardware) -> PlannedArtifact:
    steps = artifacts.steps_for(recipe, hardware, resolved.format)
    reason, written = artifacts.unsupported(steps, resolved, hardware)
    digest = artifacts.digests(resolved.identity, steps)[-1]
    kept = None if reason else fit.held(steps, resolved)
    return PlannedArtifact(model, resolved, recipe, hardware, steps, digest, written, _context(resolved), reason, kept)


def _context(resolved: Resolved) -> int:
    """The most tokens the model can attend to, by its config; 0 when it is not known yet."""
    return model_folder.context_length(resolved.source.config)


def _against(cell: Cell, made: PlannedArtifact, hardware: Hardware) -> str:
    """Why the engine cannot run this cell, or nothing."""
    engine = plugins.load(plugins.ENGINES, cell.engine.name)
    mode = ("online" if cell.workload.online else "offline") if cell.workload else "score"
    if mode not in engine.MODES:
        return f"engine {cell.engine.name} has no {mode} mode"
    if made.format not in engine.LOADS:
        return f"engine {cell.engine.name} does not load {made.format}"
    load = cell.workload
    if load and load.kind != "trace" and made.context and load.longest > made.context:
        times = f"{load.turns} x " if load.turns > 1 else ""
        asked = f"{times}{load.prompt_tokens} + {load.new_tokens} tokens"
        return f"{asked} exceed the model's context of {made.context}"
    if made.resolved.dummy and (why := _meaningless(cell)):
        return why
    env = plugins.engine_env(engine, made.format)
    reason: str | None = engine.unsupported(cell, made.format, hardware)
    reason = reason or environment.too_old(env, hardware) or environment.without_gpu(env, hardware)
    return reason or fit.against(cell, made.held, hardware)


def _meaningless(cell: Cell) -> str:
    """Why dummy weights cannot be given this."""
    if cell.task is not None:
        return "dummy weights have no quality to measure: name a model with real weights"
    online = cell.workload is not None and cell.workload.online
    return "a shape has no tokenizer, and servers take text: offline workloads only" if online else ""


def _wanted(cell: Cell, only: str, engine: str) -> bool:
    if engine and engine not in (cell.engine.title, cell.engine.name):
        return False
    parts = (cell.title, cell.recipe.name, cell.what)
    return not only or any(fnmatch.fnmatchcase(part, only) for part in parts)


def _references(suite: Suite, made: Sequence[PlannedArtifact], hardware: Hardware) -> dict[str, Reference]:
    """By task title: what the tasks that need it are given of the baseline."""
    tasks = [task for task in suite.tasks if plugins.load(plugins.TASKS, task.kind).REFERENCE]
    found, base = {}, references.baseline(made)
    for task in tasks:
        cells = [c for c in _cells(suite, base.recipe, hardware) if c.task == task]
        found[task.title] = references.choose(cells, base, lambda cell: _against(cell, base, hardware), _task_key(task))
    return found


def _questions(suite: Suite, resolved: Resolved) -> dict[str, Questions]:
    """By task title: what the tasks that ask do ask."""
    asking = [t for t in suite.tasks if plugins.load(plugins.TASKS, t.kind).ENV]
    return {t.title: questions.plan(t, resolved, _context(resolved), _task_key(t)) for t in asking}


def _digest(cell: Cell, made: PlannedArtifact, seed: int, reference: Reference | Questions | None) -> str:
    engine = plugins.load(plugins.ENGINES, cell.engine.name)
    what = _task_key(cell.task) if cell.task else _load_key(cell.workload)
    what = [what, reference.digest] if reference else what
    key = [
        SCHEMA,
        made.digest,
        cell.engine.name,
        wire.plain(cell.engine.options),
        engine.VERSION,
        _identity(plugins.engine_env(engine, made.format)),
        what,
        made.hardware.slug,
        seed,
    ]
    return wire.digest(key)


def _load_key(load: Workload | None) -> dict[str, Any]:
    """The fields that mean something to this kind of load: another kind's new field makes no record stale."""
    assert load is not None  # noqa: S101  (a cell has a task or a workload)
    plain: dict[str, Any] = wire.plain(load)
    plain["path"] = f"path:{load.path}"
    key = {k: plain[k] for k in ("kind", "name", *LOAD_FIELDS[load.kind])}
    return {**key, **artifacts.file_options({k: key[k] for k in ("path",) if k in key})}


def _task_key(task: Task) -> list[object]:
    version = plugins.load(plugins.TASKS, task.kind).VERSION
    return [task.kind, artifacts.file_options(task.options), version]


@cache
def _identity(env: str) -> str:
    return environment.identity(env)
