"""What a task needs of the baseline while it measures another artifact: made once, kept in the cache.

Content-addressed like artifacts: the baseline's artifact, the engine and its environment, the task with its
text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.contract import plugins, wire
from bench.contract.job import Job
from bench.contract.spec import Cell
from bench.envs import environment
from bench.process import cache, supervisor
from bench.run import artifacts
from bench.run.planned import PlannedArtifact, Reference

_ABOUT = "reference.json"


def baseline(made: Sequence[PlannedArtifact]) -> PlannedArtifact:
    """The tables' rule: the recipe of that name, else one without steps, else the first in format hf."""
    named = [m for m in made if m.recipe.name == "baseline"]
    stepless = [m for m in made if not m.recipe.steps]
    original = [m for m in made if m.format == "hf"]
    return next(iter([*named, *stepless, *original, *made]))


def choose(cells: Sequence[Cell], made: PlannedArtifact, against: Callable[[Cell], str], task_key: object) -> Reference:
    """The first of the baseline's `cells` of one task, in the suite's order, that can be run.

    `against` says why a cell cannot; `task_key` is the task's part of a digest.
    """
    reason = made.reason
    for cell in cells:
        assert cell.task is not None  # noqa: S101  (these are a task's cells)
        if reason := made.reason or against(cell):
            continue
        engine = plugins.load(plugins.ENGINES, cell.engine.name)
        key = [
            "reference",
            made.digest,
            cell.engine.name,
            wire.plain(cell.engine.options),
            engine.VERSION,
            environment.identity(plugins.engine_env(engine, made.format)),
            task_key,
            made.hardware.slug,
        ]
        return Reference(cell.task, made, cell.engine, wire.digest(key))
    assert cells[0].task is not None  # noqa: S101  (a suite has at least one engine)
    sentence = f"no engine of the suite can score the baseline ({made.recipe.name}): {reason}"
    return Reference(cells[0].task, made, cells[0].engine, "", sentence)


def ensure(
    reference: Reference,
    made: artifacts.Made,
    report: artifacts.Report,
    *,
    timeout_s: float,
    memory_limit_bytes: int = 0,
) -> Path | str:
    """The folder of the reference, made now if it is not in the cache; or why it could not be made."""

    def make(building: Path) -> supervisor.Outcome:
        report(f"{reference.task.title}: keeping the baseline's predictions")
        engine = plugins.load(plugins.ENGINES, reference.engine.name)
        return supervisor.run(
            _job(reference, made, building),
            environment.ensure(plugins.engine_env(engine, reference.made.format), report),
            timeout_s=timeout_s,
            memory_limit_bytes=memory_limit_bytes,
            report=lambda phase: report(f"{reference.task.title}: the baseline's predictions, {phase}"),
        )

    return cache.ensure("references", reference.digest, _ABOUT, make, lambda outcome: _about(reference, outcome))


def _job(reference: Reference, made: artifacts.Made, out: Path) -> Job:
    return Job(
        kind="reference",
        plugin=reference.engine.name,
        folder=str(made.folder),
        answer="",
        device=reference.made.hardware.device,
        options=artifacts.absolute(reference.engine.options),
        out=str(out),
        artifact=made.artifact,
        task=reference.task.kind,
        task_options=artifacts.absolute(reference.task.options),
    )


def _about(reference: Reference, outcome: supervisor.Outcome) -> dict[str, Any]:
    return {
        **outcome.answer.facts,
        "engine": reference.engine.title,
        "artifact": reference.made.digest,
        "recipe": reference.made.recipe.name,
        "receipts": outcome.answer.receipts,
        "wall_s": outcome.wall_s,
    }
