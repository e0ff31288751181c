"""Latency of requests from the stamps of their tokens: TTFT, TPOT, ITL, E2EL as the design defines them.

A stamp counts only if it bore a token: a role-only or empty chunk is not the first token. TTFT and E2EL start
when the request was due: an open loop's queueing is inside; in a closed loop and a static batch due == sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from statistics import fmean, median

import numpy as np

from bench.contract.record import RequestTrace

TAILS = {90: 10, 95: 20, 99: 100}  # percentiles, and observations below which they are but an extreme value


def stamps(trace: RequestTrace) -> tuple[float, ...]:
    """Arrival times of the events that bore tokens, in seconds from the window's start."""
    return tuple(t for t, n in zip(trace.token_s, trace.event_tokens, strict=True) if n > 0)


def osl(trace: RequestTrace) -> int:
    """Output sequence length: tokens produced."""
    return sum(trace.event_tokens)


def completed(traces: Sequence[RequestTrace]) -> list[RequestTrace]:
    """The requests without error that produced a token; nothing else enters a percentile."""
    return [t for t in traces if not t.error and osl(t) > 0]


def ttft_s(trace: RequestTrace) -> float:
    """First token - due."""
    return stamps(trace)[0] - trace.due_s


def e2el_s(trace: RequestTrace) -> float:
    """Last token - due."""
    return stamps(trace)[-1] - trace.due_s


def tpot_s(trace: RequestTrace) -> float | None:
    """(last - first) / (OSL - 1); None for a single token. vLLM's TPOT, guidellm's ITL."""
    times, tokens = stamps(trace), osl(trace)
    return (times[-1] - times[0]) / (tokens - 1) if tokens > 1 else None


def itl_s(trace: RequestTrace) -> list[float]:
    """Gaps between successive token-bearing events; an event may bring several tokens (speculation)."""
    return [b - a for a, b in pairwise(stamps(trace))]


def observations(traces: Sequence[RequestTrace]) -> list[RequestTrace]:
    """Completed requests, those that share window and stamps counted once.

    The requests of one static batch advance in the same steps: eight copies of a gap are one observation of
    it, and must not carry a p99 over its minimum count.
    """
    return list({(t.window, t.due_s, t.token_s, t.event_tokens): t for t in completed(traces)}.values())


def _tails(name: str, values: Sequence[float]) -> dict[str, float]:
    """By linear interpolation between order statistics: Hyndman and Fan (1996) definition 7, NumPy's default."""
    ranks = [q for q, least in TAILS.items() if len(values) >= least]
    tails = np.percentile(values, ranks).tolist() if ranks else []
    return {f"{name}_p{q}_s": tail for q, tail in zip(ranks, tails, strict=True)}


def latency_metrics(traces: Sequence[RequestTrace]) -> dict[str, float]:
    """Metrics of one round.

    `ttft_s`, `tpot_s`, `e2el_s`: medians over requests; `itl_p50_s`: over gaps; `<name>_p90_s` of each from
    10, `<name>_p95_s` from 20 and `<name>_p99_s` from 100 observations; `failed_requests`. A key is absent
    where nothing was observed. Of a model that reasons also `answer_ttft_s`: first token of the answer, after the
    thoughts, - due, over the requests that came to one (`answered_fraction`), and `reasoning_tokens_mean`.
    """
    metrics = {"failed_requests": float(len(traces) - len(completed(traces)))} if traces else {}
    done = observations(traces)
    series = {
        "ttft": [ttft_s(t) for t in done],
        "tpot": [v for t in done if (v := tpot_s(t)) is not None],
        "e2el": [e2el_s(t) for t in done],
    }
    for name, values in series.items():
        if values:
            metrics |= {f"{name}_s": median(values), **_tails(name, values)}
    gaps = [gap for t in done for gap in itl_s(t)]
    if gaps:
        metrics |= {"itl_p50_s": median(gaps), **_tails("itl", gaps)}
    return {**metrics, **_reasoning_metrics(done)}


def _reasoning_metrics(done: Sequence[RequestTrace]) -> dict[str, float]:
    """Of completed requests where any of them has thoughts; an answer without any begins with its first token."""
    if not any(t.reasoning_tokens for t in done):
        return {}
    begins = [stamps(t)[0] if not t.reasoning_tokens else t.answer_s for t in done]
    waits = [at - t.due_s for t, at in zip(done, begins, strict=True) if at is not None]
    answers = {"answer_ttft_s": median(waits), **_tails("answer_ttft", waits)} if waits else {}
    reasoning = {"reasoning_tokens_mean": fmean(t.reasoning_tokens for t in done)}
    return {**reasoning, "answered_fraction": len(waits) / len(done), **answers}
