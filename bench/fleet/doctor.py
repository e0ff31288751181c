"""`bench doctor --on ray`: what each node of a cluster has, and what keeps it from taking part in a run."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from bench.contract import wire
from bench.fleet import cluster
from bench.fleet.cluster import Node, NodeReport

_TRIES = 3
_LEAST_FREE_BYTES = 10 * 2**30  # an engine's environment is some GiB, and its models are as many
_SKEW_LIMIT_S = 1.0


@dataclass(frozen=True)
class Checkup:
    """A node's report, or the reason why there is none; `skew_s`: how far its clock is ahead, give or take `within_s`.

    `problems`: what to mend, a clause each.
    """

    node: Node
    report: NodeReport | None
    reason: str = ""
    skew_s: float = 0.0
    within_s: float = 0.0
    problems: tuple[str, ...] = ()


def check(library: ModuleType) -> list[Checkup]:
    """Every node of the cluster that `library` is connected to, in the order of their names."""
    reports = cluster.ask(library, cluster.nodes(library))
    return [_checkup(library, node, report) for node, report in reports.items()]


def lines(checkups: Sequence[Checkup]) -> Iterator[str]:
    """A block of lines for each node, problems named, and the sum of it."""
    for each in checkups:
        head = f"node {each.node.name}"
        if each.report is None:
            yield f"{head:<24} cannot take part: {each.reason}"
            continue
        for subject, text in _findings(each, each.report):
            yield f"{head:<24} {subject:<12} {text}"
        for problem in each.problems:
            yield f"{head:<24} {'problem':<12} {problem}"
    kinds = sorted({device.slug for each in checkups if each.report for device in each.report.devices})
    able = sum(each.report is not None for each in checkups)
    yield f"{len(checkups)} nodes, {able} that can take part; devices: {', '.join(kinds) or 'none'}"


def as_json(checkups: Sequence[Checkup]) -> list[dict[str, Any]]:
    """The same as JSON, an object for each node."""
    return [wire.plain(each) for each in checkups]


def clock() -> float:
    """Seconds since 1970 on the node that runs it."""
    return time.time()


def _checkup(library: ModuleType, node: Node, report: NodeReport | str) -> Checkup:
    if isinstance(report, str):
        return Checkup(node, None, report)
    skew_s, within_s = _skew(library, node)
    problems = []
    if differing := cluster.differences(cluster.versions(), report.versions):
        problems.append(f"it has {differing}: a run refuses it")
    if abs(skew_s) > max(_SKEW_LIMIT_S, within_s):
        problems.append(f"its clock is {skew_s:+.1f} s from this machine's: records have wrong times; use NTP")
    if report.free_bytes < _LEAST_FREE_BYTES:
        problems.append(f"its cache has {report.free_bytes / 2**30:.1f} GiB left; LLM_BENCH_CACHE moves it")
    if not node.gpus and len(report.devices) > 1:
        problems.append("Ray lends none of its GPUs: start it with `ray start --num-gpus N`")
    return Checkup(node, report, "", skew_s, within_s, tuple(problems))


def _skew(library: ModuleType, node: Node) -> tuple[float, float]:
    """(seconds, at most so wrong) by the quickest of some round trips: half of it is the uncertainty."""
    task = library.remote(num_cpus=0)(clock).options(scheduling_strategy=cluster.on(library, node.id))
    trips = []
    for _ in range(_TRIES):
        sent = time.time()
        there = library.get(task.remote())
        back = time.time()
        trips.append((back - sent, there - (sent + back) / 2))
    trip_s, skew_s = min(trips)
    return skew_s, trip_s / 2


def _findings(each: Checkup, report: NodeReport) -> Iterator[tuple[str, str]]:
    for device in report.devices:
        yield "device", f"{device.name} ({device.device}), results go to results/{device.slug}"
    yield "versions", ", ".join(f"{name} {version}" for name, version in report.versions.items())
    ready = [env.name for env in report.environments if env.state == "ready"]
    yield "environments", f"ready: {', '.join(ready) or 'none'}; a run builds others when it needs them"
    for env in report.environments:
        if env.state == "unusable":
            yield "environments", f"{env.name} is unusable: {env.reason}"
    yield "cache", f"{report.cache}, {report.free_bytes / 2**30:.0f} GiB free"
    yield "clock", f"{each.skew_s * 1e3:+.0f} ms from this machine's, within {each.within_s * 1e3:.0f} ms"
