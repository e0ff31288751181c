"""What a task needs of the baseline while it measures another artifact: made once, kept in the cache.

Content-addressed like artifacts: the baseline's artifact, the engine and its environment, the task with its
text. It is built beside and renamed, and its files' sizes are looked at when it is found: one that was
interrupted or cut short is made again.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from bench.contract import plugins, wire
from bench.contract.job import Job
from bench.contract.spec import Cell, EngineSpec, Task
from bench.run import artifacts, envs, launch, paths

if TYPE_CHECKING:
    from bench.run.plan import Made

_ABOUT = "reference.json"


@dataclass(frozen=True)
class Reference:
    """The baseline's side of a task: its artifact, and the engine that runs it.

    `reason` says why no engine of the suite can; there is then no `digest`.
    """

    task: Task
    made: Made
    engine: EngineSpec
    digest: str
    reason: str = ""


def baseline(made: Sequence[Made]) -> Made:
    """The tables' rule: the recipe of that name, else one without steps, else the first in format hf."""
    named = [m for m in made if m.recipe.name == "baseline"]
    stepless = [m for m in made if not m.recipe.steps]
    original = [m for m in made if m.format == "hf"]
    return next(iter([*named, *stepless, *original, *made]))


def choose(cells: Sequence[Cell], made: Made, against: Callable[[Cell], str], task_key: object) -> Reference:
    """The first of the baseline's `cells` of one task, in the suite's order, that can be run.

    `against` says why a cell cannot; `task_key` is the task's part of a digest.
    """
    reason = made.reason
    for cell in cells:
        assert cell.task is not None  # noqa: S101  (these are a task's cells)
        if reason := made.reason or against(cell):
            continue
        engine = plugins.load(plugins.ENGINES, cell.engine.name)
        key = ["reference", made.digest, cell.engine.name, wire.plain(cell.engine.options), engine.VERSION,
               envs.identity(engine.ENV), task_key, made.hardware.slug]  # fmt: skip
        return Reference(cell.task, made, cell.engine, wire.digest(key))
    assert cells[0].task is not None  # noqa: S101  (a suite has at least one engine)
    sentence = f"no engine of the suite can score the baseline ({made.recipe.name}): {reason}"
    return Reference(cells[0].task, made, cells[0].engine, "", sentence)


def find(digest: str) -> Path | None:
    """The folder of this reference if it is in the cache and whole."""
    folder = _folder(digest)
    try:
        about = json.loads((folder / _ABOUT).read_text(encoding="utf-8"))
        whole = about["digest"] == digest and about["files"] == _sizes(folder)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return folder if whole else None


def ensure(
    reference: Reference, made: artifacts.Made, report: artifacts.Report, *,
    timeout_s: float, memory_limit_bytes: int = 0,
) -> Path | str:  # fmt: skip
    """The folder of the reference, made now if it is not in the cache; or why it could not be made."""
    folder = _folder(reference.digest)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        if found := find(reference.digest):
            return found
        report(f"{reference.task.title}: keeping the baseline's predictions")
        shutil.rmtree(folder, ignore_errors=True)
        building = folder.with_suffix(".part")
        shutil.rmtree(building, ignore_errors=True)
        building.mkdir()
        try:
            engine = plugins.load(plugins.ENGINES, reference.engine.name)
            outcome = launch.run(
                _job(reference, made, building), envs.ensure(engine.ENV, report),
                timeout_s=timeout_s, memory_limit_bytes=memory_limit_bytes,
            )  # fmt: skip
            if outcome.answer.error:
                return paths.scrubbed(outcome.answer.error)
            wire.write(building / _ABOUT, wire.dumps(_about(reference, outcome, building), indent=1))
            building.rename(folder)
        finally:
            shutil.rmtree(building, ignore_errors=True)
    return folder


def _job(reference: Reference, made: artifacts.Made, out: Path) -> Job:
    return Job(
        kind="reference", plugin=reference.engine.name, folder=str(made.folder), answer="",
        device=reference.made.hardware.device, options=artifacts.absolute(reference.engine.options),
        out=str(out), artifact=made.artifact, task=reference.task.kind,
        task_options=artifacts.absolute(reference.task.options),
    )  # fmt: skip


def _about(reference: Reference, outcome: launch.Outcome, folder: Path) -> dict[str, Any]:
    return {
        **outcome.answer.facts,
        "digest": reference.digest,
        "engine": reference.engine.title,
        "artifact": reference.made.digest,
        "recipe": reference.made.recipe.name,
        "receipts": outcome.answer.receipts,
        "wall_s": outcome.wall_s,
        "files": _sizes(folder),
    }


def _sizes(folder: Path) -> dict[str, int]:
    """Bytes of each file the task wrote."""
    return {f.name: f.stat().st_size for f in sorted(folder.iterdir()) if f.name != _ABOUT}


def _folder(digest: str) -> Path:
    return paths.cache() / "references" / digest
