"""Run the pending rounds of a plan: environments and artifacts first, then each round to one record.

Only the round in flight can be lost: a record is on disk before the next round starts.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout

from bench import formats, paths
from bench.contract.errors import CellError
from bench.contract.job import Answer
from bench.contract.record import Hardware, Result
from bench.contract.spec import Cell, EngineSpec, Recipe
from bench.contract.workload import Online
from bench.envs import environment
from bench.machine import counters, guard, nvml
from bench.machine.hardware import slug_of
from bench.measure import sanity
from bench.process import server, supervisor
from bench.progress.eta import SimilarityKeys
from bench.progress.progress import Progress
from bench.progress.snapshot import RoundLabel
from bench.run import artifacts, ceilings, metrics, offline, online, records, task_inputs
from bench.run.artifacts import BuiltArtifact
from bench.run.planned import Plan, PlannedArtifact, PlannedRound, Reference, Requests
from bench.store import Store

T = TypeVar("T")


@dataclass(frozen=True)
class Tally:
    """Rounds run by status, and the number of rounds recorded before."""

    done: Counter[str]
    recorded: int


def run(
    plan: Plan,
    store: Store,
    progress: Progress,
    *,
    retry_failed: bool = False,
    open_reader: counters.OpenReader = counters.reader,
) -> Tally:
    """Run everything pending, one device after the other; `open_reader` opens a device's energy counter."""
    todo: list[tuple[PlannedRound, Result | None]] = []
    timed: list[tuple[Cell, float]] = []
    for item, record in records.stored(plan, store):  # one at a time: there may be tens of thousands
        if records.is_pending(item, record, retry_failed=retry_failed):
            todo.append((item, record))
        if record is not None and record.status == "ok":
            timed.append((item.cell, record.duration_s))
    durations = [(_similarity_keys(cell), duration_s) for cell, duration_s in timed] if todo else []
    progress.begin([_label(plan, item) for item, _ in todo], len(plan.items) - len(todo), durations)
    for orphan in server.end_orphans():
        progress.line(f"ended a {orphan.name} server that an earlier run left behind (process {orphan.pid})")
    done: Counter[str] = Counter()
    for hardware in {item.artifact.hardware.device: item.artifact.hardware for item, _ in todo}.values():
        rounds = [(item, record) for item, record in todo if item.artifact.hardware.device == hardware.device]
        with _alone(hardware, progress):
            items = _still_pending(plan, rounds, store, progress)
            done += Runner(plan, hardware, store, progress, open_reader).run(items)
    return Tally(done, len(plan.items) - done.total())


class Runner:
    """The run of a plan's rounds on one device: the artifacts and task inputs it has, or why it has not."""

    def __init__(
        self, plan: Plan, hardware: Hardware, store: Store, progress: Progress, open_reader: counters.OpenReader
    ) -> None:
        self._plan, self._hardware, self._store, self._progress = plan, hardware, store, progress
        self._open_reader = open_reader
        self._artifacts: dict[str, BuiltArtifact | CellError] = {}  # by recipe
        self._task_inputs: dict[str, Path | CellError] = {}  # by digest
        self._ceiling: Mapping[str, Any] = {}

    def run(self, items: list[PlannedRound]) -> Counter[str]:
        """Run the rounds, each to a record in the store; how many there are of each status."""
        done: Counter[str] = Counter()
        self._store.put_machine(self._hardware)
        self._prepare([item for item in items if not item.reason])
        for item in items:
            label = _label(self._plan, item)
            self._progress.start_round(label)
            result, answer = self._round(item)
            self._store.put(result, answer.traces, answer.items)
            self._progress.end_round(label, result)
            done[result.status] += 1
        return done

    def _prepare(self, items: list[PlannedRound]) -> None:
        """Build environments, artifacts and task inputs, measure the ceilings, wait for an idle device."""
        doing = self._progress.doing
        for name in sorted({i.env for i in items}):
            environment.ensure(name, doing)
        for name in sorted({i.env for i in items if i.mode == "online" and environment.has_tools(i.env)}):
            environment.tools(name, doing)
        inputs = {i.task_input.digest: i.task_input for i in items if i.task_input}
        recipes = {i.artifact.recipe.name for i in items}
        recipes |= {r.artifact.recipe.name for r in inputs.values() if isinstance(r, Reference)}
        for planned in self._plan.artifacts:
            if planned.recipe.name in recipes and planned.hardware == self._hardware:
                self._artifacts[planned.recipe.name] = self._build_artifact(planned)
        for digest, task_input in inputs.items():
            self._task_inputs[digest] = self._build_task_input(task_input)
        if items:
            doing(f"waiting for the device to be idle, {self._plan.suite.settle_s:g} s at most")
            guard.wait_until_idle(self._hardware.device, self._plan.suite.settle_s)
        if any(item.is_timed for item in items):
            if ceilings.find(self._hardware, self._store) is None:
                doing(f"the ceilings of {self._hardware.name}")
            measured = ceilings.ensure(self._hardware, self._store, self._progress.warn)
            self._ceiling = ceilings.facts(self._hardware, measured)

    def _build_artifact(self, planned: PlannedArtifact) -> BuiltArtifact | CellError:
        """Make one artifact and record it, or record why it could not be made."""
        name, began = planned.recipe.name, time.monotonic()
        cell = Cell(planned.model, Recipe(name, planned.steps), EngineSpec(""), planned.hardware.device)
        record = Result(
            digest=planned.digest,
            suite=self._plan.suite.name,
            cell=records.public_cell(cell),
            round=0,
            status="ok",
            hardware=planned.hardware,
            started=_now(),
        )
        try:
            built = artifacts.make(
                planned.steps,
                planned.resolved,
                planned.hardware,
                lambda text: self._progress.doing(f"{name}: {text.removeprefix(f'{name}: ')}"),
            )
        except CellError as error:
            reason = paths.scrubbed(str(error))
            self._progress.warn(f"failed: {name}: {reason}")
            self._store.put(replace(record, status="failed", reason=reason, duration_s=time.monotonic() - began))
            return CellError(f"its artifact could not be made: {reason}")
        existing = self._store.find(record)
        if existing is None or existing.digest != record.digest or existing.status != "ok":
            facts = records.public_artifact(built.artifact)
            self._store.put(replace(record, artifact=facts, duration_s=time.monotonic() - began))
        return built

    def _build_task_input(self, task_input: Reference | Requests) -> Path | CellError:
        """The folder of the task's reference or requests, or why it could not be built."""
        suite, progress, title = self._plan.suite, self._progress, task_input.task.title
        try:
            if isinstance(task_input, Requests):
                return task_inputs.requests_folder(task_input, suite, progress.doing)
            source = f"{task_input.artifact.recipe.name} on {task_input.engine.title}"
            title = f"{source}: {title}"
            built = _ready(self._artifacts[task_input.artifact.recipe.name])
            return task_inputs.reference_folder(
                task_input, built, suite, lambda text: progress.doing(f"{source}: {text}")
            )
        except CellError as error:
            reason = paths.scrubbed(str(error))
            progress.warn(f"failed: {title}: {reason}")
            if isinstance(task_input, Requests):
                return CellError(reason)
            return CellError(f"its reference ({source}) could not be made: {reason}")

    def _round(self, item: PlannedRound) -> tuple[Result, Answer]:
        """Run one round in a fresh process; its record, of a failure too, and the answer with traces and items."""
        answer = Answer()
        record = replace(records.skeleton(self._plan, item, records.public_cell(item.cell)), started=_now())
        if item.reason:
            return record, answer
        began = time.monotonic()
        try:
            built = _ready(self._artifacts[item.artifact.recipe.name])
            task_input = _ready(self._task_inputs[item.task_input.digest]) if item.task_input else None
            readiness = guard.inspect(item.cell.device)
            marks = {sanity.BUSY: not readiness.idle, sanity.DUMMY: item.artifact.resolved.dummy}
            env = environment.ensure(item.env, self._progress.doing)
            shape = metrics.roofline_facts(built.folder, self._ceiling if item.is_timed else {})
            record = replace(
                record,
                artifact=records.public_artifact(built.artifact),
                environment=env.versions,
                facts={**readiness.facts, **shape},
                marks=tuple(mark for mark, applies in marks.items() if applies),
            )
            outcome = self._outcome(item, built, task_input, env)
            answer = outcome.answer
            record = replace(
                record,
                status="ok",
                receipts=answer.receipts,
                facts={**answer.facts, **outcome.observed, **record.facts},
                duration_s=outcome.wall_s,
            )
            supervisor.succeeded(outcome)
            return self._measured(item, record, answer), answer
        except CellError as error:  # with the requests that were finished before
            duration_s = record.duration_s or time.monotonic() - began
            reason = paths.scrubbed(str(error))
            return replace(record, status="failed", reason=reason, duration_s=duration_s), answer

    def _measured(self, item: PlannedRound, record: Result, answer: Answer) -> Result:
        """The record with its metrics; failed where these contradict each other."""
        record = replace(record, metrics=metrics.metrics(record, answer.traces, item.task))
        bits = None if formats.holds_floats(item.artifact.format) else self._original_bits
        if not (faults := sanity.check(record, answer.traces, bits)):
            return record
        finite = {k: v for k, v in record.metrics.items() if math.isfinite(v)}  # JSON has no NaN
        reason = f"refused as impossible: {'; '.join(faults)}"
        return replace(record, status="failed", reason=reason, metrics=finite)

    def _outcome(
        self, item: PlannedRound, built: BuiltArtifact, task_input: Path | None, env: environment.Environment
    ) -> supervisor.Outcome:
        """The outcome of a worker or of a server under load, with the replies to a task's requests scored."""
        suite, report = self._plan.suite, self._progress.doing
        if isinstance(load := item.cell.workload, Online):
            return online.run(item, load, built, env, suite, report=report, open_reader=self._open_reader)
        outcome = offline.run(item, built, task_input, env, suite, report=report, open_reader=self._open_reader)
        if task_input is None or not isinstance(item.task_input, Requests) or outcome.answer.error:
            return outcome
        scored = task_inputs.score_replies(item.task_input, task_input, outcome.answer, suite, report)
        return replace(outcome, answer=scored)

    @cached_property
    def _original_bits(self) -> float:
        return formats.audit(self._plan.resolved.local_folder, None).bits_per_weight


def _ready(built: T | CellError) -> T:
    """Raise the error of a failed build, else return its result."""
    if isinstance(built, CellError):
        raise built
    return built


def _label(plan: Plan, item: PlannedRound) -> RoundLabel:
    """The round as progress shows it."""
    cell = item.cell
    rounds = plan.suite.task_rounds if cell.task else plan.suite.rounds
    return RoundLabel(cell.title, cell.device, item.round + 1, rounds, () if item.reason else _similarity_keys(cell))


def _similarity_keys(cell: Cell) -> SimilarityKeys:
    """The rounds whose time a round's is like: its cell's, its engine's under this load, any engine's, the device's."""
    device, load = cell.device, cell.measurement
    return (f"{device} {cell.title}", f"{device} {cell.engine.title}/{load}", f"{device} {load}", device)


@contextmanager
def _alone(hardware: Hardware, progress: Progress) -> Iterator[None]:
    """Hold the device's lock: two runs never measure at once. The kernel frees that of a process that died."""
    index = nvml.cuda_id(hardware.device)  # the same whatever the suite or CUDA_VISIBLE_DEVICES calls it
    device = "cpu" if index is None else f"gpu-{index}"
    lock = FileLock(paths.cache_folder("locks") / f"{slug_of(hardware.name)}-{device}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        progress.warn(f"another run is measuring on {hardware.name}; waiting for it to end (Ctrl-C to give up)")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _still_pending(
    plan: Plan, rounds: Sequence[tuple[PlannedRound, Result | None]], store: Store, progress: Progress
) -> list[PlannedRound]:
    """The rounds, each with its record as it was, less those that another run has recorded since."""
    before = [record for _, record in rounds]
    now = list(records.stored(replace(plan, items=tuple(item for item, _ in rounds)), store))
    pending: list[PlannedRound] = []
    others: list[PlannedRound] = []
    for (item, record), earlier in zip(now, before, strict=True):
        is_left = record == earlier or records.is_pending(item, record, retry_failed=False)
        (pending if is_left else others).append(item)
    if others:
        progress.recorded([_label(plan, item) for item in others])
        progress.line(f"{len(others)} rounds were recorded by another run in the meantime")
    return pending


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
