"""What a server counts of a shared prefix: by its usage of each request, else by vLLM's counters at /metrics."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bench.load import fetch
from bench.load.job import Endpoint, LoadAnswer, RequestResult

_HITS = re.compile(r"^vllm:prefix_cache_hits(?:_total)?(?:\{[^}]*\})? (\S+)$", re.MULTILINE)
_BLOCK = re.compile(r"^vllm:cache_config_info\{[^}]*\bblock_size=\"(\d+)\"", re.MULTILINE)
_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Counters:
    """`hits`: cached tokens since the server's start; None where it does not say. `block_tokens` 0: not known."""

    hits: int | None = None
    block_tokens: int = 0


def counters(endpoint: Endpoint) -> Counters:
    """By the server's /metrics, where it has vLLM's."""
    try:
        return parsed(fetch.metrics(endpoint, timeout_s=_TIMEOUT_S))
    except (ConnectionError, ValueError):
        return Counters()


def parsed(text: str) -> Counters:
    """From the Prometheus text of /metrics; several engines' hits are added up."""
    hits, block = _HITS.findall(text), _BLOCK.search(text)
    try:
        return Counters(int(sum(map(float, hits))) if hits else None, int(block[1]) if block else 0)
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
