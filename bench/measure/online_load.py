"""What a server did under a load over HTTP, from the requests of the steady window and those around it.

Traces of the warm-up have window -1. They enter no percentile, but the tokens they got while the window was
open are part of what the server put out then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bench.contract.record import RequestTrace
from bench.measure.latency import completed, latency_metrics, stamps


def measured(traces: Sequence[RequestTrace]) -> list[RequestTrace]:
    """The requests of the window."""
    return [t for t in traces if t.window >= 0]


def online_metrics(traces: Sequence[RequestTrace], facts: Mapping[str, Any]) -> dict[str, float]:
    """Metrics of one round; `facts` has `window_s` and, from the client, `in_flight_mean`.

    Latencies as in `latency_metrics`, from the requests of the window. `output_tok_per_s`: tokens that came
    within the window / its length. `request_per_s`: requests whose last token came within it / its length.
    """
    window_s = float(facts.get("window_s") or 0.0)
    metrics = latency_metrics(measured(traces))
    if "in_flight_mean" in facts:
        metrics["concurrency"] = float(facts["in_flight_mean"])
    if window_s <= 0 or not completed(traces):
        return metrics
    tokens = sum(
        n for t in traces for at, n in zip(t.token_s, t.event_tokens, strict=True) if 0 <= at <= window_s
    )
    ended = sum(0 <= stamps(t)[-1] <= window_s for t in completed(traces))
    return {
        **metrics,
        "measured_s": window_s,
        "output_tok_per_s": tokens / window_s,
        "request_per_s": ended / window_s,
    }
