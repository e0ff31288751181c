"""A load at a depth: whether the server had the context in its cache, and its requests as what followed it."""

from __future__ import annotations

from dataclasses import replace

from bench.load.job import LoadAnswer, RequestResult


def after_context(answer: LoadAnswer, depth: int) -> LoadAnswer:
    """Prompts without the `depth` tokens that were in the cache before; an error where they were not, or no more.

    Each measured request must have had just these: fewer were computed again within its TTFT.
    """
    done = [result for result in answer.measured if not result.failure]
    error = answer.error or (_fault(done, depth) if done else "")
    measured, warmup = (tuple(_without(result, depth) for result in its) for its in (answer.measured, answer.warmup))
    return replace(answer, error=error, measured=measured, warmup=warmup)


def _fault(done: list[RequestResult], depth: int) -> str:
    if any(result.cached_tokens is None for result in done):
        return (
            "the server does not tell how much of a prompt it had in its cache (cached_tokens of a usage's "
            "prompt_tokens_details), so that no depth is certain: leave depth_tokens out"
        )
    counts = sorted({result.cached_tokens or 0 for result in done})
    if counts == [depth]:
        return ""
    cached = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return (
        f"the server had {cached} tokens of a prompt in its cache, and depth_tokens is {depth}: choose a multiple of "
        "its block, and fewer requests in flight than it keeps prompts for"
    )


def _without(result: RequestResult, depth: int) -> RequestResult:
    tokens = max(0, result.trace.prompt_tokens - depth)
    return replace(result, trace=replace(result.trace, prompt_tokens=tokens))
