"""The loads of one workload: a single one, or a sweep's or a search's, each chosen by the results before it."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from typing import Any

from bench.contract.record import RequestTrace
from bench.contract.workload import Closed, Online, Open, Search, SingleLoad, Sweep
from bench.load.job import LoadAnswer
from bench.measure import online_load, slo

_FLAT, _GAIN = 2, 0.05  # a sweep ends after two doublings that each bring less than 5 % over the best
_GENERATIONS = 4  # of requests at each concurrency of a sweep, at the least
_BATCHES = 4  # of requests at one rate of a search before it counts as not kept
_CLOSE, _LOWEST = 1.05, 64  # a search ends at a bracket of 5 %, or at a 64th of its first rate
_TRIES = 24


@dataclass(frozen=True)
class StageResult:
    """One load that was applied, as metrics and as facts of a record."""

    load: SingleLoad
    answer: LoadAnswer
    traces: tuple[RequestTrace, ...]
    facts: dict[str, Any]
    metrics: dict[str, float]

    @property
    def output_tok_per_s(self) -> float:
        return self.metrics.get("output_tok_per_s", 0.0)


Strategy = Generator[SingleLoad, StageResult, dict[str, Any]]  # yields the next load, returns facts of the whole
Apply = Callable[[SingleLoad, int], tuple[LoadAnswer, dict[str, Any]]]  # a load and its number


def run(load: Online, apply: Apply) -> tuple[list[StageResult], dict[str, Any]]:
    """Apply every load that the workload comes to.

    Returns the stages and the facts of the whole: those of the only load, or those of the chosen stage with
    `chosen` and `stages`. A load that ended with an error is the last.
    """
    if not isinstance(load, Sweep | Search):
        only = _result(load, load, 0, *apply(load, 0))
        return [only], only.facts
    stages: list[StageResult] = []
    strategy = _search(load) if isinstance(load, Search) else _depths(load) if load.over == "depth" else _sweep(load)
    stage = next(strategy)
    while True:
        stages.append(_result(stage, load, len(stages), *apply(stage, len(stages))))
        if stages[-1].answer.error:
            return stages, {"chosen": len(stages) - 1, "stages": _facts(stages, load)}
        try:
            stage = strategy.send(stages[-1])
        except StopIteration as end:
            facts: dict[str, Any] = end.value
            break
    facts.setdefault("chosen", _knee(stages))
    return stages, {**stages[facts["chosen"]].facts, **facts, "stages": _facts(stages, load)}


def _knee(stages: list[StageResult]) -> int:
    """The first of the loads, by level, whose output comes within 5 % of the highest."""
    best = max(stage.output_tok_per_s for stage in stages)
    return next(k for k, stage in enumerate(stages) if stage.output_tok_per_s * (1 + _GAIN) >= best)


def _result(stage: SingleLoad, load: Online, k: int, answer: LoadAnswer, facts: dict[str, Any]) -> StageResult:
    warmup = [replace(request.trace, window=-1 - k) for request in answer.warmup]
    traces = (*warmup, *(replace(request.trace, window=k) for request in answer.measured))
    return StageResult(stage, answer, traces, facts, online_load.online_metrics(traces, facts, load))


def _facts(stages: list[StageResult], load: Sweep | Search) -> list[dict[str, Any]]:
    """What a record has of each load: its level, its metrics, how many of its requests kept each limit."""
    return [
        {
            "level": _level(stage.load, load),
            "window_s": stage.facts.get("window_s", 0.0),
            "client_cpu_fraction": stage.facts.get("client_cpu_fraction", 0.0),
            "client_lag_p99_s": stage.facts.get("client_lag_p99_s", 0.0),
            "requests": len(stage.answer.measured),
            "counted_by": stage.facts.get("counted_by", "usage"),
            "kept": _within_limits(stage),
            "metrics": stage.metrics,
        }
        for stage in stages
    ]


def _level(stage: SingleLoad, load: Sweep | Search) -> float:
    """What the loads differ in."""
    if isinstance(stage, Closed):
        return stage.depth_tokens if isinstance(load, Sweep) and load.over == "depth" else stage.concurrency
    return stage.rate_per_s


def _within_limits(stage: StageResult) -> dict[str, int]:
    return slo.counts([t for t in stage.traces if t.window >= 0], stage.load.slo.limits)


def _sweep(load: Sweep) -> Strategy:
    """Twice the level each time, until the output tokens per second rise no more."""
    closed = load.over == "concurrency"
    level, best, flat = (float(load.concurrency) if closed else load.rate_per_s), 0.0, 0
    while level <= load.most:
        stage = yield load.at(level, max(load.requests, _GENERATIONS * int(level)) if closed else load.requests)
        flat = flat + 1 if stage.output_tok_per_s < best * (1 + _GAIN) else 0
        best = max(best, stage.output_tok_per_s)
        if flat == _FLAT or not stage.output_tok_per_s:
            return {"saturated": flat == _FLAT}
        level *= 2
    return {"saturated": False}


def _depths(load: Sweep) -> Strategy:
    """Twice the depth each time, up to the deepest, which the record's metrics are of."""
    depth, k = load.depth_tokens, 0
    while depth < load.most:
        yield load.at(depth, load.requests)
        depth, k = 2 * depth, k + 1
    yield load.at(load.most, load.requests)
    return {"chosen": k}


def _search(load: Search) -> Strategy:
    """Bisection, after the first rate was doubled until it failed, or halved until it kept the limits."""
    low = high = 0.0
    rate, chosen, k = load.rate_per_s, -1, 0
    for _ in range(_TRIES):
        holds, k = yield from _judge(load.at(rate), k)
        if holds:
            low, chosen = rate, k - 1
        else:
            high = rate
        if low and high and high / low <= _CLOSE:
            break
        if not low and rate <= load.rate_per_s / _LOWEST:
            break
        rate = high / 2 if not low else low * 2 if not high else math.sqrt(low * high)
    facts: dict[str, Any] = {"confidence": slo.CONFIDENCE, "share": slo.SHARE}
    facts |= {"slo_rate_per_s": low, "slo_rate_high_per_s": high}
    return {**facts, "chosen": chosen} if chosen >= 0 else facts


def _judge(load: Open, k: int) -> Generator[SingleLoad, StageResult, tuple[bool, int]]:
    """Whether a rate was shown to keep every limit, and the number of the next load.

    Batches of requests are added until it is clear; what is not clear after the last was not shown.
    """
    within = dict.fromkeys(load.slo.limits, 0)
    total = 0
    for look in range(1, _BATCHES + 1):
        stage = yield load
        k += 1
        total += len(stage.answer.measured)
        for name, count in _within_limits(stage).items():
            within[name] += count
        verdicts = [slo.verdict(count, total, look) for count in within.values()]
        if all(verdicts):
            return True, k
        if False in verdicts:
            return False, k
    return False, k
