"""Workloads: how many requests of what length an engine gets, and when. There are six kinds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import PurePath
from typing import Any, ClassVar, Literal, TypeAlias, get_args

from bench.contract.shared_prefix import SharedPrefix
from bench.contract.wire import OMITTED_AT_DEFAULT

_CLOSED = {"extra": "forbid"}  # read by pydantic in the parent; an unknown key is an error
# Older records have the fields of all kinds; bench.suite checks those of a suite file.
_OLD_RECORDS = {"extra": "ignore"}
AT_A_RATE = 2  # how requests at a rate are sent and measured, a part of their records' digests
_SHOWS_SLO = 59  # requests at one rate: with fewer it takes too many loads to show that 95 % keep a limit


@dataclass(frozen=True)
class Slo:
    """Seconds at most for a request to count as good (0: no limit), as the latency metrics define them."""

    ttft_s: float = 0.0
    tpot_s: float = 0.0
    e2el_s: float = 0.0
    __pydantic_config__ = _CLOSED

    def __post_init__(self) -> None:
        if min(self.ttft_s, self.tpot_s, self.e2el_s) < 0:
            raise ValueError("limits cannot be below zero; 0 is no limit")

    @property
    def limits(self) -> dict[str, float]:
        """Those that are set, by name."""
        return {name: float(limit) for name, limit in asdict(self).items() if limit > 0}


@dataclass(frozen=True, kw_only=True)
class _Named:
    """What every kind has. `_faults` has a sentence for each invalid field."""

    name: str = ""
    kind: str
    __pydantic_config__ = _OLD_RECORDS

    def __post_init__(self) -> None:
        for sentence in self._faults():
            raise ValueError(f"workload {self.title}: {sentence}")

    @property
    def title(self) -> str:
        """As offline-b1-p128-n64, closed-c4-p128-n64, open-poisson2.5-p128-n64, trace-FILE-x2."""
        return self.name or "-".join(filter(None, (self.kind, self._level(), self._sizes())))

    def _faults(self) -> Iterator[str]:
        for name in ("batch", "concurrency", "prompt_tokens", "repeats", "requests", "turns"):
            if (count := vars(self).get(name, 1)) < 1:
                yield f"{name} starts at 1, got {count}"
        for name in ("rate_per_s", "window_s", "at_most_s", "think_s"):
            if (amount := vars(self).get(name, 0)) < 0:
                yield f"{name} cannot be below zero, got {amount:g}"

    def _level(self) -> str:
        raise NotImplementedError

    def _sizes(self) -> str:
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class _Tokens(_Named):
    """`new_tokens` after prompts of `prompt_tokens`, drawn at random; or after those of the file `prompts`.

    The file's are put into the model's chat template by `chat`. `answers: natural`: each ends where the model ends it,
    at `new_tokens` at the latest. `too_long`: what becomes of a prompt that exceeds the context with its answer.
    """

    prompt_tokens: int = 128
    new_tokens: int = 64
    prompts: str = field(default="", metadata=OMITTED_AT_DEFAULT)
    chat: bool = field(default=False, metadata=OMITTED_AT_DEFAULT)
    answers: Literal["exact", "natural"] = field(default="exact", metadata=OMITTED_AT_DEFAULT)
    too_long: Literal["refuse", "skip"] = field(default="refuse", metadata=OMITTED_AT_DEFAULT)

    @property
    def longest(self) -> int:
        """The longest context of a request in tokens; its mean where lengths are drawn, the answer's with `prompts`."""
        return self.new_tokens if self.prompts else self.prompt_tokens + self.new_tokens

    @property
    def exact(self) -> bool:
        """Whether every request has the lengths `whole_prompt` and `new_tokens`."""
        return not self.prompts

    @property
    def whole_prompt(self) -> int:
        """Tokens of a prompt, with what it shares with others."""
        return self.prompt_tokens

    def _faults(self) -> Iterator[str]:
        yield from super()._faults()
        if self.new_tokens < 2:
            yield f"new_tokens starts at 2, got {self.new_tokens}"
        settings = {"chat": self.chat, "answers": self.answers == "natural", "too_long": self.too_long == "skip"}
        if not self.prompts and (name := next((name for name, is_set in settings.items() if is_set), "")):
            yield f"{name} means nothing to drawn prompts: name a file of prompts, as prompts: question.jsonl"

    def _sizes(self) -> str:
        if not self.prompts:
            return f"p{self.prompt_tokens}-n{self.new_tokens}"
        parts = (PurePath(self.prompts).stem, "chat" if self.chat else "")
        return "-".join(filter(None, (*parts, f"{'natural' if self.answers == 'natural' else 'n'}{self.new_tokens}")))


@dataclass(frozen=True, kw_only=True)
class _Lengths(_Tokens):
    """`lengths` are those of `_Tokens`, or drawn.

    Uniform within `spread` times the length about it, or lognormal with the coefficient of variation `spread`.
    """

    lengths: Literal["fixed", "uniform", "lognormal"] = "fixed"
    spread: float = 0.0

    @property
    def exact(self) -> bool:
        return super().exact and self.lengths == "fixed"

    def _faults(self) -> Iterator[str]:
        yield from super()._faults()
        if self.lengths == "uniform" and not 0 < self.spread <= 1:
            yield "lengths: uniform needs a spread above 0 and up to 1"
        if self.lengths == "lognormal" and not self.spread > 0:
            yield "lengths: lognormal needs a spread above 0"
        if self.lengths != "fixed" and self.prompt_tokens < 2:
            yield "drawn lengths need prompt_tokens of 2 at least"
        if self.lengths != "fixed" and self.prompts:
            yield f"the prompts of a file have lengths of their own: leave lengths: {self.lengths} out"

    def _sizes(self) -> str:
        drawn = "" if self.lengths == "fixed" else f"-{self.lengths}{self.spread:g}"
        return super()._sizes() + drawn


@dataclass(frozen=True, kw_only=True)
class _Arrivals(_Named):
    """Due at `rate_per_s` on average, whatever is in flight.

    `arrivals`: poisson; constant; gamma with the shape `burstiness`, 1 being Poisson's; ramp, whose rate
    rises evenly from nothing to `rate_per_s`.
    """

    rate_per_s: float = 0.0
    arrivals: Literal["poisson", "constant", "gamma", "ramp"] = "poisson"
    burstiness: float = 1.0

    def _faults(self) -> Iterator[str]:
        yield from super()._faults()
        if self.kind in ("open", "search") and not self.rate_per_s > 0:
            yield f"kind: {self.kind} needs a rate_per_s above zero"
        if not self.burstiness > 0:
            yield "burstiness must be above zero; 1 is Poisson's"

    @property
    def ramps(self) -> bool:
        """Whether the rate rises over the whole load."""
        return self.rate_per_s > 0 and self.arrivals == "ramp"

    def _level(self) -> str:
        bursts = f"-b{self.burstiness:g}" if self.arrivals == "gamma" else ""
        return f"{self.arrivals}{self.rate_per_s:g}{bursts}"


@dataclass(frozen=True, kw_only=True)
class _Served(_Named):
    """Requests to the engine's server, `requests` of them measured within a load that is steady.

    `slo` makes goodput a metric.
    """

    requests: int = 100
    slo: Slo = Slo()
    online: ClassVar[bool] = True

    @property
    def waits(self) -> bool:
        """Whether the next request waits for an answer: a closed loop."""
        return False


@dataclass(frozen=True, kw_only=True)
class Offline(_Tokens):
    """Static batches of `batch` in process; `repeats` of them are measured in a round, after warm-up."""

    kind: Literal["offline"] = "offline"
    batch: int = 1
    repeats: int = 5
    online: ClassVar[bool] = False
    slo: ClassVar[Slo] = Slo()

    def _faults(self) -> Iterator[str]:
        yield from super()._faults()
        if self.prompts and self.batch > 1:
            yield (
                f"a static batch has prompts of one length, and those of a file differ: set batch: 1, got {self.batch},"
                " or kind: closed with a concurrency"
            )

    def _level(self) -> str:
        return f"b{self.batch}"


@dataclass(frozen=True, kw_only=True)
class Closed(_Served, _Lengths):
    """`concurrency` in flight, each followed by the next, for `at_most_s` where that is above zero.

    With `turns` above 1 each of them is a conversation: its prompt grows by the answer's length and by
    `prompt_tokens` at every turn, which comes `think_s` after the last answer.

    With a `shared_prefix` there are as many requests as it has turns: its tokens and `prompt_tokens` of their own.
    The first of a group is cold, and each other one is sent `think_s` after the answer before it.
    """

    kind: Literal["closed"] = "closed"
    concurrency: int = 1
    turns: int = 1
    think_s: float = 0.0
    at_most_s: float = 0.0
    shared_prefix: SharedPrefix | None = field(default=None, metadata=OMITTED_AT_DEFAULT)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.shared_prefix is not None:
            object.__setattr__(self, "requests", self.shared_prefix.groups * self.shared_prefix.turns)

    @property
    def waits(self) -> bool:
        return True

    @property
    def whole_prompt(self) -> int:
        return self.prompt_tokens + (self.shared_prefix.tokens if self.shared_prefix else 0)

    @property
    def exact(self) -> bool:
        return super().exact and self.turns == 1

    @property
    def longest(self) -> int:
        return super().longest * self.turns + self.whole_prompt - self.prompt_tokens

    def _faults(self) -> Iterator[str]:
        yield from super()._faults()
        if self.turns > 1 and self.lengths != "fixed":
            yield "conversations have fixed lengths"
        if self.turns > 1 and self.prompts:
            yield "a conversation's turns are drawn, and those of a file wait for real answers: leave turns out"
        others = {"turns": self.turns > 1, "prompts": self.prompts, "lengths": self.lengths != "fixed"}
        if self.shared_prefix and (name := next((name for name, is_set in others.items() if is_set), "")):
            yield f"prompts with a shared_prefix are drawn at fixed lengths, in turns of their own: leave {name} out"

    def _level(self) -> str:
        return f"c{self.concurrency}" + (f"-t{self.turns}" if self.turns > 1 else "")

    def _sizes(self) -> str:
        shared = self.shared_prefix
        return (f"prefix{shared.tokens}x{shared.groups}x{shared.turns}-" if shared else "") + super()._sizes()


@dataclass(frozen=True, kw_only=True)
class Open(_Served, _Arrivals, _Lengths):
    """Requests at a rate: as many as fill `window_s`, if that is more than `requests`.

    The rate is held before and after them, except by a ramp, which begins with nothing.
    """

    kind: Literal["open"] = "open"
    window_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Trace(_Served, _Arrivals):
    """The lengths and times in the file at `path`, `speed` times as fast; with a `rate_per_s` the lengths alone.

    Azure LLM 2023 and BurstGPT CSV, Mooncake JSONL, ShareGPT JSON.
    """

    kind: Literal["trace"] = "trace"
    path: str = ""
    speed: float = 1.0
    exact: ClassVar[bool] = False

    def _faults(self) -> Iterator[str]:
        yield from super()._faults()
        if not self.speed > 0:
            yield "speed must be above zero; 2 replays a trace twice as fast"
        if not self.path:
            yield "a trace needs the path of its file"

    def _level(self) -> str:
        stem = PurePath(self.path).stem
        return f"{stem}-{super()._level()}" if self.rate_per_s > 0 else f"{stem}-x{self.speed:g}"

    def _sizes(self) -> str:
        return f"r{self.requests}"


@dataclass(frozen=True, kw_only=True)
class Sweep(_Served, _Arrivals, _Lengths):
    """Closed loads of `concurrency`, or open ones of `rate_per_s`, doubled until throughput saturates or `most`."""

    kind: Literal["sweep"] = "sweep"
    over: Literal["concurrency", "rate"] = "concurrency"
    concurrency: int = 1
    most: float = 256.0
    at_most_s: float = 0.0
    window_s: float = 0.0

    @property
    def waits(self) -> bool:
        return self.over == "concurrency"

    @property
    def ramps(self) -> bool:
        return not self.waits and super().ramps

    def at(self, level: float, requests: int) -> Closed | Open:
        """The load of one level: of that concurrency or rate, `requests` long."""
        if self.over == "concurrency":
            return Closed(**{**_shared(self, Closed), "concurrency": int(level), "requests": requests})
        return Open(**{**_shared(self, Open), "rate_per_s": level, "requests": requests})

    def _faults(self) -> Iterator[str]:
        yield from super()._faults()
        if self.over == "rate" and not self.rate_per_s > 0:
            yield "a sweep over the rate begins at a rate_per_s above zero"

    def _level(self) -> str:
        return self.over


@dataclass(frozen=True, kw_only=True)
class Search(_Served, _Arrivals, _Lengths):
    """The highest rate at which 95 % of the requests keep `slo`, from `rate_per_s` on."""

    kind: Literal["search"] = "search"
    window_s: float = 0.0

    def at(self, rate_per_s: float) -> Open:
        """The load of one rate."""
        return Open(**{**_shared(self, Open), "rate_per_s": rate_per_s})

    def _faults(self) -> Iterator[str]:
        yield from super()._faults()
        if not self.slo.limits:
            yield "a search needs a limit to keep, as slo: {ttft_s: 0.5, tpot_s: 0.05}"
        if self.requests < _SHOWS_SLO:
            yield f"a search needs {_SHOWS_SLO} requests at each rate, to show that 95 % of them keep a limit"

    def _level(self) -> str:
        return "-".join(f"{k.removesuffix('_s')}{v:g}" for k, v in self.slo.limits.items())


SingleLoad: TypeAlias = Closed | Open | Trace
Online: TypeAlias = SingleLoad | Sweep | Search
Workload: TypeAlias = Offline | Online
KINDS: Mapping[str, type[Workload]] = {load.kind: load for load in get_args(Workload)}


def _shared(load: Sweep | Search, kind: type[Closed | Open]) -> dict[str, Any]:
    """The fields of `load` that the other kind has too."""
    names = {each.name for each in fields(kind)} - {"kind"}
    return {name: value for name, value in vars(load).items() if name in names}
