"""A workload as jobs of the load process: prompts of its lengths, a schedule, and what goes before and after.

What is measured lies within a load that is steady. A closed loop begins with a warm-up, and goes on until the last
measured request is over. So does an open load, whose schedule is repeated end to end: before the window come the
last requests of it, as long as answers take, and after it the first ones. The part of their answers that falls
into the window is then that of the window's own which falls behind it, whatever the gaps and lengths are: a server
that keeps up puts out in the window just what was due in it.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, cycle, islice
from pathlib import Path
from typing import Any

from bench.contract.errors import UserError
from bench.contract.prompt import TextPrompt
from bench.contract.workload import Closed, Open, SharedPrefix, Trace
from bench.load import arrivals, lengths, prompts, traces
from bench.load.job import ClosedSchedule, Endpoint, LoadAnswer, LoadJob, OpenSchedule, Request
from bench.load.traces import TraceRequest

_WARMUPS = 8  # of an open load at least, or twice what arrives in a second
_UNBOUNDED = 1 << 30  # tokens, where a model's context is not known
_LEAST = 2  # tokens of a drawn length: TPOT needs two, and a text may begin with one of its own


@dataclass(frozen=True)
class Target:
    """Where a load goes, and what its prompts can consist of.

    Token ids below `vocab_size`; 0: the server takes text only. `tokenizer`: a tokenizer.json by which texts
    get their exact length; without it they are as many short words. It also counts the tokens of answers where the
    server does not. `context` 0: not known. `reuse`: body fields of a request whose prompt is to stay in the server's
    KV cache, and to begin with what is there. `texts`: prompts of real text, asked in their order, and again from the
    first where a load has more requests. `natural`: body fields of a request for an answer of natural length.
    """

    endpoint: Endpoint
    vocab_size: int = 0
    tokenizer: Path | None = None
    context: int = 0
    reuse: Mapping[str, Any] = field(default_factory=dict)
    texts: tuple[TextPrompt, ...] = ()
    natural: Mapping[str, Any] = field(default_factory=lambda: {"ignore_eos": None})
    keeps_answers: bool = False

    @property
    def takes_ids(self) -> bool:
        return bool(self.vocab_size) and self.endpoint.api == "completions"

    @property
    def prompts(self) -> str:
        """What prompts are: ids and text have exactly the requested tokens, chat and words about as many."""
        if self.endpoint.api == "chat":
            return "chat"
        return "ids" if self.takes_ids else "text" if self.tokenizer else "words"

    def job(
        self, requests: tuple[Request, ...], closed: ClosedSchedule | None = None, opened: OpenSchedule | None = None
    ) -> LoadJob:
        return LoadJob(self.endpoint, requests, closed, opened, tokenizer=str(self.tokenizer or ""))


@dataclass(frozen=True)
class OpenRequests:
    """The requests of an open load or a trace and when they are due in a window of `window_s`, from its opening.

    `lasting`: whether the load goes on before and after it; a ramp does not. `seed` draws the prompts.
    """

    target: Target
    sizes: tuple[TraceRequest, ...]
    due_s: tuple[float, ...]
    window_s: float
    lasting: bool
    seed: str

    @property
    def per_second(self) -> int:
        """How many are due in a second on average, rounded up; 1 where the window has no length."""
        return math.ceil(len(self.sizes) / self.window_s) if self.window_s > 0 else 1

    @property
    def warmup(self) -> LoadJob:
        """A closed loop before the load, of lengths from the shortest to the longest, as many as a second brings."""
        count = max(_WARMUPS, 2 * self.per_second)
        ordered = sorted(self.sizes, key=lambda size: (size.new_tokens, size.prompt_tokens))
        sizes = [_unrelated(ordered[i * (len(ordered) - 1) // (count - 1)]) for i in range(count)]
        requests = _requests(sizes, self.target, f"{self.seed}/warm-up")
        return self.target.job(requests, closed=ClosedSchedule(self.per_second, 0))

    def lead_s(self, warmup: LoadAnswer) -> float:
        """How long the load goes on before the window by the answers of a warm-up's later half.

        Twice as long as they take, since they may take longer under the load, and as long as the longest.
        """
        later = warmup.measured[len(warmup.measured) // 2 :]
        took_s = sorted(result.end_s - result.trace.sent_s for result in later if not result.failure)
        return max(took_s[-1], 2 * took_s[len(took_s) // 2]) if took_s and self.lasting else 0.0

    def job(self, lead_s: float) -> LoadJob:
        """The load, from `lead_s` before the window to as long after it at the most."""
        periods = math.ceil(lead_s / self.window_s) if self.window_s > 0 else 0
        due_s, sizes = [], []
        for period in range(-periods, periods + 1):
            for due, size in zip(self.due_s, self.sizes, strict=True):
                at = period * self.window_s + due
                if period == 0 or -lead_s <= at < self.window_s + lead_s:
                    due_s.append(lead_s + at)
                    sizes.append(_unrelated(size) if period else size)
        schedule = OpenSchedule(due_s, lead_s, lead_s + self.window_s, connections=self.per_second)
        return self.target.job(_requests(sizes, self.target, self.seed), opened=schedule)


def closed(load: Closed, target: Target, seed: str) -> LoadJob:
    """The job of a closed load; `seed` draws the lengths and the prompts."""
    requests, warmup, after = (_at_depth if load.depth_tokens else _conversations)(load, target, seed)
    turns = load.shared_prefix.turns if load.shared_prefix else load.turns
    schedule = ClosedSchedule(load.concurrency, warmup, after, load.at_most_s, turns=turns, think_s=load.think_s)
    return target.job(requests, closed=replace(schedule, whole=load.shared_prefix is not None))


def opened(load: Open | Trace, target: Target, seed: str, round_: str) -> tuple[OpenRequests, dict[str, Any]]:
    """The requests of an open load or a trace, and what a record should know of the trace.

    `seed` chooses them, and together with `round_` their prompts and times: every round of a trace replays the
    same requests. UserError for a trace or a length that cannot be had.
    """
    round_seed, facts = f"{seed}/{round_}", dict[str, Any]()
    if isinstance(load, Trace):
        sizes, facts = _trace(load, target, seed)
    else:
        count = max(load.requests, math.ceil(load.rate_per_s * load.window_s))
        sizes = _sizes(load, target, count, round_seed)
    due_s, window_s = _due_s(load, sizes, round_seed)
    return OpenRequests(target, sizes, due_s, window_s, not load.ramps, round_seed), facts


def prompt_facts(target: Target) -> dict[str, Any]:
    """What a record should know of the prompts of any load."""
    return {"prompts": target.prompts, "exact_length": target.endpoint.exact_length}


def _due_s(load: Open | Trace, sizes: Sequence[TraceRequest], seed: str) -> tuple[tuple[float, ...], float]:
    """When requests are due, and the window that they fill: a trace's gaps in the mean once more after its last."""
    count, rate = len(sizes), load.rate_per_s
    if isinstance(load, Trace) and rate <= 0:
        return tuple(request.time_s for request in sizes), sizes[-1].time_s * count / max(1, count - 1)
    schedules: Mapping[str, Callable[[], tuple[float, ...]]] = {
        "poisson": lambda: arrivals.poisson(count, rate, seed),
        "constant": lambda: arrivals.constant(count, rate),
        "gamma": lambda: arrivals.gamma(count, rate, load.burstiness, seed),
        "ramp": lambda: arrivals.ramp(count, rate, seed),
    }
    return schedules[load.arrivals](), (2 if load.ramps else 1) * count / rate


def _unrelated(size: TraceRequest) -> TraceRequest:
    """A request of the same lengths with a prompt of its own: the window's must not be in a cache already.

    A prompt of real text stays: what it says is part of the load.
    """
    return replace(size, text="", blocks=())


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


def _sizes(load: Closed | Open, target: Target, count: int, seed: str, first: int = 0) -> tuple[TraceRequest, ...]:
    """Requests without times, of drawn lengths or of the target's texts, the `first` of which is asked first."""
    if not target.texts:
        return tuple(TraceRequest(0.0, *pair) for pair in _draw_lengths(load, target, count, seed))
    texts = islice(cycle(target.texts), first, first + count)
    natural = load.answers == "natural"
    return tuple(TraceRequest(0.0, len(t.ids), load.new_tokens, prompt=t, natural=natural) for t in texts)


def _draw_lengths(load: Closed | Open, target: Target, count: int, seed: str) -> list[tuple[int, int]]:
    """(prompt, new) tokens of each request."""
    if load.lengths == "fixed":
        return [(load.prompt_tokens, load.new_tokens)] * count
    context = target.context or _UNBOUNDED

    def draw(mean: int, most: int, name: str) -> tuple[int, ...]:
        return lengths.draw(load.lengths, count, mean, load.spread, _LEAST, most, f"{seed}/{name}")

    new = draw(load.new_tokens, context - load.prompt_tokens, "new")
    return list(zip(draw(load.prompt_tokens, context - max(new), "prompt"), new, strict=True))


def _conversations(load: Closed, target: Target, seed: str) -> tuple[tuple[Request, ...], int, int]:
    """The requests of a closed load, the turns of a conversation one after the other.

    Also how many of them warm up, and how many are for the time after the window.

    The answers in a conversation's history are drawn, not the model's: every engine gets the same prompts, and
    every length is exact.
    """
    if load.shared_prefix is not None:
        return _sharing_a_prefix(load, load.shared_prefix, target, seed)
    turns, concurrency = load.turns, load.concurrency
    warmup = max(concurrency, math.ceil(2 * concurrency / turns))
    count = warmup + math.ceil(load.requests / turns) + concurrency
    if turns == 1:
        measured = _sizes(load, target, load.requests, seed) if target.texts else ()
        others = _sizes(load, target, count - len(measured), seed, len(measured))
        sizes_of_all = (*others[:warmup], *measured, *others[warmup:])
        return _requests(sizes_of_all, target, seed), warmup, concurrency
    sizes = _draw_lengths(load, target, count * turns, seed)
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
    return tuple(requests), warmup * turns, concurrency * turns


def _sharing_a_prefix(
    load: Closed, shared: SharedPrefix, target: Target, seed: str
) -> tuple[tuple[Request, ...], int, int]:
    """As `_conversations`: groups one after the other, each of them prompts that begin with its prefix and go on apart.

    Groups that warm up, and those after the window, have prefixes of their own.
    """
    turns, before = shared.turns, max(load.concurrency, math.ceil(2 * load.concurrency / shared.turns))
    groups = before + shared.groups + load.concurrency
    requests: list[Request] = []

    def draw(name: str, tokens: list[int]) -> Sequence[Any]:
        own_seed = f"{seed}/{name}"
        by_ids = target.takes_ids
        return prompts.of_lengths(tokens, target.vocab_size, own_seed) if by_ids else _texts(tokens, target, own_seed)

    prefixes = draw("prefixes", [shared.tokens] * groups)
    own = draw("own", [load.prompt_tokens] * (groups * turns))
    for number, end in enumerate(own):
        group, turn = divmod(number, turns)
        request = Request(
            load.new_tokens,
            prompt_id=f"group {group}",
            category="warm" if turn else "cold",
            shared_tokens=shared.tokens if turn else 0,
        )
        if target.takes_ids:
            request = replace(request, ids=(*prefixes[group], *end))
        elif target.endpoint.api == "chat":
            request = replace(request, messages=(("system", prefixes[group]), ("user", end)))
        else:
            request = replace(request, text=f"{prefixes[group]} {end}")
        requests.append(request)
    return tuple(requests), before * turns, load.concurrency * turns


def _at_depth(load: Closed, target: Target, seed: str) -> tuple[tuple[Request, ...], int, int]:
    """As `_conversations`: the first ones, sent together, are the context; every other prompt begins with it.

    A server that keeps a cache for each request in flight thus fills all that it will use. UserError where the
    server takes no token ids: how many of a text's tokens are its beginning's is not certain.
    """
    if not target.takes_ids:
        raise UserError("depth_tokens needs a server that takes prompts of token ids: leave it out for this one")
    warmup = 2 * load.concurrency
    count = warmup + load.requests + load.concurrency
    (context,) = prompts.of_lengths([load.depth_tokens], target.vocab_size, f"{seed}/context")
    each = prompts.of_lengths([load.prompt_tokens] * count, target.vocab_size, seed)
    fills = [Request(1, ids=context, extra=target.reuse)] * load.concurrency
    requests = [Request(load.new_tokens, ids=context + ids, extra=target.reuse) for ids in each]
    return (*fills, *requests), warmup + load.concurrency, load.concurrency


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
    if target.texts:
        return tuple(_text_request(size, size.prompt, target) for size in sizes if size.prompt)
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


def _text_request(size: TraceRequest, prompt: TextPrompt, target: Target) -> Request:
    """As ids where the server takes them and they are known, else as text; a chat API gets the messages themselves."""
    request = Request(size.new_tokens, natural=size.natural, prompt_id=prompt.id, category=prompt.category)
    request = replace(request, extra=target.natural if size.natural else {}, keep_answer=target.keeps_answers)
    if target.endpoint.api == "chat":
        return replace(request, messages=prompt.messages)
    return replace(request, ids=prompt.ids) if target.takes_ids and prompt.ids else replace(request, text=prompt.text)


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
