"""The records of a plan: the path each round's has, what it may show, and which are missing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from bench.contract.record import Artifact, Result
from bench.contract.spec import Cell, Options, Step, Task
from bench.contract.speculation import PREFIX, draft_of
from bench.contract.workload import Trace
from bench.models import resolve
from bench.run.planned import Plan, PlannedRound
from bench.store import Store


def pending(plan: Plan, store: Store, *, retry_failed: bool = False) -> list[PlannedRound]:
    """The rounds without a record of their digest; failed ones too when they are to be retried."""
    return [item for item, record in stored(plan, store) if is_pending(item.digest, record, retry_failed=retry_failed)]


def current(plan: Plan, store: Store) -> list[Result]:
    """The plan's records that are there and have the digest of their round."""
    return [record for item, record in stored(plan, store) if record is not None and record.digest == item.digest]


def stored(plan: Plan, store: Store) -> Iterator[tuple[PlannedRound, Result | None]]:
    """Each round with the record at its path, whatever the digest of that is."""
    skeletons = (skeleton(plan, item, item.cell) for item in plan.items)
    yield from zip(plan.items, store.find_all(skeletons), strict=True)


def is_pending(digest: str, record: Result | None, *, retry_failed: bool) -> bool:
    """Whether the round of this digest is to run, where this is the record at its path."""
    if record is None or record.digest != digest:
        return True
    return retry_failed and record.status == "failed"


def skeleton(plan: Plan, item: PlannedRound, cell: Cell) -> Result:
    """The record of a round before it has run; its path is the record's, whether `cell` is the public one or not."""
    return Result(
        digest=item.digest,
        suite=plan.suite.name,
        cell=cell,
        round=item.round,
        status="unsupported",
        reason=item.reason,
        hardware=item.artifact.hardware,
    )


def public_cell(cell: Cell) -> Cell:
    """The cell as a record may show it: no folder of this machine in it."""
    model = replace(cell.model, source=resolve.public(cell.model.source), name=cell.model.label)
    task = Task(cell.task.kind, _public(cell.task.options), cell.task.name) if cell.task else None
    load = cell.workload
    if isinstance(load, Trace):
        load = replace(load, path=Path(load.path).name)
    elif load and load.prompts:
        load = replace(load, prompts=Path(load.prompts).name)
    checkpoint = resolve.public(cell.recipe.checkpoint)
    recipe = replace(cell.recipe, steps=_public_steps(cell.recipe.steps), checkpoint=checkpoint)
    options = _public(cell.engine.options)
    if draft := draft_of(options):
        options = {**options, f"{PREFIX}draft": resolve.public(draft)}
    engine = replace(cell.engine, options=options)
    return replace(cell, model=model, recipe=recipe, engine=engine, task=task, workload=load)


def public_artifact(artifact: Artifact) -> Artifact:
    """The artifact's facts as a record may show them."""
    return replace(artifact, steps=_public_steps(artifact.steps))


def _public_steps(steps: tuple[Step, ...]) -> tuple[Step, ...]:
    return tuple(Step(step.method, _public(step.options)) for step in steps)


def _public(options: Options) -> Options:
    return {
        k: f"path:{Path(v).name}" if isinstance(v, str) and v.startswith("path:") else v for k, v in options.items()
    }


def now() -> str:
    """The time in UTC, to the second, as records have it."""
    return datetime.now(UTC).isoformat(timespec="seconds")
