"""A run on a cluster: what its nodes have, what goes where, and the records that come back."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

from bench.contract.cycles import no_gc
from bench.contract.errors import UserError
from bench.contract.record import Result
from bench.contract.spec import Cell, Suite
from bench.fleet import cluster, locks, portable, returned
from bench.fleet.crew import Crew, Member
from bench.fleet.place import Board, Key, Work
from bench.fleet.transfer import CacheFolder
from bench.fleet.work import Ended, KindPlan, PlannedBuild, RoundToRun
from bench.progress.eta import EtaEstimator
from bench.progress.progress import Progress
from bench.run import records
from bench.store import Store

_POLL_S, _JOIN_S, _GRACE_S = 1.0, 3.0, 20.0
_ATTEMPTS = 3  # of work whose process ends without a word


@dataclass(frozen=True)
class Outcome:
    """Rounds run by status, those recorded before, and what the table is made of."""

    done: Counter[str]
    recorded: int
    slugs: tuple[str, ...]
    cells: tuple[Cell, ...]
    results: tuple[Result, ...]


def run(
    library: ModuleType,
    suite: Suite,
    store: Store,
    progress: Progress,
    *,
    only: str = "",
    engine: str = "",
    retry_failed: bool = False,
) -> Outcome:
    """Run everything that is pending on the devices of the cluster that `library` is connected to."""
    suite = portable.suite(suite)
    crew = Crew(library, suite, (only, engine), progress)
    progress.doing("asking the nodes what they have")
    reports = crew.survey()
    with locks.locked(library, sorted(crew.kinds), progress.doing):
        crew.start(reports)
        return _Run(library, crew, store, progress, retry_failed=retry_failed).run()


@dataclass(eq=False)
class _Running:
    """Work on a member: its result to come, since when, and its line on the screen."""

    work: Work
    ref: Any
    screen: ExitStack
    began: float


class _Run:
    """One run: the plan of each kind, the board of what is left, and the loop that empties it."""

    def __init__(
        self, library: ModuleType, crew: Crew, store: Store, progress: Progress, *, retry_failed: bool
    ) -> None:
        self._library, self._crew, self._store, self._progress = library, crew, store, progress
        self._retry_failed = retry_failed
        self._rounds: dict[Key, RoundToRun] = {}
        self._builds: dict[Key, PlannedBuild] = {}
        self._holders: dict[CacheFolder, list[str]] = {}
        self._running: dict[Member, _Running] = {}
        self._attempts: Counter[Key] = Counter()
        self._reasons: dict[Key, str] = {}
        self._done: Counter[str] = Counter()
        self._looked = self._idle_since = time.monotonic()

    def run(self) -> Outcome:
        plans = self._plans()
        with no_gc():
            pending, recorded = self._pending(plans)
            self._board = Board(self._works(plans, pending))
        self._find_holders()
        try:
            while not self._board.is_done:
                self._step()
        finally:
            for running in self._running.values():
                running.screen.close()
        every = [its for plan in plans for its in plan.rounds]
        stored = self._store.find_all(its.skeleton for its in every)
        current = [r for its, r in zip(every, stored, strict=True) if r is not None and r.digest == its.skeleton.digest]
        cells = tuple(its.cell for its in every if its.skeleton.round == 0)
        slugs = tuple(plan.hardware.slug for plan in plans)
        return Outcome(self._done, recorded, slugs, cells, tuple(current))

    def _plans(self) -> list[KindPlan]:
        """The plan of each kind, by the device that times; UserError where the suite cannot be planned there."""
        homes = [home for kind in sorted(self._crew.kinds) if (home := self._crew.home(kind)) is not None]
        self._progress.doing(f"planning on {', '.join(home.title for home in homes)}")
        refs = [home.actor.plan.remote() for home in homes]
        plans = []
        for home, ref in zip(homes, refs, strict=True):
            try:
                plans.append(self._library.get(ref))
            except self._library.exceptions.RayError as error:
                raise UserError(f"node {home.title}: {cluster.cause_of(error)}") from None
            self._store.put_machine(home.hardware)
        return plans

    def _pending(self, plans: Sequence[KindPlan]) -> tuple[list[tuple[KindPlan, RoundToRun]], int]:
        """The rounds to run, after those that cannot run have their records; how many are recorded already."""
        every = [(plan, _labelled(plan, its, self._crew)) for plan in plans for its in plan.rounds]
        estimator = EtaEstimator()
        pending, timed = [], []
        stored = self._store.find_all(its.skeleton for _, its in every)
        for (plan, its), record in zip(every, stored, strict=True):
            if records.is_pending(its.skeleton.digest, record, retry_failed=self._retry_failed):
                pending.append((plan, its))
            if record is not None and record.status == "ok":
                timed.append((its.label.similarity_keys, record.duration_s))
                estimator.add_recorded(*timed[-1])
        self._estimator = estimator
        recorded = len(every) - len(pending)
        self._progress.begin([its.label for _, its in pending], recorded, timed)
        for _, its in pending:
            if its.skeleton.reason:
                self._record(its, replace(its.skeleton, started=records.now()), 0.0)
        return [(plan, its) for plan, its in pending if not its.skeleton.reason], recorded

    def _works(self, plans: Sequence[KindPlan], pending: Sequence[tuple[KindPlan, RoundToRun]]) -> list[Work]:
        """What is to be done: builds that pending rounds need, each once for all kinds, and the rounds."""
        kinds: dict[Key, set[str]] = {}
        for plan in plans:
            for build in plan.builds:
                self._builds.setdefault(build.key, build)
                kinds.setdefault(build.key, set()).add(plan.hardware.slug)
        needed: dict[Key, None] = {}
        ahead = [key for _, its in pending for key in its.needs]
        while ahead:
            if (key := ahead.pop()) not in needed:
                needed[key] = None
                ahead += self._builds[key].needs
        works, first = [], dict[CacheFolder, Key]()
        for key, build in self._builds.items():  # in the suite's order: of those that share steps one comes first
            if key in needed:
                after = {first.setdefault(folder, key) for folder in build.folders} - {key}
                works.append(
                    Work(key, frozenset(kinds[key]), is_build=True, needs=build.needs, after=tuple(sorted(after)))
                )
        for plan, its in pending:
            round_key = ("round", plan.hardware.slug, str(its.number))
            self._rounds[round_key] = its
            expected_s = self._estimator.expected_s(its.label.similarity_keys) or 1.0
            kind = frozenset({plan.hardware.slug})
            works.append(Work(round_key, kind, its.is_timed, expected_s=expected_s, needs=its.needs))
        return works

    def _find_holders(self) -> None:
        """Which nodes have what is to be built already: that is not built again."""
        folders = sorted({folder for build in self._builds.values() for folder in build.folders}, key=str)
        if self._board.is_done or not folders:
            return
        by_node = {member.node.id: member for member in self._crew.members}
        refs = {node: member.actor.present.remote(folders) for node, member in by_node.items()}
        for node, ref in refs.items():
            try:
                self._hold(node, self._library.get(ref))
            except self._library.exceptions.RayError:
                continue  # the loop meets it again
        for key, build in self._builds.items():
            if build.folders[-1] in self._holders:
                self._board.end(key)

    def _hold(self, node: str, folders: Sequence[CacheFolder]) -> None:
        for folder in folders:
            holders = self._holders.setdefault(folder, [])
            if node not in holders:
                holders.append(node)

    def _step(self) -> None:
        """Look who is there, give work to who is idle, and take what has ended."""
        now = time.monotonic()
        if now - self._looked > _JOIN_S or not self._running:
            self._looked = now
            self._crew.look()
        for member in [member for member in self._running if member not in self._crew.members]:
            self._take_back(member)
        places = self._crew.places()
        self._board.set_places(places)
        for place, member in places.items():
            if member not in self._running and (work := self._board.take(place)) is not None:
                self._give(member, work)
        if self._running:
            self._idle_since = time.monotonic()
            by_ref = {running.ref: member for member, running in self._running.items()}
            for ref in self._library.wait(list(by_ref), num_returns=1, timeout=_POLL_S)[0]:
                self._end(by_ref[ref])
        elif self._board.is_done:
            return
        elif not self._crew.is_growing and now - self._idle_since > _GRACE_S:
            raise UserError(self._stranded())
        else:
            self._progress.doing("waiting for a device that can go on")
            time.sleep(_POLL_S)

    def _give(self, member: Member, work: Work) -> None:
        sources = self._sources(work, member)
        if its := self._rounds.get(work.key):
            ref = member.actor.run.remote(its.number, its.skeleton.digest, sources)
        else:
            ref = member.actor.build.remote(work.key, sources)
        screen = ExitStack()
        show = screen.enter_context(self._progress.activity(its.label if its else None))
        show(f"on {member.title}" if its else f"building {self._builds[work.key].title} on {member.title}")
        self._running[member] = _Running(work, ref, screen, time.monotonic())

    def _sources(self, work: Work, member: Member) -> dict[CacheFolder, list[str]]:
        """What the work needs of the cache and another node has; a node that times now is asked last."""
        timing = {m.node.id for m, running in self._running.items() if running.work.is_timed}
        wanted: list[CacheFolder] = list(self._builds[work.key].folders) if work.key in self._builds else []
        ahead = list(work.needs)
        while ahead:
            build = self._builds[ahead.pop()]
            wanted.append(build.folders[-1])
            ahead += build.needs
        alive = {m.node.id for m in self._crew.members}
        sources = {}
        for folder in reversed(wanted):
            holders = [node for node in self._holders.get(folder, ()) if node in alive]
            if holders and member.node.id not in holders:
                sources[folder] = sorted(holders, key=lambda node: node in timing)
        return sources

    def _end(self, member: Member) -> None:
        """Take what came back, or put the work back where nothing did."""
        running = self._running.pop(member)
        running.screen.close()
        errors = self._library.exceptions
        try:
            ended: Ended = self._library.get(running.ref)
        except errors.RayTaskError as error:
            self._board.put_back(running.work.key)
            self._crew.lose(member, cluster.cause_of(error))
        except errors.RayError as error:
            self._board.put_back(running.work.key)
            self._died(member, running.work, cluster.cause_of(error))
        else:
            self._take(member, running, ended)

    def _take_back(self, member: Member) -> None:
        running = self._running.pop(member)
        running.screen.close()
        self._board.put_back(running.work.key)

    def _died(self, member: Member, work: Work, reason: str) -> None:
        """The process of a device ended without a word: the work is tried again, but not for ever."""
        self._attempts[work.key] += 1
        self._progress.warn(f"the process on {member.title} ended ({reason}); what it did is placed again")
        self._crew.restart(member)
        if self._attempts[work.key] >= _ATTEMPTS:
            self._fail(work, f"the process that ran it ended {_ATTEMPTS} times, the last time so: {reason}")

    def _take(self, member: Member, running: _Running, ended: Ended) -> None:
        work = running.work
        if ended.differs:
            self._board.put_back(work.key)
            self._crew.lose(member, ended.differs)
            return
        self._hold(member.node.id, ended.folders)
        is_home = self._crew.home(member.kind) is member
        title = self._rounds[work.key].label.title if work.key in self._rounds else self._builds[work.key].title
        for record in returned.put(self._store, ended.files, is_home=is_home):
            self._finish(self._rounds[work.key], record, time.monotonic() - running.began)
        if logs := returned.put_logs(ended.logs, member.node.name, title):
            self._progress.line(f"the logs of {title} on {member.title} are in {logs}")
        if ended.reason:
            self._fail(work, ended.reason)
        else:
            self._board.end(work.key)

    def _fail(self, work: Work, reason: str) -> None:
        """Record that a round failed; of a build, that the rounds did which needed it."""
        self._reasons[work.key] = reason
        if work.key in self._builds:
            self._progress.warn(f"failed: {self._builds[work.key].title}: {reason}")
        for failed in (work, *self._board.fail(work.key)):
            if failed is not work:
                because = next(self._reasons[key] for key in failed.needs if key in self._reasons)
                blame = self._builds[failed.key].blame if failed.key in self._builds else ""
                self._reasons[failed.key] = f"{blame}{because}"
            if its := self._rounds.get(failed.key):
                reason = self._reasons[failed.key]
                record = replace(its.skeleton, status="failed", reason=reason, started=records.now())
                self._record(its, record, 0.0)

    def _record(self, its: RoundToRun, record: Result, seconds: float) -> None:
        self._store.put(record)
        self._finish(its, record, seconds)

    def _finish(self, its: RoundToRun, record: Result, seconds: float) -> None:
        self._done[record.status] += 1
        self._progress.end_round(its.label, record, seconds)

    def _stranded(self) -> str:
        left = self._board.without_place()
        kinds = sorted({kind for work in left for kind in work.kinds})
        return (
            f"no device of {', '.join(kinds)} is left, for which {len(left)} rounds and builds wait: what is finished "
            "is kept; see the warnings, start a node with such a device, and run the same command to go on"
        )


def _labelled(plan: KindPlan, its: RoundToRun, crew: Crew) -> RoundToRun:
    """The round with its kind of device in its label, in place of the name that the device has on its node."""
    slug, device = plan.hardware.slug, its.label.device
    keys = tuple(f"{slug}{key.removeprefix(device)}" for key in its.label.similarity_keys)
    at_once = 1 if its.is_timed else max(1, sum(member.kind == slug for member in crew.members))
    return replace(its, label=replace(its.label, device=slug, similarity_keys=keys, at_once=at_once))
