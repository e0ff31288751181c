"""What a server did under a load over HTTP, from the requests of the steady window and those around it.

A load may have several stages, each with a window of its own: the requests measured in stage k have window k,
those before and after it -1 - k. The latter enter no percentile, but the tokens they got while the window was
open are part of what the server put out then, as the measured ones' later tokens are not. Facts of the stages are
in `facts["stages"]`, `facts["chosen"]` says which of them a record's metrics are of.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from bench.contract.record import RequestTrace
from bench.contract.workload import Closed, Online
from bench.measure import slo
from bench.measure.latency import completed, e2el_s, latency_metrics, osl, stamps


def measured(traces: Sequence[RequestTrace], facts: Mapping[str, Any]) -> list[RequestTrace]:
    """The requests that a record's metrics are of: those of its window, or of the chosen stage's."""
    if "chosen" not in facts:
        return [t for t in traces if t.window >= 0]
    return [t for t in traces if t.window == facts["chosen"]]


def stage(traces: Sequence[RequestTrace], k: int) -> list[RequestTrace]:
    """The traces of one stage, those before and after its window included."""
    return [t for t in traces if t.window in (k, -1 - k)]


def tokens(traces: Sequence[RequestTrace], window_s: float) -> tuple[int, int]:
    """Those read and those written in the window: prompts whose first token came in it, tokens that did."""
    prompts = sum(t.prompt_tokens for t in traces if (times := stamps(t)) and 0 <= times[0] <= window_s)
    return prompts, sum(_tokens_within(t, window_s) for t in traces)


def online_metrics(
    traces: Sequence[RequestTrace], facts: Mapping[str, Any], load: Online | None = None
) -> dict[str, float]:
    """Metrics of one stage; `facts` has `window_s` and, from the client, `in_flight_mean`.

    Latencies as in `latency_metrics`, from the requests of the window. `output_tok_per_s`: tokens that came
    within the window / its length. `request_per_s`: completed requests / its length, each by the share of its
    tokens that came within it: one that straddles an end of the window is not wholly of it. `input_tok_per_s`: the
    tokens of their prompts, by the same shares / its length. `goodput_per_s`, of a
    `load` with limits: requests that kept every limit / its length; in an open load those that were due in the
    window, in a closed loop each by its share. A ramp has no steady window: its rates are of all its requests, over
    `_ramp_s`.
    """
    limits = load.slo.limits if load is not None else {}
    window_s = float(facts.get("window_s") or 0.0)
    metrics = latency_metrics([t for t in traces if t.window >= 0])
    if "in_flight_mean" in facts:
        metrics["concurrency"] = float(facts["in_flight_mean"])
    if window_s <= 0 or not completed(traces):
        return metrics
    due = [t for t in completed(traces) if t.window >= 0]
    shares = [(t, _tokens_within(t, window_s) / osl(t)) for t in completed(traces)]
    over_s = window_s
    rates = {
        "output_tok_per_s": tokens(traces, window_s)[1] / window_s,
        "request_per_s": math.fsum(share for _, share in shares) / window_s,
        "input_tok_per_s": math.fsum(share * t.prompt_tokens for t, share in shares) / window_s,
    }
    if load is not None and not isinstance(load, Closed) and load.ramps and due:
        over_s = _ramp_s(due, window_s)
        rates = {
            "output_tok_per_s": sum(map(osl, due)) / over_s,
            "request_per_s": len(due) / over_s,
            "input_tok_per_s": sum(t.prompt_tokens for t in due) / over_s,
        }
    if limits:
        counted = [(t, 1.0) for t in due] if load is not None and not load.waits else shares
        good = math.fsum(share for t, share in counted if slo.within_limits(t, limits))
        rates["goodput_per_s"] = good / over_s
    return {**metrics, "measured_s": window_s, **rates}


def _tokens_within(trace: RequestTrace, window_s: float) -> int:
    return sum(n for at, n in zip(trace.token_s, trace.event_tokens, strict=True) if 0 <= at <= window_s)


def _ramp_s(due: Sequence[RequestTrace], window_s: float) -> float:
    """Seconds that the rates of a ramp are over, which begins with nothing in flight and ends with the most.

    Its length and the time by which the answers of its last tenth took longer than those of its first: the rates
    of a server that keeps up are what it was offered, and less for one that falls behind.
    """
    by_time = sorted(due, key=lambda t: t.due_s)
    tenth = math.ceil(len(by_time) / 10)
    longer_s = median(map(e2el_s, by_time[-tenth:])) - median(map(e2el_s, by_time[:tenth]))
    return window_s + max(0.0, longer_s)


def load_metrics(traces: Sequence[RequestTrace], facts: Mapping[str, Any], load: Online) -> dict[str, float]:
    """Metrics of a round: those of its only stage, or of the chosen one.

    A search adds `slo_rate_per_s` and `slo_rate_high_per_s`: the highest rate that kept the limits, the lowest not.
    """
    if "chosen" not in facts:
        return online_metrics(traces, facts, load)
    rates = {name: float(facts[name]) for name in ("slo_rate_per_s", "slo_rate_high_per_s") if facts.get(name)}
    return {**online_metrics(stage(traces, facts["chosen"]), facts, load), **rates}
