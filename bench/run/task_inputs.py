"""Inputs a task needs before it scores an artifact, built once and cached: references, and its library's requests."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench import formats
from bench.contract import plugins, served, wire
from bench.contract.job import Answer, Job, JobKind, Report
from bench.contract.spec import Cell, EngineSpec, Suite, Task
from bench.envs import environment
from bench.models.resolve import Resolved
from bench.process import cache, supervisor
from bench.run import artifacts
from bench.run.artifacts import BuiltArtifact
from bench.run.planned import PlannedArtifact, Reference, Requests


def engine_key(engine: EngineSpec, artifact_format: str) -> list[object]:
    """The engine's part of a digest."""
    plugin = plugins.load(plugins.ENGINES, engine.name)
    identity = _identity(plugins.engine_env(plugin, artifact_format))
    return [engine.name, artifacts.digest_options(engine.options, plugin), plugin.VERSION, identity]


def task_key(task: Task) -> list[object]:
    """The task's part of a digest."""
    plugin = plugins.load(plugins.TASKS, task.kind)
    return [task.kind, artifacts.digest_options(task.options, plugin), plugin.VERSION]


_identity = functools.cache(environment.identity)


def baseline(planned: Sequence[PlannedArtifact]) -> PlannedArtifact:
    """The tables' rule: the recipe of that name, else one without steps, else the first in plain floats.

    Never a checkpoint of somebody else, unless there is nothing else.
    """
    own = [a for a in planned if not a.recipe.checkpoint]
    named = [a for a in own if a.recipe.name == "baseline"]
    stepless = [a for a in own if not a.recipe.steps]
    original = [a for a in own if formats.holds_floats(a.format)]
    return next(iter([*named, *stepless, *original, *own, *planned]))


def reference(
    task: Task, cells: Sequence[Cell], artifact: PlannedArtifact, unsupported_reason: Callable[[Cell], str]
) -> Reference:
    """On the engine of the first of `cells` that can run."""
    reason = artifact.reason
    for cell in cells:
        if reason := artifact.reason or unsupported_reason(cell):
            continue
        env = plugins.engine_env(plugins.load(plugins.ENGINES, cell.engine.name), artifact.format)
        engine = engine_key(cell.engine, artifact.format)
        key = ["reference", artifact.digest, *engine, task_key(task), artifact.hardware.slug]
        return Reference(task, artifact, cell.engine, env, wire.digest(key))
    sentence = f"no engine of the suite can score the baseline ({artifact.recipe.name}): {reason}"
    return Reference(task, artifact, cells[0].engine, "", "", sentence)


def requests(task: Task, resolved: Resolved, context: int) -> Requests:
    """The requests of a task that has an environment of its own."""
    module = plugins.load(plugins.TASKS, task.kind)
    depends = module.depends(module.Options(**task.options))
    key = ["questions", resolved.identity, context, task_key(_asked_once(task)), depends]
    key = [*key, environment.identity(module.ENV)]
    return Requests(task, module, resolved, context, wire.digest(key))


def _asked_once(task: Task) -> Task:
    """The task whose requests these are too: those through a server are the same at any concurrency."""
    return replace(task, options={**task.options, "concurrency": 1}) if served.is_served(task.options) else task


def reference_folder(reference: Reference, built: BuiltArtifact, suite: Suite, report: Report) -> Path:
    """The folder with the baseline's predictions, computed if it is not in the cache; CellError if that fails."""
    title = reference.task.title

    def fill(part: Path) -> Mapping[str, Any]:
        report(f"{title}: computing the baseline's predictions")
        job = Job(
            kind="reference",
            plugin=reference.engine.name,
            folder=str(built.folder),
            device=reference.artifact.hardware.device,
            options=artifacts.absolute(reference.engine.options),
            out=str(part),
            artifact=built.artifact,
            task=reference.task.kind,
            task_options=artifacts.absolute(reference.task.options),
        )
        outcome = supervisor.succeeded(
            supervisor.run(
                job,
                environment.ensure(reference.env, report),
                timeout_s=suite.timeout_s,
                memory_limit_bytes=suite.memory_limit_bytes,
                report=lambda phase: report(f"{title}: the baseline's predictions, {phase}"),
            )
        )
        return {
            **outcome.answer.facts,
            "engine": reference.engine.title,
            "artifact": reference.artifact.digest,
            "recipe": reference.artifact.recipe.name,
            "receipts": outcome.answer.receipts,
            "wall_s": outcome.wall_s,
        }

    return cache.ensure("references", reference.digest, "reference.json", fill, report)


def requests_folder(requests: Requests, suite: Suite, report: Report) -> Path:
    """The folder with the requests, built now if it is not in the cache; CellError if that fails."""

    def fill(part: Path) -> Mapping[str, Any]:
        report(f"{requests.task.title}: building the requests")
        tokenizer = _tokenizer_folder(requests, suite, report)
        context = requests.context or formats.audit(requests.resolved.local_folder, None).context
        job = replace(_job(requests, "build_requests", tokenizer), out=str(part), context=context)
        title = requests.task.title
        return _run(job, requests.task_module.ENV, suite, report, f"{title}: the requests, ").answer.facts

    return cache.ensure("requests", requests.digest, "facts.json", fill, report)


def score_replies(requests: Requests, folder: Path, replied: Answer, suite: Suite, report: Report) -> Answer:
    """The engine's answer with its replies scored: what is recorded of the round. CellError if that fails."""
    report("scoring the replies")
    replies = {key: replied.facts[key] for key in ("scores", "written")}
    rest = {key: value for key, value in replied.facts.items() if key not in replies}
    tokenizer = _tokenizer_folder(requests, suite, report)
    job = replace(_job(requests, "score_replies", tokenizer), reference=str(folder), replies=replies)
    outcome = _run(job, requests.task_module.ENV, suite, report, "scoring the replies: ")
    facts = {**rest, **outcome.answer.facts, "judge_s": outcome.wall_s}
    return replace(replied, facts=facts, items=outcome.answer.items)


def _tokenizer_folder(requests: Requests, suite: Suite, report: Report) -> Path:
    """The folder with the model's tokenizer: the model's own, or one extracted from its single file."""
    model = requests.resolved.local_folder
    env = formats.tokenizer_env(requests.resolved.format)
    if not env or (model / "tokenizer.json").is_file():
        return model

    def fill(part: Path) -> Mapping[str, Any]:
        _run(replace(_job(requests, "tokenizer", model), out=str(part)), env, suite, report)
        return {}

    digest = wire.digest(["tokenizer", requests.resolved.identity, environment.identity(env)])
    return cache.ensure("tokenizers", digest, "about.json", fill, report)


def _job(requests: Requests, kind: JobKind, folder: Path) -> Job:
    return Job(
        kind=kind,
        plugin=requests.task.kind,
        folder=str(folder),
        device="cpu",
        options={},
        task_options=artifacts.absolute(requests.task.options),
    )


def _run(job: Job, env: str, suite: Suite, report: Report, doing: str = "") -> supervisor.Outcome:
    """`doing` is what the job's phases are reported as parts of."""
    outcome = supervisor.run(
        job,
        environment.ensure(env, report),
        timeout_s=suite.timeout_s,
        memory_limit_bytes=suite.memory_limit_bytes,
        report=lambda phase: report(f"{doing}{phase}"),
    )
    return supervisor.succeeded(outcome)
