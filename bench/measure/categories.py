"""A round's figures by the category of its prompts: a pure function over its traces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from bench.contract.record import RequestTrace
from bench.measure.latency import completed, latency_metrics, osl


def length_metrics(traces: Sequence[RequestTrace]) -> dict[str, float]:
    """`prompt_tokens_mean` and `answer_tokens_mean` of the completed requests, as they came; nothing without any."""
    done = completed(traces)
    if not done:
        return {}
    return {
        "prompt_tokens_mean": fmean(trace.prompt_tokens for trace in done),
        "answer_tokens_mean": fmean(map(osl, done)),
    }


def by_category(traces: Sequence[RequestTrace]) -> dict[str, dict[str, float]]:
    """By category, in order of name: `requests`, lengths and latencies of its requests. Empty where none has one.

    What came of a request is in its trace: figures that a caller has by `trace.request` are grouped by `groups`.
    """
    return {
        name: {"requests": float(len(its)), **length_metrics(its), **latency_metrics(its)}
        for name, its in groups(traces).items()
    }


def groups(traces: Sequence[RequestTrace]) -> Mapping[str, list[RequestTrace]]:
    """The measured requests by category, in order of name; those without one are left out."""
    grouped: dict[str, list[RequestTrace]] = {}
    for trace in traces:
        if trace.category and trace.window >= 0:
            grouped.setdefault(trace.category, []).append(trace)
    return dict(sorted(grouped.items()))
