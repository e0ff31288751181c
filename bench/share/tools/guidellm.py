"""The report of `guidellm run` (kind=json): a load over HTTP for each of its benchmarks.

Its metrics by guidellm/schemas of 0.8, of successful requests, in ms but for `request_latency`, in s. TTFT: first token
- request start. ITL: (last token - first) / (tokens - 1) of a request, which is TPOT here, weighted by its tokens.
TPOT: (last token - request start) / tokens, which is no figure of this suite's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bench.contract.workload import Closed, Open
from bench.share.tools.measurement import (
    Count,
    MalformedError,
    Measurement,
    Number,
    Text,
    load,
    percentiles,
    public_name,
    started,
    validated,
)

NAME = "guidellm"
NOTES: tuple[str, ...] = (
    (
        "guidellm: its ITL is this suite's TPOT, and stands as that, but its quantiles count a request once for each "
        "token; its own TPOT has the time to the first token in it, and is left out"
    ),
    "guidellm: TTFT is from when a request was sent, at a rate too; this suite's is from when it was due",
    (
        "guidellm: tokens/s and requests/s are over all of a benchmark, its start and end included unless a warmup and "
        "a cooldown were set; this suite's are of a steady window"
    ),
)
_SERIES = {  # its name -> ours, and the scale to seconds
    "time_to_first_token_ms": ("ttft", 1e-3),
    "inter_token_latency_ms": ("tpot", 1e-3),
    "request_latency": ("e2el", 1.0),
}


@dataclass(frozen=True)
class _Summary:
    mean: Number = 0.0
    median: Number = 0.0
    count: Count = 0
    percentiles: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Statuses:
    successful: _Summary | None = None


@dataclass(frozen=True)
class _Totals:
    successful: Count
    errored: Count = 0
    incomplete: Count = 0


@dataclass(frozen=True)
class _Metrics:
    request_totals: _Totals
    requests_per_second: _Statuses
    output_tokens_per_second: _Statuses
    prompt_token_count: _Statuses
    output_token_count: _Statuses
    time_to_first_token_ms: _Statuses
    inter_token_latency_ms: _Statuses
    request_latency: _Statuses
    request_concurrency: _Statuses = field(default_factory=_Statuses)


@dataclass(frozen=True)
class _Strategy:
    type_: Text
    streams: Count = 0
    rate: Number = 0.0


@dataclass(frozen=True)
class _Config:
    strategy: _Strategy
    backend: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Benchmark:
    config: _Config
    metrics: _Metrics
    start_time: Number = 0.0
    duration: Number = 0.0


def matches(data: Any) -> bool:
    return isinstance(data, dict) and isinstance(data.get("benchmarks"), list) and "metadata" in data


def read(data: Any) -> list[Measurement]:
    """A measurement for each benchmark that completed a request."""
    version = data["metadata"].get("guidellm_version", "") if isinstance(data["metadata"], dict) else ""
    benchmarks = [validated(_Benchmark, each, f"benchmarks.{i}") for i, each in enumerate(data["benchmarks"])]
    return [_measurement(its, str(version)[:99]) for its in benchmarks if its.metrics.request_totals.successful]


def _measurement(its: _Benchmark, version: str) -> Measurement:
    its_load, notes = _load(its)
    measured, totals = its.metrics, its.metrics.request_totals
    latencies: dict[str, float] = {}
    for theirs, (ours, scale) in _SERIES.items():
        summary = getattr(measured, theirs).successful or _Summary()
        if not summary.count or not summary.median:
            continue
        latencies[f"{ours}_s"] = summary.median * scale
        named = {q: summary.percentiles[f"p{q}"] for q in (90, 95, 99) if f"p{q}" in summary.percentiles}
        tails, left_out = percentiles(ours, named, totals.successful, scale)
        latencies |= tails
        notes += left_out
    rates = {
        "output_tok_per_s": measured.output_tokens_per_second,
        "request_per_s": measured.requests_per_second,
        "concurrency": measured.request_concurrency,
    }
    means = {name: statuses.successful.mean for name, statuses in rates.items() if statuses.successful}
    metrics = {
        **latencies,
        "failed_requests": float(totals.errored + totals.incomplete),
        **({"measured_s": its.duration} if its.duration else {}),
        **{name: mean for name, mean in means.items() if mean},
    }
    model = its.config.backend.get("model")
    return Measurement(
        public_name(model) if isinstance(model, str) else "",
        its_load,
        None,
        metrics,
        {"completed": totals.successful, "strategy": its.config.strategy.type_},
        tuple(notes),
        environment={"guidellm": version} if version else {},
        started=started(its.start_time),
        duration_s=its.duration,
    )


def _load(its: _Benchmark) -> tuple[Closed | Open, list[str]]:
    """Closed where requests wait for answers, open at a rate."""
    strategy, totals = its.config.strategy, its.metrics.request_totals
    counts = (its.metrics.prompt_token_count.successful, its.metrics.output_token_count.successful)
    prompts, answers = ((each.mean if each else 0.0) for each in counts)
    notes = []
    if not prompts.is_integer() or not answers.is_integer():
        notes.append("guidellm: lengths varied, and the load's name has their means")
    sizes: dict[str, Any] = {"requests": max(1, totals.successful + totals.errored)}
    sizes |= {"prompt_tokens": max(1, round(prompts)), "new_tokens": max(1, round(answers))}
    if strategy.type_ == "synchronous":
        return load(Closed, concurrency=1, **sizes), notes
    if strategy.type_ == "concurrent" and strategy.streams:
        return load(Closed, concurrency=strategy.streams, **sizes), notes
    if strategy.type_ == "throughput":
        mean = its.metrics.request_concurrency.successful
        return load(Closed, concurrency=max(1, round(mean.mean)) if mean else 1, **sizes), [
            *notes,
            "guidellm: a throughput run sends all at once, and the load's name has the mean number in flight",
        ]
    if strategy.type_ in ("constant", "poisson") and strategy.rate > 0:
        arrivals: dict[str, Any] = {"arrivals": strategy.type_}
        return load(Open, rate_per_s=strategy.rate, **arrivals, **sizes), notes
    raise MalformedError(f"its strategy '{strategy.type_}' is no load at one concurrency or rate")
