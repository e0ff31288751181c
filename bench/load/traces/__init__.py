"""Recorded traffic: when requests came and how long they were, from files in four published formats.

What is replayed is a window of such a file, at its own pace or rescaled, with lengths that fit the model.
"""

from __future__ import annotations

import io
import math
import operator
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TextIO

from bench.contract import wire
from bench.contract.errors import UserError
from bench.load.traces import azure, burstgpt, mooncake, sharegpt
from bench.load.traces.format import CountTokens, TraceFormat, TraceRequest, UnknownFormatError

__all__ = ["TraceRequest", "fit_to_context", "read", "rescale", "sample_window"]

_FORMATS: tuple[TraceFormat, ...] = (azure, burstgpt, mooncake, sharegpt)


def read(path: Path, count_tokens: CountTokens | None = None) -> tuple[TraceRequest, ...]:
    """A file's requests by time; the format is detected from the first line.

    Requests without a prompt or an answer (BurstGPT's failed ones) are left out. `count_tokens` is needed for
    ShareGPT alone. UserError where the format is unknown, a line is damaged or no request is left. Nothing is
    unpacked: a compressed trace is of an unknown format.
    """
    try:
        with io.TextIOWrapper(wire.open_regular(path), encoding="utf-8-sig", newline="") as stream:
            requests = _parse(path, stream, count_tokens)
    except OSError as error:
        raise UserError(f"cannot read the trace {path}: {error.strerror}") from error
    except (UnicodeDecodeError, UnknownFormatError) as error:
        formats = " or ".join(trace_format.DESCRIPTION for trace_format in _FORMATS)
        raise UserError(f"unknown trace format in {path}: expected {formats}") from error
    complete = sorted((r for r in requests if r.prompt_tokens and r.new_tokens), key=lambda r: r.time_s)
    if not complete:
        raise UserError(f"{path} has no request with a prompt and an answer: give another trace")
    return _from_zero(complete)


def sample_window(requests: Sequence[TraceRequest], count: int, seed: str) -> tuple[TraceRequest, ...]:
    """`count` consecutive requests, which are as bursty as the trace; the seed draws where they start.

    Times count from the first of them. Of a trace without times (all 0) a random sample instead. UserError
    where the trace has fewer.
    """
    if count < 1:
        raise ValueError(f"{count} requests of a trace: must be at least 1")
    if len(requests) < count:
        raise UserError(
            f"the trace has {len(requests)} requests, fewer than the {count} of the workload: lower `requests`"
        )
    draw = random.Random(seed)  # noqa: S311  (reproducible, not secret)
    if not any(request.time_s for request in requests):
        return tuple(draw.sample(requests, count))
    start = draw.randrange(len(requests) - count + 1)
    return _from_zero(requests[start : start + count])


def rescale(requests: Sequence[TraceRequest], speed: float) -> tuple[TraceRequest, ...]:
    """The same requests `speed` times as fast: 2 halves every time."""
    if not (math.isfinite(speed) and speed > 0):
        raise ValueError(f"speed {speed}: must be above zero; 1 is the trace's own pace")
    return tuple(replace(request, time_s=request.time_s / speed) for request in requests)


def fit_to_context(requests: Sequence[TraceRequest], context: int) -> tuple[tuple[TraceRequest, ...], int]:
    """The requests with lengths that fit a context of so many tokens, and how many had to be changed.

    The answer gets at most half of the context, the prompt at most the rest. An answer of one token becomes
    two, since one token has no time per output token; that counts as a change. Texts are cut by `prompts.texts`.
    """
    if context < 4:
        raise ValueError(f"context {context}: must be at least 4")
    fitted = tuple(_fit(request, context) for request in requests)
    return fitted, sum(map(operator.ne, fitted, requests))


def _fit(request: TraceRequest, context: int) -> TraceRequest:
    new = min(max(request.new_tokens, 2), context // 2)
    prompt = min(request.prompt_tokens, context - new)
    blocks = request.blocks[: mooncake.blocks_of(prompt)]
    return replace(request, prompt_tokens=prompt, new_tokens=new, blocks=blocks)


def _from_zero(requests: Sequence[TraceRequest]) -> tuple[TraceRequest, ...]:
    zero_s = requests[0].time_s
    return tuple(replace(request, time_s=round(request.time_s - zero_s, 6)) for request in requests)


def _parse(path: Path, stream: TextIO, count_tokens: CountTokens | None) -> Sequence[TraceRequest]:
    first_line = stream.readline(4096)
    if not first_line:
        return ()
    stream.seek(0)
    for trace_format in _FORMATS:
        if trace_format.matches(first_line):
            return trace_format.read(path, stream, count_tokens)
    raise UnknownFormatError
