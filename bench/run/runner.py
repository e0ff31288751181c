"""Run the pending rounds of a plan, each to one record: what no clock reads first, then what has the machine alone.

Only rounds in flight can be lost: a record is on disk before the next round starts.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from bench import formats, paths
from bench.contract.cycles import no_gc
from bench.contract.errors import CellError, UnsupportedError, UserError
from bench.contract.job import Answer, Report
from bench.contract.record import Hardware, Result, Status
from bench.contract.spec import Cell
from bench.contract.workload import Online
from bench.envs import environment
from bench.machine import counters, guard, nvml
from bench.machine.hardware import slug_of
from bench.measure import sanity
from bench.process import bound, server, supervisor
from bench.progress.eta import SimilarityKeys
from bench.progress.progress import Progress
from bench.progress.snapshot import RoundLabel
from bench.run import ceilings, metrics, offline, online, records, served, speculation, stages, task_inputs
from bench.run.artifacts import BuiltArtifact
from bench.run.builds import Builds
from bench.run.planned import Plan, PlannedRound, Requests
from bench.run.stages import Stage
from bench.store import Store

_DEVICE_LIMIT_S = 24 * 3600.0  # to wait for another run's end


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
    at_once: int = stages.AT_ONCE,
    open_reader: counters.OpenReader = counters.reader,
) -> Tally:
    """Run everything pending, one device after the other; `open_reader` opens a device's energy counter.

    `at_once`: how many things are built or scored at a time; 1 gives the time that each artifact takes to make.
    """
    todo: list[tuple[PlannedRound, Result | None]] = []
    timed: list[tuple[Cell, float]] = []
    with no_gc():
        for item, record in records.stored(plan, store):  # one at a time: there may be tens of thousands
            if records.is_pending(item.digest, record, retry_failed=retry_failed):
                todo.append((item, record))
            if record is not None and record.status == "ok":
                timed.append((item.cell, record.duration_s))
    durations = [(_similarity_keys(cell), duration_s) for cell, duration_s in timed] if todo else []
    progress.begin([label(plan, item, at_once) for item, _ in todo], len(plan.items) - len(todo), durations)
    for orphan in server.end_orphans():
        progress.line(f"ended a {orphan.name} server that an earlier run left behind (process {orphan.pid})")
    done: Counter[str] = Counter()
    for hardware in {item.artifact.hardware.device: item.artifact.hardware for item, _ in todo}.values():
        rounds = [(item, record) for item, record in todo if item.artifact.hardware.device == hardware.device]
        with alone(hardware, progress):
            items = _still_pending(plan, rounds, store, progress)
            done += Runner(plan, hardware, store, progress, open_reader, at_once).run(items)
    return Tally(done, len(plan.items) - done.total())


class Runner:
    """The run of a plan's rounds on one device: the untimed ones `at_once` at a time, then each timed one alone."""

    def __init__(
        self,
        plan: Plan,
        hardware: Hardware,
        store: Store,
        progress: Progress,
        open_reader: counters.OpenReader,
        at_once: int,
    ) -> None:
        self._plan, self._hardware, self._store, self._progress = plan, hardware, store, progress
        self._open_reader, self._at_once = open_reader, at_once
        self.builds = Builds(plan, hardware, store, progress)
        self._ceiling: Mapping[str, Any] | None = None  # not looked up yet
        self._has_waited = False
        self._done: Counter[str] = Counter()

    def run(self, items: Sequence[PlannedRound]) -> Counter[str]:
        """Run the rounds, each to a record in the store; how many there are of each status by now."""
        self._store.put_machine(self._hardware)
        for item in items:
            if item.reason:
                label = self._label(item)
                self._progress.start_round(label)
                self._end(item, self._skeleton(item), Answer())
        supported = [item for item in items if not item.reason]
        scored = [self._stage(item) for item in supported if item.mode == "score"]
        stages.run_all([*scored, *self.builds.stages(supported)], self._at_once, self._progress)
        timed = [item for item in supported if item.mode != "score"]
        self._prepare(timed)
        for item in timed:
            self._progress.start_round(self._label(item))
            self._end(item, *self._round(item, self._progress.doing))
        return self._done

    def _prepare(self, timed: Sequence[PlannedRound]) -> None:
        """Wait for an idle device, and measure its ceilings, before the first round that is timed."""
        if timed and not self._has_waited:
            self._has_waited = True
            self._progress.doing(f"waiting for the device to be idle, {self._plan.suite.settle_s:g} s at most")
            guard.wait_until_idle(self._hardware.device, self._plan.suite.settle_s)
        if self._ceiling is None and any(item.is_timed for item in timed):
            if ceilings.find(self._hardware, self._store) is None:
                self._progress.doing(f"the ceilings of {self._hardware.name}")
            measured = ceilings.ensure(self._hardware, self._store, self._progress.warn)
            self._ceiling = ceilings.facts(self._hardware, measured)

    def _stage(self, item: PlannedRound) -> Stage:
        """An untimed round as a stage."""

        def run(report: Report, is_alone: Callable[[], bool]) -> tuple[Result, Answer, float]:
            began = time.monotonic()
            result, answer = self._round(item, report)
            if supervisor.lacked_memory(result.reason) and not is_alone():
                raise stages.TooLittleMemoryError
            return result, answer, time.monotonic() - began

        return Stage(
            ("round", item.cell.title, item.round),
            run,
            lambda ended: self._end(item, *ended),
            self.builds.after(item),
            self._label(item),
            self.builds.needs_bytes,
            bool(self._hardware.gpus),
        )

    def _end(self, item: PlannedRound, result: Result, answer: Answer, seconds: float | None = None) -> None:
        self._store.put(result, answer.traces, answer.items)
        self._progress.end_round(self._label(item), result, seconds)
        self._done[result.status] += 1

    def _label(self, item: PlannedRound) -> RoundLabel:
        return label(self._plan, item, self._at_once)

    def _skeleton(self, item: PlannedRound) -> Result:
        record = records.skeleton(self._plan, item, records.public_cell(item.cell))
        return replace(record, started=records.now())

    def _round(self, item: PlannedRound, report: Report) -> tuple[Result, Answer]:
        """Run one round in a fresh process; its record, of a failure too, and the answer with traces and items."""
        answer, record = Answer(), self._skeleton(item)
        began = time.monotonic()
        try:
            built, task_input = self.builds.artifact(item), self.builds.task_input(item)
            readiness = guard.inspect(item.cell.device)
            planned = item.artifact
            marks = {
                sanity.BUSY: not readiness.idle,
                sanity.DUMMY: planned.resolved.dummy,
                sanity.OTHER_MODEL: bool(planned.other_model),
                sanity.OTHER_TOKENS: bool(planned.other_tokenizer),
            }
            different = {"other_model": planned.other_model, "other_tokenizer": planned.other_tokenizer}
            env = environment.ensure(item.env, report)
            shape = metrics.roofline_facts(built.folder, (self._ceiling or {}) if item.is_timed else {})
            record = replace(
                record,
                artifact=records.public_artifact(built.artifact),
                environment=env.versions,
                facts={**readiness.facts, **shape, **{name: how for name, how in different.items() if how}},
                marks=tuple(mark for mark, applies in marks.items() if applies),
            )
            if draft := self.builds.draft(item):
                item = replace(item, cell=speculation.located(item.cell, draft.folder))
            outcome = self._outcome(item, built, task_input, env, report)
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
            status: Status = "unsupported" if isinstance(error, UnsupportedError) else "failed"
            return replace(record, status=status, reason=reason, duration_s=duration_s), answer

    def _measured(self, item: PlannedRound, record: Result, answer: Answer) -> Result:
        """The record with its metrics; failed where these contradict each other."""
        facts = {**record.facts, **metrics.part_facts(record.facts, item.task)}
        facts |= metrics.category_facts(answer.traces, facts)
        record = replace(record, facts=facts, metrics=metrics.metrics(record, answer.traces, item.task))
        bits = None if formats.holds_floats(item.artifact.format) else self._original_bits
        if not (faults := sanity.check(record, answer.traces, bits)):
            return record
        finite = {k: v for k, v in record.metrics.items() if math.isfinite(v)}  # JSON has no NaN
        reason = f"refused as impossible: {'; '.join(faults)}"
        return replace(record, status="failed", reason=reason, metrics=finite)

    def _outcome(
        self,
        item: PlannedRound,
        built: BuiltArtifact,
        task_input: Path | None,
        env: environment.Environment,
        report: Report,
    ) -> supervisor.Outcome:
        """The outcome of a worker or of a server under load, with the replies to a task's requests scored."""
        suite = self._plan.suite
        if isinstance(load := item.cell.workload, Online):
            return online.run(item, load, built, env, suite, report=report, open_reader=self._open_reader)
        run = served.run if item.mode == "served" else offline.run
        outcome = run(item, built, task_input, env, suite, report=report, open_reader=self._open_reader)
        if task_input is None or not isinstance(item.task_input, Requests) or outcome.answer.error:
            return outcome
        scored = task_inputs.score_replies(item.task_input, task_input, outcome.answer, suite, report)
        return replace(outcome, answer=scored)

    @cached_property
    def _original_bits(self) -> float | None:
        """None where the model is quantized itself: a recipe may end at its width."""
        audit = formats.audit(self._plan.resolved.local_folder, None)
        return None if audit.quantized_fraction else audit.bits_per_weight


def label(plan: Plan, item: PlannedRound, at_once: int) -> RoundLabel:
    """The round as progress shows it; `at_once`: how many untimed ones run at a time."""
    cell = item.cell
    rounds = plan.suite.task_rounds if cell.task else plan.suite.rounds
    keys = () if item.reason else _similarity_keys(cell)
    return RoundLabel(cell.title, cell.device, item.round + 1, rounds, keys, at_once if item.mode == "score" else 1)


def _similarity_keys(cell: Cell) -> SimilarityKeys:
    """The rounds whose time a round's is like: its cell's, its engine's under this load, any engine's, the device's."""
    device, load = cell.device, cell.measurement
    return (f"{device} {cell.title}", f"{device} {cell.engine.title}/{load}", f"{device} {load}", device)


@contextmanager
def alone(hardware: Hardware, progress: Progress) -> Iterator[None]:
    """Hold the device's lock: two runs never measure at once. The kernel frees that of a process that died.

    Machines that share a cache have a lock each: their devices are not the same.
    """
    index = nvml.cuda_id(hardware.device)  # the same whatever the suite or CUDA_VISIBLE_DEVICES calls it
    device = "cpu" if index is None else f"gpu-{index}"
    machine = bound.machine().partition("/")[0][:8] or "here"
    lock = FileLock(paths.cache_folder("locks") / f"{slug_of(hardware.name)}-{device}-{machine}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        hours = f"{_DEVICE_LIMIT_S / 3600:g} h"
        progress.warn(f"another run is measuring on {hardware.name}; waiting for it to end (Ctrl-C to give up)")
        progress.doing(f"waiting for the other run to end, {hours} at most")
        try:
            lock.acquire(timeout=_DEVICE_LIMIT_S)
        except Timeout:
            still = f"another run is still measuring on {hardware.name} after {hours}"
            raise UserError(f"{still}: end it, or run this again later") from None
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
        is_left = record == earlier or records.is_pending(item.digest, record, retry_failed=False)
        (pending if is_left else others).append(item)
    if others:
        progress.recorded([label(plan, item, 1) for item in others])
        progress.line(f"{len(others)} rounds were recorded by another run in the meantime")
    return pending
