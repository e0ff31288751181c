"""What a server did under a load over HTTP, from the requests of the steady window and those around it.

A load may have several stages, each with a window of its own: the requests measured in stage k have window k,
those of its warm-up -1 - k. The latter enter no percentile, but the tokens they got while the window was open
are part of what the server put out then. Facts of the stages are in `facts["stages"]`, `facts["chosen"]` says
which of them a record's metrics are of.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bench.contract.record import RequestTrace
from bench.measure import slo
from bench.measure.latency import completed, latency_metrics, stamps


def measured(traces: Sequence[RequestTrace], facts: Mapping[str, Any]) -> list[RequestTrace]:
    """The requests that a record's metrics are of: those of its window, or of the chosen stage's."""
    if "chosen" not in facts:
        return [t for t in traces if t.window >= 0]
    return [t for t in traces if t.window == facts["chosen"]]


def stage(traces: Sequence[RequestTrace], k: int) -> list[RequestTrace]:
    """The traces of one stage, its warm-up included."""
    return [t for t in traces if t.window in (k, -1 - k)]


def tokens(traces: Sequence[RequestTrace], window_s: float) -> tuple[int, int]:
    """Those read and those written in the window: prompts whose first token came in it, tokens that did."""
    prompts = sum(t.prompt_tokens for t in traces if (times := stamps(t)) and 0 <= times[0] <= window_s)
    came = (n for t in traces for at, n in zip(t.token_s, t.event_tokens, strict=True) if 0 <= at <= window_s)
    return prompts, sum(came)


def online_metrics(
    traces: Sequence[RequestTrace], facts: Mapping[str, Any], limits: Mapping[str, float] | None = None
) -> dict[str, float]:
    """Metrics of one stage; `facts` has `window_s` and, from the client, `in_flight_mean`.

    Latencies as in `latency_metrics`, from the requests of the window. `output_tok_per_s`: tokens that came
    within the window / its length. `request_per_s`: requests whose last token came within it / its length.
    `goodput_per_s`: those of them that kept every limit of `limits` (seconds by metric) / its length.
    """
    window_s = float(facts.get("window_s") or 0.0)
    metrics = latency_metrics([t for t in traces if t.window >= 0])
    if "in_flight_mean" in facts:
        metrics["concurrency"] = float(facts["in_flight_mean"])
    if window_s <= 0 or not completed(traces):
        return metrics
    _, output_tokens = tokens(traces, window_s)
    ended = [t for t in completed(traces) if 0 <= stamps(t)[-1] <= window_s]
    metrics |= {
        "measured_s": window_s,
        "output_tok_per_s": output_tokens / window_s,
        "request_per_s": len(ended) / window_s,
    }
    if limits:
        metrics["goodput_per_s"] = sum(slo.within_limits(t, limits) for t in ended) / window_s
    return metrics


def load_metrics(
    traces: Sequence[RequestTrace], facts: Mapping[str, Any], limits: Mapping[str, float]
) -> dict[str, float]:
    """Metrics of a round: those of its only stage, or of the chosen one.

    A search adds `slo_rate_per_s` and `slo_rate_high_per_s`: the highest rate that kept the limits, the lowest not.
    """
    if "chosen" not in facts:
        return online_metrics(traces, facts, limits)
    rates = {name: float(facts[name]) for name in ("slo_rate_per_s", "slo_rate_high_per_s") if facts.get(name)}
    return {**online_metrics(stage(traces, facts["chosen"]), facts, limits), **rates}
