"""What a task with an environment of its own asks: made once per model, and the replies judged there.

The questions are content-addressed in the cache like the baseline's side of a task (references.py): the
model, the task with all its texts, the library's environment.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from bench import formats
from bench.contract import plugins, wire
from bench.contract.errors import UserError
from bench.contract.job import Answer, Job, JobKind
from bench.contract.spec import Task
from bench.envs import environment
from bench.models.resolve import Resolved
from bench.process import cache, supervisor
from bench.run import artifacts
from bench.run.planned import Questions


def plan(task: Task, resolved: Resolved, context: int, task_key: object) -> Questions:
    """The questions of a task that asks; `task_key` is the task's part of a digest."""
    module = plugins.load(plugins.TASKS, task.kind)
    depends = module.depends(module.Options(**task.options))
    key = ["questions", resolved.identity, context, task_key, depends, environment.identity(module.ENV)]
    return Questions(task, resolved, context, wire.digest(key))


def ensure(asked: Questions, report: artifacts.Report, *, timeout_s: float) -> Path | str:
    """The folder of the questions, made now if it is not in the cache; or why they could not be made."""

    def make(building: Path) -> supervisor.Outcome:
        report(f"{asked.task.title}: asking")
        folder = _tokenizer(asked, report, timeout_s)
        if isinstance(folder, str):
            return supervisor.Outcome(Answer(error=folder), 0.0)
        context = asked.context or _context(asked.resolved)
        job = replace(_job(asked, "ask", folder), out=str(building), context=context)
        return supervisor.run(job, _env(asked, report), timeout_s=timeout_s)

    return cache.ensure("asked", asked.digest, "asked.json", make, lambda outcome: outcome.answer.facts)


def judge(asked: Questions, folder: Path, scored: Answer, *, timeout_s: float) -> Answer:
    """The engine's answer with its replies judged: what is recorded of the round."""
    replies = {key: scored.facts[key] for key in ("scores", "written")}
    rest = {key: value for key, value in scored.facts.items() if key not in replies}
    tokenizer = _tokenizer(asked, lambda _: None, timeout_s)
    if isinstance(tokenizer, str):
        return replace(scored, error=tokenizer)
    job = replace(_job(asked, "judge", tokenizer), reference=str(folder), replies=replies)
    outcome = supervisor.run(job, _env(asked, lambda _: None), timeout_s=timeout_s)
    found = outcome.answer
    facts = {**rest, **found.facts, "judge_s": outcome.wall_s}
    return replace(scored, error=found.error, facts=facts, items=found.items)


def _tokenizer(asked: Questions, report: artifacts.Report, timeout_s: float) -> Path | str:
    """The folder with the model's tokenizer: the model's own, or what was got out of its file; or why not."""
    model = asked.resolved.folder
    if model is None:
        raise UserError(f"the model {asked.resolved.identity} is not on this machine")
    where = plugins.load(plugins.TASKS, asked.task.kind).TOKENIZERS.get(asked.resolved.format)
    if where is None or (model / "tokenizer.json").is_file():
        return model

    def make(building: Path) -> supervisor.Outcome:
        job = replace(_job(asked, "tokenizer", model), out=str(building))
        return supervisor.run(job, environment.ensure(where, report), timeout_s=timeout_s)

    digest = wire.digest(["tokenizer", asked.resolved.identity, environment.identity(where)])
    return cache.ensure("tokenizers", digest, "about.json", make, lambda _: {})


def _job(asked: Questions, kind: JobKind, folder: Path) -> Job:
    return Job(
        kind=kind,
        plugin=asked.task.kind,
        folder=str(folder),
        answer="",
        device="cpu",
        options={},
        task_options=artifacts.absolute(asked.task.options),
    )


def _env(asked: Questions, report: artifacts.Report) -> environment.Environment:
    return environment.ensure(plugins.load(plugins.TASKS, asked.task.kind).ENV, report)


def _context(resolved: Resolved) -> int:
    assert resolved.folder is not None  # noqa: S101  (a job was made for it)
    return formats.audit(resolved.folder, None).context
