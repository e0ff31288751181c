"""One device of a node: a Ray actor that plans as its machine does, and does one thing after another."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from bench import paths
from bench.contract.errors import CellError
from bench.contract.record import Hardware
from bench.contract.spec import Suite
from bench.fleet import transfer
from bench.fleet.place import Key
from bench.fleet.transfer import ARTIFACTS, REFERENCES, REQUESTS, CacheFolder
from bench.fleet.work import Ended, KindPlan, PlannedBuild, RoundToRun
from bench.machine import counters, hardware
from bench.process import scratch, server
from bench.progress.progress import Progress
from bench.run import artifacts, builds, plan, records, runner
from bench.run.planned import Plan, PlannedArtifact, PlannedRound, Reference, Requests
from bench.store import Store

Sources = Mapping[CacheFolder, Sequence[str]]  # the nodes that have a folder of the cache, by Ray's ids
_LOG_BYTES = 1 << 20
_FAILED = b'"status": "failed"'
_Buildable = dict[Key, tuple[PlannedBuild, PlannedArtifact | Reference | Requests]]


class Device:
    """The device called `name` on this node, and the plan of a suite on it."""

    def __init__(self, name: str, suite: Suite, only: str, engine: str) -> None:
        self._hardware = hardware.detect(name)
        self._filters = suite, only, engine
        self._progress = Progress(quiet=True)
        self._scratch = contextlib.ExitStack()  # cleared by the next process that works here, if this one is killed
        self._store = Store(self._scratch.enter_context(scratch.folder()) / "records")
        self._plan: Plan | None = None
        self._runner: runner.Runner | None = None
        server.end_orphans()

    def hardware(self) -> Hardware:
        return self._hardware

    def plan(self) -> KindPlan:
        """The plan of the suite on this kind of device."""
        planned = self._planned()
        rounds = [_round(planned, number) for number in range(len(planned.items))]
        return KindPlan(self._hardware, tuple(rounds), tuple(its for its, _ in _buildable(planned).values()))

    def present(self, folders: Sequence[CacheFolder]) -> list[CacheFolder]:
        """Those of the folders that are on this node."""
        return transfer.present(folders)

    def run(self, number: int, digest: str, sources: Sources) -> Ended:
        """Run one round of the plan, whose digest has to be this one; `sources` are what it needs of the cache."""
        item = self._planned().items[number]
        if item.digest != digest:
            return Ended(differs=f"{item.cell.title} has another digest there: an environment or a file differs")

        def run() -> None:
            self._running().run([item])

        return self._do(run, sources, ())

    def build(self, key: Key, sources: Sources) -> Ended:
        """Build an artifact or a task's input; `sources` as in `run`."""
        its = _buildable(self._planned())
        if key not in its:
            return Ended(differs=f"{'/'.join(key)} is not in its plan: an environment or a file differs")
        planned, wanted = its[key]
        return self._do(lambda: self._running().builds.build(wanted), sources, planned.folders)

    def _do(self, work: Callable[[], None], sources: Sources, leaves: Sequence[CacheFolder]) -> Ended:
        began_s, reason = time.time(), ""
        with runner.alone(self._hardware, self._progress):
            for folder, holders in sources.items():
                transfer.fetch(folder, holders, self._progress.doing)
            try:
                work()
            except CellError as error:
                reason = str(error)
        self._progress.doing("")
        files = self._collected()
        has_failed = bool(reason) or any(_FAILED in data for data in files.values())
        return Ended(
            files,
            reason,
            folders=tuple(transfer.present([*sources, *leaves])),
            logs=_logs(began_s) if has_failed else {},
        )

    def _planned(self) -> Plan:
        if self._plan is None:
            suite, only, engine = self._filters
            suite = replace(suite, devices=(self._hardware.device,))
            report = self._progress.doing
            self._plan = plan.plan(suite, fetch=True, only=only, engine=engine, report=report)
        return self._plan

    def _running(self) -> runner.Runner:
        if self._runner is None:
            planned = self._planned()
            labels = [runner.label(planned, item, 1) for item in planned.items]
            self._progress.begin(labels, 0, ())
            self._runner = runner.Runner(planned, self._hardware, self._store, self._progress, counters.reader, 1)
        return self._runner

    def _collected(self) -> dict[str, bytes]:
        """The files of the store, which is empty then."""
        files = sorted(file for file in self._store.root.rglob("*") if file.is_file())
        contents = {str(file.relative_to(self._store.root)): file.read_bytes() for file in files}
        for file in files:
            file.unlink()
        return contents


def _buildable(planned: Plan) -> _Buildable:
    """What the plan's rounds need beforehand, each with what it is to this machine."""
    wanted: _Buildable = {}
    for artifact in planned.artifacts:
        if artifact.steps and not artifact.reason:
            chain = artifacts.digests(artifact.resolved.identity, artifact.steps)
            folders = tuple(CacheFolder(ARTIFACTS, digest) for digest in chain)
            key = _artifact_key(artifact)
            wanted[key] = PlannedBuild(key, artifact.recipe.name, folders), artifact
    for item in planned.items:
        if (its := item.task_input) is not None and not item.reason:
            key = _input_key(its)
            needs = (_artifact_key(its.artifact),) if isinstance(its, Reference) and its.artifact.steps else ()
            wanted[key] = PlannedBuild(key, its.task.title, (CacheFolder(*key),), needs, builds.blame(its)), its
    return wanted


def _round(planned: Plan, number: int) -> RoundToRun:
    item = planned.items[number]
    return RoundToRun(
        number,
        records.skeleton(planned, item, records.public_cell(item.cell)),
        item.cell,
        runner.label(planned, item, 1),
        item.mode != "score",
        () if item.reason else _needs(item),
    )


def _needs(item: PlannedRound) -> tuple[Key, ...]:
    artifacts_of = [artifact for artifact in (item.artifact, item.draft) if artifact is not None and artifact.steps]
    inputs = [_input_key(item.task_input)] if item.task_input is not None else []
    return (*map(_artifact_key, artifacts_of), *inputs)


def _artifact_key(artifact: PlannedArtifact) -> Key:
    return (ARTIFACTS, artifact.digest)


def _input_key(its: Reference | Requests) -> Key:
    return (REFERENCES if isinstance(its, Reference) else REQUESTS, its.digest)


def _logs(since_s: float) -> dict[str, bytes]:
    """The ends of the logs that were written since then, by their names."""
    logs: dict[str, bytes] = {}
    for file in sorted((paths.cache() / "logs").glob("last-*.log")):
        with contextlib.suppress(OSError):
            if file.stat().st_mtime >= since_s - 1.0:
                logs[file.stem.removeprefix("last-")] = file.read_bytes()[-_LOG_BYTES:]
    return logs
