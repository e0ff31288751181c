"""A suite to the list of rounds to run: what each is, in which order, and why some cannot be."""

from __future__ import annotations

import fnmatch
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from bench.contract import plugins, served, wire
from bench.contract.errors import UserError
from bench.contract.job import Report
from bench.contract.record import SCHEMA, Hardware
from bench.contract.spec import Cell, EngineSpec, Model, Recipe, Suite
from bench.contract.speculation import draft_of
from bench.contract.workload import AT_A_RATE, Closed, Offline, Trace, Workload
from bench.envs import environment
from bench.formats import folder as model_folder
from bench.load import prompt_files
from bench.machine import hardware as machine
from bench.models import comparison, dummy, resolve
from bench.models.comparison import Checkpoint
from bench.models.resolve import Resolved
from bench.run import artifacts, memory_fit, speculation, task_inputs, text_prompts, tokenizer
from bench.run.planned import Mode, Plan, PlannedArtifact, PlannedRound, Reference, Requests, SkippedPair

_Shared = dict[tuple[str, ...], Any]  # parts of digests, by engine and format and by load or task


def plan(
    suite: Suite,
    *,
    fetch: bool,
    only: str = "",
    engine: str = "",
    baseline: Plan | None = None,
    on: Sequence[Hardware] = (),
    report: Report = lambda _: None,
) -> Plan:
    """Plan the suite's cells whose title matches `only` (a glob) on the engine called `engine`.

    The baseline of its tasks is the one of the plan `baseline`, another model maybe, where that is given.
    `on` are devices in place of the suite's own, which need not be here. `report` hears of a download. UserError for
    a file of prompts that is none.
    """
    for load in suite.workloads:
        if its := text_prompts.reads_file(load):
            prompt_files.read(Path(its.prompts).expanduser())
    need = tokenizer.of_suite(suite)
    resolved = resolve.resolve(suite.model, fetch=fetch, report=report)
    resolved = tokenizer.with_tokenizer(resolved, need, fetch=fetch, report=report)
    others = {
        recipe.name: _checkpoint(recipe, resolved, need, fetch=fetch, report=report)
        for recipe in suite.recipes
        if recipe.checkpoint
    }
    cells: list[PlannedRound] = []
    skipped: dict[SkippedPair, None] = {}
    for hardware in on or machine.devices(suite.devices):
        planned = [
            _artifact(suite.model, r, others.get(r.name) or Checkpoint(resolved), hardware) for r in suite.recipes
        ]
        plan_model = partial(_checkpoint_artifact, suite.model, resolved, need, hardware, fetch=fetch, report=report)
        drafts = speculation.drafts(suite, planned, plan_model)
        shared: _Shared = {}
        inputs: dict[str, Reference | Requests] = {**_requests(suite, resolved)}
        inputs |= _references(
            baseline.suite if baseline else suite, baseline.artifacts if baseline else planned, hardware
        )
        own_requests = {a.recipe.name: _own_requests(suite, a, resolved) for a in planned}
        for artifact in planned:
            paired = _paired(suite, artifact)
            for cell in _cells(suite, artifact.recipe, hardware):
                if not _is_selected(cell, only, engine):
                    continue
                if cell.engine.title not in paired:
                    skipped[SkippedPair(cell.engine.title, artifact.format, artifact.recipe.name)] = None
                    continue
                own = own_requests[cell.recipe.name].get(cell.measurement)
                task_input = own or inputs.get(cell.measurement) if cell.task else None
                draft = drafts.get(draft_of(cell.engine.options))
                digest = _digest(cell, artifact, suite.seed, task_input, shared, draft)
                cells.append(_first_round(len(cells), cell, artifact, digest, task_input, suite.seed, draft))
    return Plan(suite, resolved, tuple(_rounds(suite, cells)), tuple(skipped))


def _rounds(suite: Suite, cells: Sequence[PlannedRound]) -> Iterator[PlannedRound]:
    """Every round of the cells, round after round, each in a seeded order of its own."""
    for number in range(max(suite.rounds, suite.task_rounds)):
        this_round = [
            replace(item, round=number) if number else item
            for item in cells
            if number < (suite.task_rounds if item.cell.task else suite.rounds)
        ]
        random.Random(f"{suite.seed}/{number}").shuffle(this_round)  # noqa: S311  (reproducible, not secret)
        yield from this_round


def _first_round(
    order: int,
    cell: Cell,
    artifact: PlannedArtifact,
    digest: str,
    task_input: Reference | Requests | None,
    seed: int,
    draft: PlannedArtifact | None,
) -> PlannedRound:
    engine = plugins.load(plugins.ENGINES, cell.engine.name)
    return PlannedRound(
        order,
        cell,
        0,
        artifact,
        digest,
        artifact.reason
        or _unsupported_reason(cell, artifact, seed)
        or speculation.unfit_draft(cell, artifact, draft)
        or (_unlike_reference(artifact, task_input) or task_input.reason if task_input else ""),
        _mode(cell),
        engine,
        plugins.engine_env(engine, artifact.format),
        plugins.load(plugins.TASKS, cell.task.kind) if cell.task else None,
        task_input,
        draft,
    )


def _mode(cell: Cell) -> Mode:
    if cell.task is not None:
        return "served" if served.is_served(cell.task.options) else "score"
    if cell.workload is None:
        return "score"
    return "online" if cell.workload.online else "offline"


def _paired(suite: Suite, artifact: PlannedArtifact) -> set[str]:
    """Titles of the engines that load the recipe's format; all of them when none does, to say so."""
    loading = {e.title for e in suite.engines if artifact.format in plugins.load(plugins.ENGINES, e.name).LOADS}
    return loading or {e.title for e in suite.engines}


def _cells(suite: Suite, recipe: Recipe, hardware: Hardware) -> Iterator[Cell]:
    """A replicate is measured by tasks alone: a seed changes what is lost, and not how fast it runs."""
    for engine in suite.engines:
        spec = _settled(engine, hardware)
        for workload in () if recipe.replicate_of else suite.workloads:
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


def _checkpoint(recipe: Recipe, model: Resolved, need: tokenizer.Need, *, fetch: bool, report: Report) -> Checkpoint:
    """The recipe's checkpoint beside the suite's `model`; UserError, which names the recipe, where it is none."""
    if recipe.checkpoint.startswith(dummy.PREFIX):
        raise UserError(
            f"recipe {recipe.name}: {recipe.checkpoint} has no weights of anybody's: name a Hub id or a folder"
        )
    try:
        resolved = resolve.resolve(Model(recipe.checkpoint, recipe.revision), fetch=fetch, report=report)
        resolved = tokenizer.with_tokenizer(resolved, need, fetch=fetch, report=report)
        return comparison.compare(resolved, model, reads_text=need.uses)
    except UserError as error:
        raise UserError(f"recipe {recipe.name}: {error}") from None


def _checkpoint_artifact(
    model: Model,
    resolved: Resolved,
    need: tokenizer.Need,
    hardware: Hardware,
    recipe: Recipe,
    *,
    fetch: bool,
    report: Report,
) -> PlannedArtifact:
    return _artifact(model, recipe, _checkpoint(recipe, resolved, need, fetch=fetch, report=report), hardware)


def _artifact(model: Model, recipe: Recipe, checkpoint: Checkpoint, hardware: Hardware) -> PlannedArtifact:
    """`checkpoint`: the recipe's, or the model itself."""
    resolved = checkpoint.resolved
    steps = artifacts.steps_for(recipe, hardware, resolved.format)
    reason, written = artifacts.unsupported(steps, resolved, hardware)
    digest = artifacts.digests(resolved.identity, steps)[-1]
    footprint = None if reason else memory_fit.footprint_of(steps, resolved)
    context = model_folder.context_length(resolved.source.config)  # 0 when it is not known yet
    artifact = PlannedArtifact(model, resolved, recipe, hardware, steps, digest, written, context, reason, footprint)
    different = {
        field: getattr(checkpoint, field) for field in ("other_tokenizer", "other_model", "linears", "as_steps")
    }
    return replace(artifact, **different)


def _unsupported_reason(cell: Cell, artifact: PlannedArtifact, seed: int) -> str:
    """Why the engine cannot run this cell, or nothing."""
    engine, hardware = plugins.load(plugins.ENGINES, cell.engine.name), artifact.hardware
    if (mode := _mode(cell)) == "served" and "online" not in engine.MODES:
        return f"engine {cell.engine.name} has no server: leave via: server out of the task, or choose another engine"
    if mode != "served" and mode not in engine.MODES:
        return f"engine {cell.engine.name} has no {mode} mode"
    if artifact.format not in engine.LOADS:
        return f"engine {cell.engine.name} does not load {artifact.format}"
    if artifact.resolved.dummy and (why := _meaningless(cell)):
        return why
    if (
        why := _beyond_context(cell, artifact)
        or speculation.unfit_load(cell)
        or _texts_too_long(cell, artifact)
        or _without_prefix_caching(cell)
        or _without_layers(cell, artifact)
        or _without_window(cell, artifact)
        or text_prompts.unsupported(cell, artifact, seed)
    ):
        return why
    env = plugins.engine_env(engine, artifact.format)
    described = replace(cell, recipe=replace(cell.recipe, steps=artifact.as_steps or cell.recipe.steps))
    reason: str | None = engine.unsupported(described, artifact.format, hardware)
    reason = reason or engine.unsupported_model(artifact.resolved.source, described, artifact.format, hardware)
    reason = reason or environment.too_old(env, hardware) or environment.without_gpu(env, hardware)
    return reason or memory_fit.why_too_large(cell, artifact.footprint, hardware)


def _beyond_context(cell: Cell, artifact: PlannedArtifact) -> str:
    """Why a load's tokens exceed the model's context, or cannot be put into the engine's KV cache beforehand."""
    load = cell.workload
    if load is None or isinstance(load, Trace):
        return ""
    if artifact.context and load.longest > artifact.context:
        times = f"{load.turns} x " if isinstance(load, Closed) and load.turns > 1 else ""
        depth = f"{load.deepest} + " if load.deepest else ""
        prompt = "" if load.prompts else f"{load.whole_prompt} + "
        tokens = f"{times}{depth}{prompt}{load.new_tokens} tokens"
        return f"{tokens} exceed the model's context of {artifact.context}: lower them, or take another model"
    if load.deepest and _mode(cell) not in plugins.load(plugins.ENGINES, cell.engine.name).DEPTH_MODES:
        where = "behind its server" if load.online else "in process"
        return (
            f"engine {cell.engine.name} cannot fill its KV cache before the clock starts {where}: leave depth_tokens "
            "out, and give the whole context as prompt_tokens for the TPOT after it"
        )
    return ""


def _unlike_reference(artifact: PlannedArtifact, task_input: Reference | Requests) -> str:
    """Why an artifact's predictions cannot be compared to the baseline's, token by token."""
    if not artifact.other_tokenizer or isinstance(task_input, Requests):
        return ""
    return f"its tokenizer is not the baseline's ({artifact.other_tokenizer}): compare bits per byte and tasks instead"


def _without_prefix_caching(cell: Cell) -> str:
    """Why an engine cannot be asked for a hit rate."""
    load = cell.workload
    if not isinstance(load, Closed) or load.shared_prefix is None or "prefix_caching" in cell.engine.options:
        return ""
    return f"engine {cell.engine.name} has no option prefix_caching, by which a server keeps prefixes or does not"


def _without_layers(cell: Cell, artifact: PlannedArtifact) -> str:
    """Why a task that takes single layers out of a model gets none here."""
    engine = plugins.load(plugins.ENGINES, cell.engine.name)
    if cell.task is None or not plugins.load(plugins.TASKS, cell.task.kind).LAYERS:
        return ""
    if artifact.format in engine.LAYER_FORMATS:
        return ""
    able = [name for name in plugins.names(plugins.ENGINES) if _gives_layers(name, artifact.format)]
    remedy = f"use {' or '.join(able)}" if able else "measure another format"
    return f"engine {cell.engine.name} gives no single layers of {artifact.format}: {remedy}"


def _gives_layers(engine: str, artifact_format: str) -> bool:
    return artifact_format in plugins.load(plugins.ENGINES, engine).LAYER_FORMATS


def _without_window(cell: Cell, artifact: PlannedArtifact) -> str:
    """Why an engine that leaves out the model's sliding window computes another model on texts of this length."""
    config, engine = artifact.resolved.source.config, plugins.load(plugins.ENGINES, cell.engine.name)
    model_type, window = str(config.get("model_type")), model_folder.size(config, "sliding_window")
    context = _longest(cell)
    if model_type not in engine.WITHOUT_WINDOW or not 0 < window < context:
        return ""
    return (
        f"{cell.engine.name} leaves out the sliding window of {model_type} ({window} tokens), which texts of "
        f"{context} tokens exceed: use shorter ones, or another engine"
    )


def _texts_too_long(cell: Cell, artifact: PlannedArtifact) -> str:
    """Why the model cannot read a task's texts; nothing where its context, or their length, is not known."""
    if cell.task is None or not 0 < artifact.context < _longest(cell):
        return ""
    tokens = f"texts of {_longest(cell)} tokens"
    return f"{tokens} exceed the model's context of {artifact.context}: measure shorter ones"


def _longest(cell: Cell) -> int:
    """Tokens of the longest text that a cell has a model read; 0 where that is not known."""
    if cell.task is None:
        return int(getattr(cell.workload, "longest", 0))
    task = plugins.load(plugins.TASKS, cell.task.kind)
    return task.longest(task.Options(**cell.task.options))


def _meaningless(cell: Cell) -> str:
    """Why dummy weights cannot be given this."""
    if cell.task is not None:
        return "dummy weights have no quality to measure: name a model with real weights"
    online = cell.workload is not None and cell.workload.online
    return "a shape has no tokenizer, and servers take text: offline workloads only" if online else ""


def _is_selected(cell: Cell, only: str, engine: str) -> bool:
    if engine and engine not in (cell.engine.title, cell.engine.name):
        return False
    return not only or any(fnmatch.fnmatchcase(part, only) for part in cell.selectors)


def _references(suite: Suite, planned: Sequence[PlannedArtifact], hardware: Hardware) -> dict[str, Reference]:
    """By task title: the reference of each task that needs one."""
    references, baseline = {}, task_inputs.baseline(planned)
    for task in suite.tasks:
        if plugins.load(plugins.TASKS, task.kind).REFERENCE:
            cells = [c for c in _cells(suite, baseline.recipe, hardware) if c.task == task]
            reason = partial(_unsupported_reason, artifact=baseline, seed=suite.seed)
            references[task.title] = task_inputs.reference(task, cells, baseline, reason)
    return references


def _own_requests(suite: Suite, artifact: PlannedArtifact, model: Resolved) -> dict[str, Requests]:
    """As `_requests`, of a checkpoint that cannot take the model's: other tokens, or a shorter context."""
    context = model_folder.context_length(model.source.config)
    is_shorter = 0 < artifact.context < context
    if not artifact.recipe.checkpoint or not (artifact.other_tokenizer or is_shorter):
        return {}
    return _requests(suite, artifact.resolved, context)


def _requests(suite: Suite, resolved: Resolved, at_most: int = 0) -> dict[str, Requests]:
    """By task title: the requests of each task whose library builds them; `at_most`: the longest context, in tokens."""
    context = model_folder.context_length(resolved.source.config)
    context = min(context or at_most, at_most or context)
    tasks = [t for t in suite.tasks if plugins.load(plugins.TASKS, t.kind).ENV]
    return {t.title: task_inputs.requests(t, resolved, context) for t in tasks}


def _digest(
    cell: Cell,
    artifact: PlannedArtifact,
    seed: int,
    task_input: Reference | Requests | None,
    shared: _Shared,
    draft: PlannedArtifact | None = None,
) -> str:
    """Files that an engine or a load names are read once for all its cells on the device, which have `shared`."""
    if (key := (cell.engine.title, artifact.format)) not in shared:
        shared[key] = task_inputs.engine_key(speculation.keyed(cell.engine, draft), artifact.format)
    if (title := (cell.measurement,)) not in shared:
        shared[title] = task_inputs.task_key(cell.task) if cell.task else cell.workload and _load_key(cell.workload)
    measurement = [shared[title], task_input.digest] if task_input else shared[title]
    return wire.digest([SCHEMA, artifact.digest, *shared[key], measurement, artifact.hardware.slug, seed])


def _load_key(load: Workload) -> dict[str, Any]:
    """A load's fields; a file of requests counts by its content, and a load at a rate by how it is measured."""
    key: dict[str, Any] = wire.plain(load)
    if not isinstance(load, Offline) and not load.waits:
        key["version"] = AT_A_RATE
    name = "path" if isinstance(load, Trace) else "prompts"
    file = load.path if isinstance(load, Trace) else load.prompts
    return {**key, **artifacts.file_options({name: f"path:{file}"})} if file else key
