"""Tokens and requests per second of static batches: the requests that share a window index are one batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

from bench.contract.record import RequestTrace
from bench.contract.workload import Trace, Workload
from bench.measure.latency import completed, osl, stamps


def windows(traces: Sequence[RequestTrace]) -> dict[int, list[RequestTrace]]:
    """Requests by window index, in order of appearance."""
    grouped: dict[int, list[RequestTrace]] = {}
    for trace in traces:
        grouped.setdefault(trace.window, []).append(trace)
    return grouped


def duration_s(window: Sequence[RequestTrace]) -> float:
    """Last token - earliest sent, failed requests included: their time was spent. Zero without any token."""
    ends = [times[-1] for t in window if (times := stamps(t))]
    return max(ends) - min(t.sent_s for t in window) if ends else 0.0


def prefill_tok_per_s(window: Sequence[RequestTrace]) -> float | None:
    """ISL x batch / TTFT of the batch, whose first token is there when every request has one."""
    wait = max(stamps(t)[0] for t in window) - min(t.sent_s for t in window)
    return sum(t.prompt_tokens for t in window) / wait if wait > 0 else None


def decode_tok_per_s(window: Sequence[RequestTrace]) -> float | None:
    """Tokens after the first / (last - first): counted from when every request has its first token."""
    start, end = max(stamps(t)[0] for t in window), max(stamps(t)[-1] for t in window)
    tokens = sum(n for t in window for time, n in zip(t.token_s, t.event_tokens, strict=True) if time > start)
    return tokens / (end - start) if end > start else None


def throughput_metrics(traces: Sequence[RequestTrace]) -> dict[str, float]:
    """Metrics of one round.

    `output_tok_per_s` = sum of OSL / sum of window durations, `input_tok_per_s` = sum of their prompts' tokens / the
    same, `request_per_s` = completed / the same: of completed requests, over the time of all. `prefill_tok_per_s`,
    `decode_tok_per_s`: medians over the windows in which no request failed. `measured_s`: the sum of durations. A key
    is absent where nothing was observed.
    """
    groups = list(windows(traces).values())
    total_s, done = sum(map(duration_s, groups)), completed(traces)
    if total_s <= 0.0 or not done:
        return {}
    metrics = {
        "measured_s": total_s,
        "output_tok_per_s": sum(map(osl, done)) / total_s,
        "input_tok_per_s": sum(t.prompt_tokens for t in done) / total_s,
        "request_per_s": len(done) / total_s,
    }
    whole = [g for g in groups if len(completed(g)) == len(g)]
    for key, rate in (("prefill_tok_per_s", prefill_tok_per_s), ("decode_tok_per_s", decode_tok_per_s)):
        rates = [r for g in whole if (r := rate(g)) is not None]
        if rates:
            metrics[key] = median(rates)
    return metrics


def input_rate(metrics: Mapping[str, float], load: Workload | None) -> dict[str, float]:
    """`input_tok_per_s` of a record from before that metric, where all its prompts have one length; else nothing."""
    if "input_tok_per_s" in metrics or "request_per_s" not in metrics or isinstance(load, Trace):
        return {}
    return {} if load is None or not load.exact else {"input_tok_per_s": metrics["request_per_s"] * load.whole_prompt}
