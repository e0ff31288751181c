"""Prefix reuse under a load: the share of prompt tokens that earlier prompts began with, asked for and counted.

Facts of a load with a `shared_prefix` have `prefix`: `asked_tokens` and `prompt_tokens` of the requests that
`cached_tokens` are of, `asked_block_tokens` in the cache's whole blocks of `block_tokens` (0: not known), `caching` as
the engine was asked, `counted_by` where the count is from ("": nobody counts).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from bench.contract.record import RequestTrace
from bench.measure.latency import completed, ttft_s

COLD, WARM = "cold", "warm"
TOLERANCE = 0.02  # of the prompts' tokens


def prefix_metrics(traces: Sequence[RequestTrace], facts: Mapping[str, Any]) -> dict[str, float]:
    """`prefix_asked_fraction`, `prefix_hit_fraction` as the server counted, and `ttft_cold_s`, `ttft_warm_s`: medians.

    A key is absent where nothing was observed; empty for a load without a shared prefix.
    """
    shared = facts.get("prefix")
    if not isinstance(shared, Mapping) or not shared.get("prompt_tokens"):
        return {}
    metrics = {"prefix_asked_fraction": shared["asked_tokens"] / shared["prompt_tokens"]}
    if shared.get("cached_tokens") is not None:
        metrics["prefix_hit_fraction"] = shared["cached_tokens"] / shared["prompt_tokens"]
    for name in (COLD, WARM):
        if times := [ttft_s(trace) for trace in completed(traces) if trace.category == name]:
            metrics[f"ttft_{name}_s"] = median(times)
    return metrics


def fault(facts: Mapping[str, Any]) -> str:
    """Why the hits that were counted are not those asked for, with both numbers; "" where they are.

    A cache of whole blocks may keep less of each prefix, by a part of a block. With caching off none is expected.
    """
    shared = facts.get("prefix")
    if not isinstance(shared, Mapping) or not shared.get("prompt_tokens"):
        return ""
    tokens, cached = shared["prompt_tokens"], shared["cached_tokens"]
    asked = shared["asked_tokens"] / tokens if shared["caching"] else 0.0
    if cached is None:
        return _UNCOUNTED.format(asked) if shared["caching"] and asked else ""
    whole = shared["asked_block_tokens"] / tokens if shared["caching"] else 0.0
    counted = cached / tokens
    if min(abs(counted - asked), abs(counted - whole)) <= TOLERANCE:
        return ""
    why = "with prefix caching off" if not shared["caching"] else f"within {100 * TOLERANCE:g} points"
    blocks = f", {whole:.1%} in whole blocks of {shared['block_tokens']} tokens" if whole != asked else ""
    return (
        f"the server counted a prefix hit rate of {counted:.1%} where {asked:.1%} was asked for{blocks}, {why}: "
        "its cache evicts prefixes, keeps them in other blocks, or is not as the option prefix_caching says"
    )


_UNCOUNTED = (
    "a prefix hit rate of {:.1%} was asked for, and the server counts none (prompt_tokens_details in its usage, "
    "cache_n in its timings, or vLLM's or llama-server's counters at /metrics): have it count, as vLLM does with "
    "--enable-prompt-tokens-details, and llama-server with --metrics"
)
