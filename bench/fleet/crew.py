"""The devices of a run: those that were there at its start, those that join, those that are lost; and who times."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from bench import paths
from bench.contract import wire
from bench.contract.errors import UserError
from bench.contract.record import Hardware
from bench.contract.spec import Suite
from bench.fleet import cluster
from bench.fleet.cluster import Node, NodeReport
from bench.fleet.device import Device
from bench.fleet.place import Place
from bench.progress.progress import Progress

_START_LIMIT_S = 600.0  # a node may have to start Python on a busy machine


@dataclass(eq=False)
class Member:
    """One device of a node, and the actor that runs it. `name` is its own on its node: cpu, or the GPU's number."""

    node: Node
    name: str
    actor: Any
    hardware: Hardware

    @property
    def kind(self) -> str:
        return self.hardware.slug

    @property
    def title(self) -> str:
        """For a person."""
        return self.node.name if self.name == "cpu" else f"{self.node.name} {self.name}"


@dataclass(eq=False)
class _Starting:
    node: Node
    name: str
    actor: Any
    ref: Any
    began: float = field(default_factory=time.monotonic)


class Crew:
    """The members that are there. What a node that joins late lacks is a warning, and no end of the run."""

    def __init__(self, library: ModuleType, suite: Suite, filters: tuple[str, str], progress: Progress) -> None:
        self._library, self._suite, self._filters, self._progress = library, suite, filters, progress
        self.members: list[Member] = []
        self.kinds: frozenset[str] = frozenset()
        self._known: dict[str, Node] = {}  # nodes that were asked, by id
        self._asked: dict[Node, Any] = {}
        self._starting: list[_Starting] = []
        self._homes = _Homes()

    def survey(self) -> Mapping[Node, NodeReport]:
        """What the nodes there now say of themselves; UserError where one of them cannot take part."""
        there = cluster.nodes(self._library)
        if not there:
            raise UserError("the cluster has no node with a CPU or GPU to lend: start one with `ray start`")
        reports: dict[Node, NodeReport] = {}
        answers = cluster.ask(self._library, there)
        alive = {node.id for node in cluster.nodes(self._library)}
        for node, report in answers.items():
            if isinstance(report, str) and node.id not in alive:
                continue  # it died as it was asked
            if isinstance(report, str):
                raise UserError(f"node {node.name} cannot take part: {report}")
            if differing := cluster.differences(cluster.versions(), report.versions):
                raise UserError(
                    f"node {node.name} has {differing}: install the same versions on both, as records depend on them"
                )
            reports[node] = report
        self.kinds = frozenset(
            slug for node, report in reports.items() for _, slug in _devices(self._suite, node, report)
        )
        if not self.kinds:
            raise UserError(f"no node has a device of {', '.join(self._suite.devices)}: see `bench doctor --on ray`")
        return reports

    def start(self, reports: Mapping[Node, NodeReport]) -> None:
        """Start the devices of these nodes, and wait for them."""
        for node, report in reports.items():
            self._known[node.id] = node
            self._start(node, report)
        while self._starting:
            self._progress.doing(f"starting devices: {len(self._starting)} to come")
            self._look_at_starting(wait_s=1.0)
        if lacking := self.kinds - {member.kind for member in self.members}:
            raise UserError(f"no device of {', '.join(sorted(lacking))} could be started: see the warnings above")

    def look(self) -> None:
        """Take in nodes that have joined, and start devices again whose process has ended on a node that lives."""
        alive = {node.id: node for node in cluster.nodes(self._library)}
        for node in alive.values():
            if node.id not in self._known:
                self._known[node.id] = node
                task = self._library.remote(num_cpus=0, max_retries=0)(cluster.tell)
                self._asked[node] = task.options(scheduling_strategy=cluster.on(self._library, node.id)).remote()
        for member in [member for member in self.members if member.node.id not in alive]:
            self.lose(member, "its node is gone")
        self._starting = [one for one in self._starting if one.node.id in alive]
        for node, ref in list(self._asked.items()):
            if self._library.wait([ref], timeout=0)[0]:
                del self._asked[node]
                self._join(node, ref)
        self._look_at_starting(wait_s=0)

    def lose(self, member: Member, reason: str) -> None:
        """A device is no longer there."""
        if member in self.members:
            self.members.remove(member)
            self._progress.warn(f"lost {member.title} ({member.kind}): {reason}")

    def restart(self, member: Member) -> None:
        """The process of a device has ended: another takes its place, if its node is there."""
        if member in self.members:
            self.members.remove(member)
            if any(node.id == member.node.id for node in cluster.nodes(self._library)):
                self._launch(member.node, member.name)

    @property
    def is_growing(self) -> bool:
        """Whether a device is being started, or a node asked."""
        return bool(self._starting or self._asked)

    def places(self) -> dict[Place, Member]:
        """Each member's place; one of each kind is its home, the same as in the run before where it is here."""
        homes = {kind: self.home(kind) for kind in self.kinds}
        return {Place(f"{m.node.id}/{m.name}", m.node.id, m.kind, is_home=homes[m.kind] is m): m for m in self.members}

    def home(self, kind: str) -> Member | None:
        """The member that times; None where there is none of the kind, or its process is being started again."""
        candidates = [member for member in self.members if member.kind == kind]
        starting = [(one.node, one.name) for one in self._starting]
        return self._homes.of(kind, candidates, starting, self._progress.line) if candidates else None

    def _join(self, node: Node, ref: Any) -> None:
        try:
            report: NodeReport = self._library.get(ref)
        except self._library.exceptions.RayError as error:
            self._progress.warn(f"node {node.name} joined and is left out: {cluster.cause_of(error)}")
            return
        if differing := cluster.differences(cluster.versions(), report.versions):
            self._progress.warn(f"node {node.name} joined and is left out: it has {differing}")
            return
        self._progress.line(f"node {node.name} joined")
        self._start(node, report)

    def _start(self, node: Node, report: NodeReport) -> None:
        for name, slug in _devices(self._suite, node, report):
            if slug in self.kinds:
                self._launch(node, name)
            else:
                self._progress.warn(
                    f"node {node.name} has a {slug}, which this run began without: run it again for that"
                )

    def _launch(self, node: Node, name: str) -> None:
        """A GPU is the one that Ray lends, which it then sees alone."""
        lent: dict[str, Any] = {"num_cpus": 1} if name == "cpu" else {"num_cpus": 0, "num_gpus": 1}
        options = {**lent, "max_restarts": 0, "scheduling_strategy": cluster.on(self._library, node.id)}
        own = "cpu" if name == "cpu" else "cuda:0"
        actor = self._library.remote(Device).options(**options).remote(own, self._suite, *self._filters)
        self._starting.append(_Starting(node, name, actor, actor.hardware.remote()))

    def _look_at_starting(self, wait_s: float) -> None:
        if not self._starting:
            return
        refs = [starting.ref for starting in self._starting]
        ready = self._library.wait(refs, num_returns=1, timeout=wait_s)[0]
        for starting in list(self._starting):
            if starting.ref in ready:
                self._starting.remove(starting)
                self._started(starting)
            elif time.monotonic() - starting.began > _START_LIMIT_S:
                self._starting.remove(starting)
                self._progress.warn(
                    f"{starting.name} of node {starting.node.name} is left out: Ray did not lend it within "
                    f"{_START_LIMIT_S / 60:g} min; another job may have it (`ray status`)"
                )

    def _started(self, starting: _Starting) -> None:
        try:
            its: Hardware = self._library.get(starting.ref)
        except self._library.exceptions.RayError as error:
            self._progress.warn(f"{starting.name} of node {starting.node.name} is left out: {cluster.cause_of(error)}")
            return
        self.members.append(Member(starting.node, starting.name, starting.actor, its))


def _devices(suite: Suite, node: Node, report: NodeReport) -> Iterator[tuple[str, str]]:
    """The names and kinds of the node's devices that the suite is for; GPUs by their number, as Ray lends any."""
    cpu, *gpus = report.devices
    gpus = gpus[: node.gpus]
    wanted: dict[str, str] = {}
    for name in suite.devices:
        if name.startswith("cuda:"):
            raise UserError(f"device {name} is one of a single machine's: for a cluster say auto, cuda or cpu")
        if name == "cpu" or (name in ("auto", "all") and not gpus):
            wanted["cpu"] = cpu.slug
        elif name in ("auto", "all", "cuda"):
            wanted |= {f"GPU {number}": gpu.slug for number, gpu in enumerate(gpus)}
        else:
            raise UserError(f"unknown device '{name}': expected auto, all, cpu or cuda")
    yield from wanted.items()


class _Homes:
    """Which device times, by kind: remembered over runs, so that rounds of a later one compare with the earlier."""

    def __init__(self) -> None:
        self._file = paths.cache_folder("fleet") / "homes.json"
        self._now: dict[str, Member] = {}

    def of(
        self, kind: str, candidates: list[Member], starting: list[tuple[Node, str]], tell: Callable[[str], None]
    ) -> Member | None:
        if (now := self._now.get(kind)) in candidates:
            return now
        if now is not None and (now.node, now.name) in starting:
            return None
        remembered = self._remembered().get(kind)
        home = next((m for m in candidates if now and (m.node, m.name) == (now.node, now.name)), None)
        home = home or next((m for m in candidates if [m.node.name, m.name] == remembered), None)
        home = home or min(candidates, key=lambda m: (m.node.name, m.node.id, m.name))
        if remembered and [home.node.name, home.name] != remembered:
            tell(f"{kind} is timed on {home.title} from now on: {' '.join(remembered)} is not here")
        self._now[kind] = home
        wire.write(self._file, wire.dumps({**self._remembered(), kind: [home.node.name, home.name]}))
        return home

    def _remembered(self) -> dict[str, list[str]]:
        with contextlib.suppress(OSError, ValueError):
            return dict(json.loads(self._file.read_text()))
        return {}
