"""What a server counts of a shared prefix: by its usage of each request, else by its counters at /metrics.

vLLM's and llama-server's (`--metrics`) counters are known. They are of everything a server computes, so that the load
has to be alone on it; llama-server tells them to six digits.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bench.load import fetch
from bench.load.job import Endpoint, LoadAnswer, RequestResult
from bench.process import exposition

_HITS = ("prefix_cache_hits_total", "prompt_tokens_cached_total")  # of vLLM, of llama.cpp, in tokens
_BLOCK = re.compile(r"^vllm:cache_config_info\{[^}]*\bblock_size=\"(\d+)\"", re.MULTILINE)
_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Counters:
    """`hits`: cached tokens since the server's start; None where it does not say. `block_tokens` 0: not known."""

    hits: int | None = None
    block_tokens: int = 0


def counters(endpoint: Endpoint) -> Counters:
    """By the server's /metrics, where it has any that are known."""
    try:
        return parsed(fetch.metrics(endpoint, timeout_s=_TIMEOUT_S))
    except (ConnectionError, ValueError):
        return Counters()


def parsed(text: str) -> Counters:
    """From the Prometheus text of /metrics; several engines' hits are added up."""
    block = _BLOCK.search(text)
    try:
        samples = exposition.parse(text)
        hits = next((int(samples[name]) for name in _HITS if name in samples), None)
        return Counters(hits, int(block[1]) if block else 0)
    except (ValueError, OverflowError):
        return Counters()


def facts(answer: LoadAnswer, before: Counters, after: Counters, *, caching: bool) -> dict[str, Any]:
    """`prefix`, as in bench/measure/prefix.py: of the measured requests, or by counters of all that were completed."""
    measured = [request for request in answer.measured if not request.failure]
    by_usage = [request for request in measured if request.cached_tokens is not None]
    shared: dict[str, Any] = {"caching": caching, "block_tokens": after.block_tokens, "counted_by": ""}
    if by_usage:
        cached = sum(request.cached_tokens or 0 for request in by_usage)
        return {"prefix": {**shared, **_asked(measured, after), "counted_by": "usage", "cached_tokens": cached}}
    if before.hits is not None and after.hits is not None:
        sent = [*measured, *(request for request in answer.warmup if not request.failure)]
        counted = {"counted_by": "metrics", "cached_tokens": after.hits - before.hits}
        return {"prefix": {**shared, **_asked(sent, after), **counted}}
    return {"prefix": {**shared, **_asked(measured, after), "cached_tokens": None}}


def _asked(requests: Sequence[RequestResult], counters: Counters) -> dict[str, int]:
    block = counters.block_tokens or 1
    return {
        "prompt_tokens": sum(request.trace.prompt_tokens for request in requests),
        "asked_tokens": sum(request.shared_tokens for request in requests),
        "asked_block_tokens": sum(request.shared_tokens // block * block for request in requests),
    }
