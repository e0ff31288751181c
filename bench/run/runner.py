"""Run what a plan still lacks: environments, artifacts, then round after round, each leaving one record.

Only the round in flight can be lost: a record is on disk before the next round starts.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from bench import paths
from bench.contract import plugins
from bench.contract.job import Answer, Job
from bench.contract.record import Artifact, Audit, Hardware, Result
from bench.contract.spec import Cell, EngineSpec, Options, Recipe, Step, Task
from bench.envs import environment
from bench.formats import audit
from bench.load import prompts
from bench.machine import counters, guard, nvml
from bench.machine.hardware import slug_of
from bench.measure import sanity
from bench.models import resolve
from bench.process import server, supervisor
from bench.progress.eta import Alike
from bench.progress.progress import Progress, Report
from bench.progress.snapshot import Round
from bench.run import artifacts, ceilings, energy_window, metrics, online, physics, questions, references
from bench.run.planned import Plan, PlannedArtifact, PlannedRound, Questions, Reference
from bench.store import Store

_WARMUP_GROUPS = 8


@dataclass(frozen=True)
class Tally:
    """What a run did: rounds by status, and how many were there already."""

    done: Counter[str]
    kept: int


def pending(plan: Plan, store: Store, *, retry_failed: bool = False) -> list[PlannedRound]:
    """The items without a record of their digest; failed ones too when they are to be retried."""
    return [item for item, known in _recorded(plan, store) if _lacks(item, known, retry_failed=retry_failed)]


def _recorded(plan: Plan, store: Store) -> Iterator[tuple[PlannedRound, Result | None]]:
    """Each item with the record at its place, whatever the digest of that is."""
    shown: dict[int, Cell] = {}  # the rounds of a cell share it, and there may be thousands
    for item in plan.items:
        if id(item.cell) not in shown:
            shown[id(item.cell)] = public(item.cell)
        yield item, store.find(_skeleton(plan, item, shown[id(item.cell)]))


def _lacks(item: PlannedRound, known: Result | None, *, retry_failed: bool) -> bool:
    if known is None or known.digest != item.digest:
        return True
    return retry_failed and known.status == "failed"


def run(
    plan: Plan,
    store: Store,
    progress: Progress,
    *,
    retry_failed: bool = False,
    open_reader: counters.OpenReader = counters.reader,
) -> Tally:
    """Run everything pending, one device after the other, alone on each.

    `open_reader` opens what counts the energy of a device.
    """
    looked = list(_recorded(plan, store))
    todo = [item for item, known in looked if _lacks(item, known, retry_failed=retry_failed)]
    before = [(_alike(i.cell), known.duration_s) for i, known in looked if known and known.status == "ok"]
    progress.begin([_told(plan, item) for item in todo], len(plan.items) - len(todo), before)
    done: Counter[str] = Counter()
    for orphan in server.end_orphans():
        progress.line(f"ended a {orphan.name} server that an earlier run left behind (process {orphan.pid})")
    for device in dict.fromkeys(item.made.hardware.device for item in todo):
        mine = [item for item in todo if item.made.hardware.device == device]
        hardware = mine[0].made.hardware
        with _alone(hardware, progress):
            store.put_machine(hardware)
            made, sides = _prepare(plan, mine, store, progress)
            ceiling = _ceiling(mine, store, progress)
            for item in mine:
                side = next((sides.get(s.digest) for s in (item.reference, item.questions) if s), None)
                recipe = made.get(item.made.recipe.name)
                progress.starts(_told(plan, item))
                result, kept = _round(plan, item, recipe, side, ceiling, progress.doing, open_reader)
                store.put(result, kept.traces, kept.items)
                progress.ends(result)
                done[result.status] += 1
    return Tally(done, len(plan.items) - len(todo))


def skeleton(plan: Plan, item: PlannedRound) -> Result:
    """The record of an item before anything is known but what was asked: it has the record's path."""
    return _skeleton(plan, item, public(item.cell))


def _skeleton(plan: Plan, item: PlannedRound, cell: Cell) -> Result:
    return Result(
        digest=item.digest,
        suite=plan.suite.name,
        cell=cell,
        round=item.round,
        status="unsupported",
        reason=item.reason,
        hardware=item.made.hardware,
    )


def public(cell: Cell) -> Cell:
    """The cell as a record may show it: no folder of this machine in it."""
    model = replace(cell.model, source=resolve.public(cell.model.source), name=cell.model.label)
    steps = tuple(Step(s.method, _public(s.options)) for s in cell.recipe.steps)
    task = Task(cell.task.kind, _public(cell.task.options), cell.task.name) if cell.task else None
    load = cell.workload and replace(cell.workload, path=Path(cell.workload.path).name)
    return replace(cell, model=model, recipe=Recipe(cell.recipe.name, steps), task=task, workload=load)


def _public(options: Options) -> Options:
    return {
        k: f"path:{Path(v).name}" if isinstance(v, str) and v.startswith("path:") else v for k, v in options.items()
    }


def _told(plan: Plan, item: PlannedRound) -> Round:
    """The round as a person is told of it."""
    cell = item.cell
    of = plan.suite.task_rounds if cell.task else plan.suite.rounds
    return Round(cell.title, cell.device, item.round + 1, of, () if item.reason else _alike(cell))


def _alike(cell: Cell) -> Alike:
    """What a round's time is like: its cell's, its engine's under this load, any engine's, the device's."""
    device, load = cell.device, cell.what
    return (f"{device} {cell.title}", f"{device} {cell.engine.title}/{load}", f"{device} {load}", device)


@contextmanager
def _alone(hardware: Hardware, progress: Progress) -> Iterator[None]:
    """Hold the device's lock: two runs never measure at once.

    The kernel frees the lock of a process that died.
    """
    place = nvml.index(hardware.device)  # the same whatever the suite or CUDA_VISIBLE_DEVICES calls it
    word = "cpu" if place is None else f"gpu-{place}"
    lock = FileLock(paths.cache_folder("locks") / f"{slug_of(hardware.name)}-{word}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        progress.warn(f"another run is measuring on {hardware.name}; waiting for it to end (Ctrl-C to give up)")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _prepare(
    plan: Plan, items: list[PlannedRound], store: Store, progress: Progress
) -> tuple[dict[str, artifacts.Made | str], dict[str, Path | str]]:
    """Environments built, artifacts, references and questions made.

    Per recipe the artifact, and per digest the folder of the reference or questions; or why there is none.
    """
    runnable = [item for item in items if not item.reason]
    needed = {_env(i) for i in runnable}
    for name in sorted(needed):
        environment.ensure(name, progress.doing)
    for name in sorted(_with_tools(runnable)):
        environment.tools(name, progress.doing)
    made: dict[str, artifacts.Made | str] = {}
    asked = {i.reference.digest: i.reference for i in runnable if i.reference}
    wanted = {i.made.recipe.name for i in runnable} | {r.made.recipe.name for r in asked.values()}
    for recipe in plan.made:
        if recipe.recipe.name in wanted and recipe.hardware == items[0].made.hardware:
            made[recipe.recipe.name] = _artifact(plan, recipe, store, progress)
    sides = {d: _reference(plan, r, made[r.made.recipe.name], progress) for d, r in asked.items()}
    for each in {i.questions.digest: i.questions for i in runnable if i.questions}.values():
        sides[each.digest] = _questions(plan, each, progress)
    if runnable:
        progress.doing("waiting for the device to be idle")
        guard.wait_until_idle(runnable[0].made.hardware.device, plan.suite.settle_s)
    return made, sides


def _reference(plan: Plan, reference: Reference, made: artifacts.Made | str, progress: Progress) -> Path | str:
    """What a task needs of the baseline, or why it could not be made."""
    where = f"{reference.made.recipe.name} on {reference.engine.title}"
    if isinstance(made, str):
        found: Path | str = made
    else:
        found = references.ensure(
            reference,
            made,
            lambda text: progress.doing(f"{where}: {text}"),
            timeout_s=plan.suite.timeout_s,
            memory_limit_bytes=_limit(plan),
        )
    if isinstance(found, Path):
        return found
    progress.warn(f"failed: {where}: {reference.task.title}: {found}")
    return f"its reference ({where}) could not be made: {found}"


def _questions(plan: Plan, asked: Questions, progress: Progress) -> Path | str:
    found = questions.ensure(asked, progress.doing, timeout_s=plan.suite.timeout_s)
    if isinstance(found, str):
        progress.warn(f"failed: {asked.task.title}: {found}")
    return found


def _ceiling(items: list[PlannedRound], store: Store, progress: Progress) -> dict[str, Any]:
    """The fact that says what the device can do at most; measured if any item's time is to be held to it."""
    timed = [item for item in items if not item.reason and _is_timed(item)]
    if not timed:
        return {}
    hardware = timed[0].made.hardware
    if ceilings.found(hardware, store) is None:
        progress.doing(f"the ceilings of {hardware.name}")
    return ceilings.facts(hardware, ceilings.ensure(hardware, store, progress.warn))


def _is_timed(item: PlannedRound) -> bool:
    """A load on an engine that computes here: in the core environment it pretends to, or asks a server."""
    return item.cell.workload is not None and _env(item) != "core"


def _limit(plan: Plan) -> int:
    return int(plan.suite.memory_limit_gib * 2**30)


def _env(item: PlannedRound) -> str:
    engine = plugins.load(plugins.ENGINES, item.cell.engine.name)
    return plugins.engine_env(engine, item.made.format)


def _with_tools(items: list[PlannedRound]) -> set[str]:
    """Environments whose own server is among the tools of the source they were compiled from."""
    online = {_env(i) for i in items if i.cell.workload is not None and i.cell.workload.online}
    return {name for name in online if environment.has_tools(name)}


def _artifact(plan: Plan, made: PlannedArtifact, store: Store, progress: Progress) -> artifacts.Made | str:
    """Make one artifact and record it, or record why it could not be made."""
    name = made.recipe.name
    cell = Cell(made.model, Recipe(made.recipe.name, made.steps), EngineSpec(""), made.hardware.device)
    base = Result(
        digest=made.digest,
        suite=plan.suite.name,
        cell=public(cell),
        round=0,
        status="ok",
        hardware=made.hardware,
        started=_now(),
    )
    began = time.monotonic()
    found: artifacts.Made | str
    try:
        found = artifacts.make(
            made.steps,
            made.resolved,
            made.hardware,
            lambda text: progress.doing(f"{name}: {text.removeprefix(f'{name}: ')}"),
        )
    except artifacts.StepFailedError as failure:
        found = paths.scrubbed(str(failure))
        progress.warn(f"failed: {made.recipe.name}: {found}")
        store.put(replace(base, status="failed", reason=found, duration_s=time.monotonic() - began))
        return found
    done = store.get(store.path(base))
    if done is None or done.digest != base.digest or done.status != "ok":
        facts = _public_artifact(found.artifact)
        store.put(replace(base, artifact=facts, duration_s=time.monotonic() - began))
    return found


def _public_artifact(artifact: Artifact) -> Artifact:
    return replace(artifact, steps=tuple(Step(s.method, _public(s.options)) for s in artifact.steps))


def _round(
    plan: Plan,
    item: PlannedRound,
    made: artifacts.Made | str | None,
    side: Path | str | None,
    ceiling: Mapping[str, Any],
    report: Report,
    open_reader: counters.OpenReader,
) -> tuple[Result, Answer]:
    """One round in a fresh process: a record, whatever happened, and what is kept beside it."""
    base = replace(skeleton(plan, item), started=_now())
    if item.reason:
        return base, Answer()
    if made is None or isinstance(made, str):
        return replace(base, status="failed", reason=f"its artifact could not be made: {made}"), Answer()
    if isinstance(side, str):
        return replace(base, status="failed", reason=side), Answer()
    ready = guard.inspect(item.cell.device)
    env = environment.ensure(_env(item), report)
    outcome = _outcome(plan, item, made, side, env, report, open_reader)
    answer = outcome.answer
    if item.questions and side and not answer.error:
        report("judging the answers")
        answer = questions.judge(item.questions, side, answer, timeout_s=plan.suite.timeout_s)
    known = physics.facts(made.folder, ceiling if _is_timed(item) else {})
    result = replace(
        base,
        status="failed" if answer.error else "ok",
        reason=paths.scrubbed(answer.error),
        artifact=_public_artifact(made.artifact),
        environment=env.versions,
        receipts=answer.receipts,
        facts={**answer.facts, **outcome.seen, **ready.facts, **known},
        duration_s=outcome.wall_s,
        marks=_seen(item, ready),
    )
    if answer.error:
        return result, answer  # with the requests that were finished before
    result = replace(result, metrics=metrics.metrics(result, answer.traces))
    if wrong := sanity.check(result, answer.traces, _baseline(plan).bits_per_weight):
        kept = {k: v for k, v in result.metrics.items() if math.isfinite(v)}  # JSON has no NaN
        reason = f"refused as impossible: {'; '.join(wrong)}"
        return replace(result, status="failed", reason=reason, metrics=kept), answer
    return result, answer


def _seen(item: PlannedRound, ready: guard.Readiness) -> tuple[str, ...]:
    """Marks that only this side can give."""
    dummy = (sanity.DUMMY,) if item.made.resolved.dummy else ()
    return dummy if ready.idle else (sanity.BUSY, *dummy)


def _outcome(
    plan: Plan,
    item: PlannedRound,
    made: artifacts.Made,
    side: Path | None,
    env: environment.Environment,
    report: Report,
    open_reader: counters.OpenReader,
) -> supervisor.Outcome:
    """What a worker, or a server under load, gave."""
    suite, load = plan.suite, item.cell.workload
    if load is not None and load.online:
        return online.run(
            item.cell,
            made,
            env,
            f"{suite.seed}/{item.cell.what}",
            item.round,
            timeout_s=suite.timeout_s,
            energy=suite.energy_window_s > 0,
            report=report,
            open_reader=open_reader,
        )
    return energy_window.run(
        _job(plan, item, made, side),
        env,
        suite.energy_window_s,
        timeout_s=suite.timeout_s,
        memory_limit_bytes=_limit(plan),
        report=report,
        open_reader=open_reader,
    )


def _job(plan: Plan, item: PlannedRound, made: artifacts.Made, side: Path | None) -> Job:
    cell = item.cell
    job = Job(
        kind="offline" if cell.workload else "score",
        plugin=cell.engine.name,
        folder=str(made.folder),
        answer="",
        device=cell.device,
        options=artifacts.absolute(cell.engine.options),
        artifact=made.artifact,
        reference=str(side or ""),
    )
    if cell.task is not None:
        return replace(job, task=cell.task.kind, task_options=artifacts.absolute(cell.task.options))
    assert cell.workload is not None  # noqa: S101  (a cell has one of the two)
    load = cell.workload
    ids = prompts.unique(
        (_WARMUP_GROUPS + load.repeats) * load.batch,
        load.prompt_tokens,
        made.artifact.audit.vocab_size,
        f"{plan.suite.seed}/{load.title}/{item.round}",
    )
    return replace(job, workload=load, prompts=ids)


def _baseline(plan: Plan) -> Audit:
    assert plan.resolved.folder is not None  # noqa: S101  (it was fetched before anything ran)
    return audit.audit(plan.resolved.folder, None)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def records(plan: Plan, store: Store) -> list[Result]:
    """The plan's records that are there and current."""
    found = [store.get(store.path(skeleton(plan, item))) for item in plan.items]
    return [r for r, item in zip(found, plan.items, strict=True) if r is not None and r.digest == item.digest]
