"""One workload as the loads it is made of: one, or a sweep's or a search's, each chosen by those before."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from typing import Any

from bench.contract.record import RequestTrace
from bench.contract.workload import Workload
from bench.load.job import LoadAnswer
from bench.measure import online_load, slo

_FLAT, _GAIN = 2, 0.05  # a sweep ends after two doublings that each bring less than 5 % over the best
_GENERATIONS = 4  # of requests at each concurrency of a sweep, at the least
_BATCHES = 4  # of requests at one rate of a search before it counts as not kept
_CLOSE, _LOWEST = 1.05, 64  # a search ends at a bracket of 5 %, or at a 64th of its first rate
_TRIES = 24


@dataclass(frozen=True)
class Seen:
    """One load that was applied: what came of it, as metrics and as facts of a record."""

    load: Workload
    answer: LoadAnswer
    traces: tuple[RequestTrace, ...]
    facts: dict[str, Any]
    metrics: dict[str, float]

    @property
    def output(self) -> float:
        return self.metrics.get("output_tok_per_s", 0.0)


Course = Generator[Workload, Seen, dict[str, Any]]
Apply = Callable[[Workload, int], tuple[LoadAnswer, dict[str, Any]]]  # a load and its number


def run(load: Workload, apply: Apply) -> tuple[list[Seen], dict[str, Any]]:
    """Apply every load that the workload comes to.

    What each gave, and the facts of the whole: of one load its own; of several those of the chosen one,
    `chosen` and `stages` beside. A load that did not come to an end is the last.
    """
    seen: list[Seen] = []
    course = _course(load)
    asked = next(course)
    while True:
        seen.append(_seen(asked, load, len(seen), *apply(asked, len(seen))))
        if seen[-1].answer.error:
            return seen, {"chosen": len(seen) - 1, "stages": _stages(seen)} if load.staged else seen[-1].facts
        try:
            asked = course.send(seen[-1])
        except StopIteration as end:
            found: dict[str, Any] = end.value
            break
    if not load.staged:
        return seen, seen[-1].facts
    found.setdefault("chosen", _knee(seen))
    return seen, {**seen[found["chosen"]].facts, **found, "stages": _stages(seen)}


def _knee(seen: list[Seen]) -> int:
    """The first of the loads, by level, whose output comes within 5 % of the highest."""
    best = max(one.output for one in seen)
    return next(k for k, one in enumerate(seen) if one.output * (1 + _GAIN) >= best)


def _seen(asked: Workload, load: Workload, k: int, answer: LoadAnswer, facts: dict[str, Any]) -> Seen:
    warm = [replace(request.trace, window=-1 - k) for request in answer.warmup]
    traces = (*warm, *(replace(request.trace, window=k) for request in answer.measured))
    return Seen(asked, answer, traces, facts, online_load.online_metrics(traces, facts, load.slo.limits))


def _stages(seen: list[Seen]) -> list[dict[str, Any]]:
    """What a record keeps of each load: its level, its metrics, how many of its requests kept each limit."""
    return [
        {
            "level": one.load.concurrency if one.load.kind == "closed" else one.load.rate_per_s,
            "window_s": one.facts.get("window_s", 0.0),
            "client_cpu_fraction": one.facts.get("client_cpu_fraction", 0.0),
            "client_lag_p99_s": one.facts.get("client_lag_p99_s", 0.0),
            "requests": len(one.answer.measured),
            "kept": _counts(one, one.load),
            "metrics": one.metrics,
        }
        for one in seen
    ]


def _counts(one: Seen, load: Workload) -> dict[str, int]:
    return slo.counts([t for t in one.traces if t.window >= 0], load.slo.limits)


def _course(load: Workload) -> Course:
    if load.kind == "sweep":
        return _sweep(load)
    if load.kind == "search":
        return _search(load)
    return _once(load)


def _once(load: Workload) -> Course:
    yield load
    return {}


def _sweep(load: Workload) -> Course:
    """Twice the level each time, until the output tokens per second rise no more."""
    closed = load.over == "concurrency"
    level, best, flat = (float(load.concurrency) if closed else load.rate_per_s), 0.0, 0
    while level <= load.most:
        if closed:
            count = max(load.requests, _GENERATIONS * int(level))
            seen = yield replace(load, kind="closed", concurrency=int(level), requests=count)
        else:
            seen = yield replace(load, kind="open", rate_per_s=level)
        flat = flat + 1 if seen.output < best * (1 + _GAIN) else 0
        best = max(best, seen.output)
        if flat == _FLAT or not seen.output:
            return {"saturated": flat == _FLAT}
        level *= 2
    return {"saturated": False}


def _search(load: Workload) -> Course:
    """Bisection, after the first rate was doubled until it failed, or halved until it held."""
    low = high = 0.0
    rate, chosen, k = load.rate_per_s, -1, 0
    for _ in range(_TRIES):
        holds, k = yield from _judged(replace(load, kind="open", rate_per_s=rate), k)
        if holds:
            low, chosen = rate, k - 1
        else:
            high = rate
        if low and high and high / low <= _CLOSE:
            break
        if not low and rate <= load.rate_per_s / _LOWEST:
            break
        rate = high / 2 if not low else low * 2 if not high else math.sqrt(low * high)
    found: dict[str, Any] = {"confidence": slo.CONFIDENCE, "share": slo.SHARE}
    found |= {"slo_rate_per_s": low, "slo_rate_high_per_s": high}
    return {**found, "chosen": chosen} if chosen >= 0 else found


def _judged(load: Workload, k: int) -> Generator[Workload, Seen, tuple[bool, int]]:
    """Whether a rate was shown to keep every limit, and the number of the next load.

    Batches of requests are added until it is clear; what is not clear after the last was not shown.
    """
    within = dict.fromkeys(load.slo.limits, 0)
    of = 0
    for _ in range(_BATCHES):
        seen = yield load
        k += 1
        of += len(seen.answer.measured)
        for name, count in _counts(seen, load).items():
            within[name] += count
        verdicts = [slo.verdict(count, of) for count in within.values()]
        if all(verdicts):
            return True, k
        if False in verdicts:
            return False, k
    return False, k
