"""A workload as a job of the load process: prompts of its lengths, a schedule, a warm-up before."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.contract.errors import UserError
from bench.contract.workload import Workload
from bench.load import arrivals, lengths, prompts, traces
from bench.load.job import ClosedSchedule, Endpoint, LoadJob, OpenSchedule, Request
from bench.load.traces import TraceRequest

_WARMUPS = 8  # of an open load at the least, beside twice what arrives in a second
_UNBOUNDED = 1 << 30  # tokens, where a model's context is not known
_LEAST = 2  # tokens of a drawn length: TPOT needs two, and a text may begin with one of its own


@dataclass(frozen=True)
class Target:
    """Where a load goes, and what its prompts can be made of.

    Token ids below `vocab_size`; 0: the server takes text only. `tokenizer`: a tokenizer.json by which texts
    get their exact length; without it they are as many short words. `context` 0: not known.
    """

    endpoint: Endpoint
    vocab_size: int = 0
    tokenizer: Path | None = None
    context: int = 0

    @property
    def takes_ids(self) -> bool:
        return bool(self.vocab_size) and self.endpoint.api == "completions"

    @property
    def prompts(self) -> str:
        """What prompts are: ids and text have exactly the tokens asked for, chat and words about as many."""
        if self.endpoint.api == "chat":
            return "chat"
        return "ids" if self.takes_ids else "text" if self.tokenizer else "words"


def job(load: Workload, target: Target, seed: str, round_: str) -> tuple[LoadJob, dict[str, Any]]:
    """The job, and what a record should know of how it came about.

    `load` is of kind closed, open or trace. `seed` chooses what is asked for, with `round_` also its words
    and times: every round of a trace replays the same requests. UserError for what cannot be asked.
    """
    full = f"{seed}/{round_}"
    facts: dict[str, Any] = {"prompts": target.prompts, "exact_length": target.endpoint.exact_length}
    if load.kind == "closed":
        requests, warm = _conversations(load, target, full)
        shape = ClosedSchedule(load.concurrency, warm, load.at_most_s, turns=load.turns, think_s=load.think_s)
        return LoadJob(target.endpoint, requests, shape), facts
    calls, more = _calls(load, target, seed, full)
    due = _due(load, calls, full)
    rate = len(due) / max(due[-1], 1e-9) if load.kind == "trace" else load.rate_per_s
    together = max(1, math.ceil(rate))
    warm = max(_WARMUPS, 2 * together)
    first = [replace(calls[i % len(calls)], text="", blocks=()) for i in range(warm)]
    requests = _requests([*first, *calls], target, full)
    schedule = OpenSchedule(due, warmup=warm, warmup_concurrency=together)
    return LoadJob(target.endpoint, requests, opened=schedule), {**facts, **more}


def _due(load: Workload, calls: Sequence[TraceRequest], seed: str) -> tuple[float, ...]:
    count, rate = len(calls), load.rate_per_s
    if load.kind == "trace" and rate <= 0:
        return tuple(call.time_s for call in calls)
    makers: Mapping[str, Callable[[], tuple[float, ...]]] = {
        "poisson": lambda: arrivals.poisson(count, rate, seed),
        "constant": lambda: arrivals.constant(count, rate),
        "gamma": lambda: arrivals.gamma(count, rate, load.burstiness, seed),
        "ramp": lambda: arrivals.ramp(count, rate, seed),
    }
    return makers[load.arrivals]()


def _calls(load: Workload, target: Target, seed: str, full: str) -> tuple[tuple[TraceRequest, ...], dict[str, Any]]:
    """The requests of an open load, in the order in which they are due."""
    if load.kind != "trace":
        count = max(load.requests, math.ceil(load.rate_per_s * load.window_s))
        return tuple(TraceRequest(0.0, *sizes) for sizes in _drawn(load, target, count, full)), {}
    recorded = traces.read(Path(load.path).expanduser(), _counter(target))
    calls = traces.rescale(traces.sample_window(recorded, load.requests, seed), load.speed)
    calls, capped = traces.fit_to_context(calls, target.context or _UNBOUNDED)
    if load.rate_per_s <= 0 and calls[-1].time_s <= 0:
        raise UserError(f"{load.path} has no times: give the workload a rate_per_s")
    return calls, {"trace_requests": len(recorded), "capped": capped}


def _drawn(load: Workload, target: Target, count: int, seed: str) -> list[tuple[int, int]]:
    """(prompt, new) tokens of each request."""
    if load.lengths == "fixed":
        return [(load.prompt_tokens, load.new_tokens)] * count
    context = target.context or _UNBOUNDED

    def draw(mean: int, most: int, word: str) -> tuple[int, ...]:
        return lengths.draw(load.lengths, count, mean, load.spread, _LEAST, most, f"{seed}/{word}")

    new = draw(load.new_tokens, context - load.prompt_tokens, "new")
    return list(zip(draw(load.prompt_tokens, context - max(new), "prompt"), new, strict=True))


def _conversations(load: Workload, target: Target, seed: str) -> tuple[tuple[Request, ...], int]:
    """The requests of a closed load, the turns of a conversation one after the other; how many warm up."""
    turns, at_once = load.turns, load.concurrency
    warm = max(at_once, math.ceil(2 * at_once / turns))
    count = warm + math.ceil(load.requests / turns)
    sizes = _drawn(load, target, count * turns, seed)
    if turns == 1:
        return _requests([TraceRequest(0.0, *pair) for pair in sizes], target, seed), warm
    talks = [sizes[i : i + turns] for i in range(0, len(sizes), turns)]
    if target.takes_ids:
        whole = prompts.of_lengths([sum(map(sum, talk)) for talk in talks], target.vocab_size, seed)
        return tuple(
            request for talk, ids in zip(talks, whole, strict=True) for request in _growing(talk, ids)
        ), warm * turns
    said = _texts([size for talk in talks for pair in talk for size in pair], target, seed)
    each = [said[i : i + 2 * turns] for i in range(0, len(said), 2 * turns)]
    return tuple(
        _spoken(target, words[: 2 * k + 1], talk[k][1])
        for talk, words in zip(talks, each, strict=True)
        for k in range(turns)
    ), warm * turns


def _growing(talk: Sequence[tuple[int, int]], ids: Sequence[int]) -> list[Request]:
    """The turns of one conversation. The answers in its history are the schedule's, not the model's.

    So every engine is asked the same, and every length is exact.
    """
    requests, end = [], 0
    for prompt, new in talk:
        requests.append(Request(new, ids=ids[: end + prompt]))
        end += prompt + new
    return requests


def _spoken(target: Target, words: Sequence[str], new: int) -> Request:
    """One turn in text; how many tokens its whole prompt has, the server counts."""
    if target.endpoint.api == "chat":
        roles = ("user", "assistant")
        return Request(new, messages=tuple((roles[i % 2], text) for i, text in enumerate(words)))
    return Request(new, text=" ".join(words))


def _requests(calls: Sequence[TraceRequest], target: Target, seed: str) -> tuple[Request, ...]:
    """One request each, of the call's lengths; its own words where it brings some."""
    sizes = [call.prompt_tokens for call in calls]
    own = _own(calls, target)
    if target.takes_ids:
        made = prompts.of_lengths(sizes, target.vocab_size, seed)
        return tuple(
            Request(call.new_tokens, ids=_ids(call, text, target, seed) or ids)
            for call, text, ids in zip(calls, own, made, strict=True)
        )
    said = [text or other for text, other in zip(own, _texts(sizes, target, seed), strict=True)]
    if target.endpoint.api == "chat":
        asked = zip(calls, said, strict=True)
        return tuple(Request(call.new_tokens, messages=(("user", text),)) for call, text in asked)
    return tuple(
        Request(call.new_tokens, text=text, prompt_tokens=0 if mine or not target.tokenizer else call.prompt_tokens)
        for call, text, mine in zip(calls, said, own, strict=True)
    )


def _ids(call: TraceRequest, text: str, target: Target, seed: str) -> tuple[int, ...]:
    """The prompt that a trace brings with it, if it does."""
    if call.blocks:
        return prompts.blocked(call.blocks, call.prompt_tokens, target.vocab_size, seed.partition("/")[0])
    return tuple(_encode(text, target)) if text else ()


def _own(calls: Sequence[TraceRequest], target: Target) -> Sequence[str]:
    """The texts that a trace brings, each as long as the context lets it be."""
    if target.tokenizer is None or not any(call.text for call in calls):
        return [call.text for call in calls]
    sizes = [call.prompt_tokens for call in calls]
    return prompts.texts([call.text for call in calls], sizes, target.tokenizer)


def _counter(target: Target) -> Callable[[str], int] | None:
    return (lambda text: len(_encode(text, target))) if target.tokenizer is not None else None


def _encode(text: str, target: Target) -> list[int]:
    assert target.tokenizer is not None  # noqa: S101  (without it no trace brings texts)
    return prompts.tokenizer_of(target.tokenizer).encode(text).ids


def _texts(sizes: Sequence[int], target: Target, seed: str) -> Sequence[str]:
    if target.tokenizer is not None:
        return prompts.exact_texts(sizes, target.tokenizer, seed)
    draw = random.Random(seed)  # noqa: S311  (reproducible, not secret)
    return [" ".join(f"{draw.randrange(10**4)}" for _ in range(size)) for size in sizes]
