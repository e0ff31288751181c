"""A workload as a job of the load process: prompts of its lengths, a schedule, a warm-up before."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, cycle, islice
from pathlib import Path
from typing import Any

from bench.contract.errors import UserError
from bench.contract.workload import Closed, Open, SingleLoad, Trace
from bench.load import arrivals, lengths, prompts, traces
from bench.load.job import ClosedSchedule, Endpoint, LoadJob, OpenSchedule, Request
from bench.load.traces import TraceRequest

_WARMUPS = 8  # of an open load at least, or twice what arrives in a second
_UNBOUNDED = 1 << 30  # tokens, where a model's context is not known
_LEAST = 2  # tokens of a drawn length: TPOT needs two, and a text may begin with one of its own


@dataclass(frozen=True)
class Target:
    """Where a load goes, and what its prompts can consist of.

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
        """What prompts are: ids and text have exactly the requested tokens, chat and words about as many."""
        if self.endpoint.api == "chat":
            return "chat"
        return "ids" if self.takes_ids else "text" if self.tokenizer else "words"


def job(load: SingleLoad, target: Target, seed: str, round_: str) -> tuple[LoadJob, dict[str, Any]]:
    """The job of a closed, open or trace load, and what a record should know of its prompts.

    `seed` chooses the requests, and together with `round_` their prompts and times: every round of a trace
    replays the same requests. UserError for a trace or a length that cannot be had.
    """
    round_seed = f"{seed}/{round_}"
    facts: dict[str, Any] = {"prompts": target.prompts, "exact_length": target.endpoint.exact_length}
    if isinstance(load, Closed):
        requests, warmup = _conversations(load, target, round_seed)
        closed = ClosedSchedule(load.concurrency, warmup, load.at_most_s, turns=load.turns, think_s=load.think_s)
        return LoadJob(target.endpoint, requests, closed), facts
    if isinstance(load, Trace):
        sizes, trace_facts = _trace(load, target, seed)
        facts |= trace_facts
    else:
        count = max(load.requests, math.ceil(load.rate_per_s * load.window_s))
        sizes = tuple(TraceRequest(0.0, *pair) for pair in _draw_lengths(load, target, count, round_seed))
    due_s = _due_s(load, sizes, round_seed)
    rate = len(due_s) / max(due_s[-1], 1e-9) if isinstance(load, Trace) else load.rate_per_s
    concurrency = max(1, math.ceil(rate))
    warmup = max(_WARMUPS, 2 * concurrency)
    first = [replace(sizes[i % len(sizes)], text="", blocks=()) for i in range(warmup)]
    schedule = OpenSchedule(due_s, warmup=warmup, warmup_concurrency=concurrency)
    return LoadJob(target.endpoint, _requests([*first, *sizes], target, round_seed), opened=schedule), facts


def _due_s(load: Open | Trace, sizes: Sequence[TraceRequest], seed: str) -> tuple[float, ...]:
    count, rate = len(sizes), load.rate_per_s
    if isinstance(load, Trace) and rate <= 0:
        return tuple(request.time_s for request in sizes)
    schedules: Mapping[str, Callable[[], tuple[float, ...]]] = {
        "poisson": lambda: arrivals.poisson(count, rate, seed),
        "constant": lambda: arrivals.constant(count, rate),
        "gamma": lambda: arrivals.gamma(count, rate, load.burstiness, seed),
        "ramp": lambda: arrivals.ramp(count, rate, seed),
    }
    return schedules[load.arrivals]()


def _trace(load: Trace, target: Target, seed: str) -> tuple[tuple[TraceRequest, ...], dict[str, Any]]:
    """The requests of a trace that are replayed, in the order in which they are due, and the trace's facts."""
    tokenizer = target.tokenizer
    count_tokens = None if tokenizer is None else lambda text: len(prompts.encode(text, tokenizer))
    recorded = traces.read(Path(load.path).expanduser(), count_tokens)
    requests = traces.rescale(traces.sample_window(recorded, load.requests, seed), load.speed)
    requests, cut = traces.fit_to_context(requests, target.context or _UNBOUNDED)
    if load.rate_per_s <= 0 and requests[-1].time_s <= 0:
        raise UserError(f"{load.path} has no times: give the workload a rate_per_s")
    return requests, {"trace_requests": len(recorded), "capped": cut}


def _draw_lengths(load: Closed | Open, target: Target, count: int, seed: str) -> list[tuple[int, int]]:
    """(prompt, new) tokens of each request."""
    if load.lengths == "fixed":
        return [(load.prompt_tokens, load.new_tokens)] * count
    context = target.context or _UNBOUNDED

    def draw(mean: int, most: int, name: str) -> tuple[int, ...]:
        return lengths.draw(load.lengths, count, mean, load.spread, _LEAST, most, f"{seed}/{name}")

    new = draw(load.new_tokens, context - load.prompt_tokens, "new")
    return list(zip(draw(load.prompt_tokens, context - max(new), "prompt"), new, strict=True))


def _conversations(load: Closed, target: Target, seed: str) -> tuple[tuple[Request, ...], int]:
    """The requests of a closed load, the turns of a conversation one after the other; how many warm up.

    The answers in a conversation's history are drawn, not the model's: every engine gets the same prompts, and
    every length is exact.
    """
    turns, concurrency = load.turns, load.concurrency
    warmup = max(concurrency, math.ceil(2 * concurrency / turns))
    count = warmup + math.ceil(load.requests / turns)
    sizes = _draw_lengths(load, target, count * turns, seed)
    if turns == 1:
        return _requests([TraceRequest(0.0, *pair) for pair in sizes], target, seed), warmup
    conversations = [sizes[i : i + turns] for i in range(0, len(sizes), turns)]
    requests: list[Request] = []
    if target.takes_ids:
        ids = prompts.of_lengths([sum(map(sum, each)) for each in conversations], target.vocab_size, seed)
        for conversation, whole in zip(conversations, ids, strict=True):
            starts = accumulate(map(sum, conversation[:-1]), initial=0)  # each prompt is a longer beginning of the ids
            requests += [Request(n, ids=whole[: at + p]) for at, (p, n) in zip(starts, conversation, strict=True)]
    else:
        texts = iter(_texts([length for pair in sizes for length in pair], target, seed))
        for conversation in conversations:
            requests += _turns_as_text(target, conversation, list(islice(texts, 2 * turns)))
    return tuple(requests), warmup * turns


def _turns_as_text(target: Target, conversation: Sequence[tuple[int, int]], texts: list[str]) -> Iterator[Request]:
    """Prompts and answers take turns in `texts`; the server counts the tokens of a whole prompt."""
    for turn, (_, new) in enumerate(conversation):
        history = texts[: 2 * turn + 1]
        if target.endpoint.api == "chat":
            yield Request(new, messages=tuple(zip(cycle(("user", "assistant")), history, strict=False)))
        else:
            yield Request(new, text=" ".join(history))


def _requests(sizes: Sequence[TraceRequest], target: Target, seed: str) -> tuple[Request, ...]:
    """One request each: the prompt of the trace where it has one, else one drawn of the same length."""
    prompt_tokens, recorded = [size.prompt_tokens for size in sizes], [size.text for size in sizes]
    if target.tokenizer is not None and any(recorded):
        recorded = list(prompts.texts(recorded, prompt_tokens, target.tokenizer))
    if target.takes_ids:
        drawn_ids = prompts.of_lengths(prompt_tokens, target.vocab_size, seed)
        return tuple(
            Request(size.new_tokens, ids=_recorded_ids(size, text, target, seed) or ids)
            for size, text, ids in zip(sizes, recorded, drawn_ids, strict=True)
        )
    requests = []
    for size, own, other in zip(sizes, recorded, _texts(prompt_tokens, target, seed), strict=True):
        if target.endpoint.api == "chat":
            requests.append(Request(size.new_tokens, messages=(("user", own or other),)))
        else:
            exact = size.prompt_tokens if target.tokenizer and not own else 0
            requests.append(Request(size.new_tokens, text=own or other, prompt_tokens=exact))
    return tuple(requests)


def _recorded_ids(size: TraceRequest, text: str, target: Target, seed: str) -> Sequence[int]:
    """The prompt of a trace as ids; empty where it has none."""
    if size.blocks:
        return prompts.blocked(size.blocks, size.prompt_tokens, target.vocab_size, seed.partition("/")[0])
    return prompts.encode(text, target.tokenizer) if text and target.tokenizer is not None else ()


def _texts(sizes: Sequence[int], target: Target, seed: str) -> Sequence[str]:
    if target.tokenizer is not None:
        return prompts.exact_texts(sizes, target.tokenizer, seed)
    draw = random.Random(seed)  # noqa: S311  (reproducible, not secret)
    return [" ".join(f"{draw.randrange(10**4)}" for _ in range(size)) for size in sizes]
