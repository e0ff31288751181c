"""Workloads: how many requests of what length an engine gets, and when. There are six kinds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, make_dataclass
from functools import cache
from pathlib import PurePath
from typing import Any, ClassVar, Literal, TypeAlias, get_args

from bench.contract.load_fields import Arrivals, Deep, Lengths, Served, SharedPrefix
from bench.contract.slo import Slo
from bench.contract.wire import OMITTED_AT_DEFAULT

__all__ = [
    "AT_A_RATE",
    "KINDS",
    "Closed",
    "Offline",
    "Online",
    "Open",
    "Search",
    "SharedPrefix",
    "SingleLoad",
    "Sweep",
    "Trace",
    "Workload",
    "flat",
]

AT_A_RATE = 2  # how requests at a rate are sent and measured, a part of their records' digests
_SHOWS_SLO = 59  # requests at one rate: with fewer it takes too many loads to show that 95 % keep a limit


@dataclass(frozen=True, kw_only=True)
class Offline(Deep):
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
class Closed(Served, Deep, Lengths):
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
        if self.depth_tokens and (self.turns > 1 or self.lengths != "fixed"):
            yield "depth_tokens is for single requests of fixed lengths: leave out turns and lengths, or depth_tokens"
        if self.depth_tokens and self.shared_prefix:
            yield "a context of depth_tokens is shared already: leave out shared_prefix, or depth_tokens"

    def _level(self) -> str:
        return f"c{self.concurrency}" + (f"-t{self.turns}" if self.turns > 1 else "")

    def _sizes(self) -> str:
        shared = self.shared_prefix
        return (f"prefix{shared.tokens}x{shared.groups}x{shared.turns}-" if shared else "") + super()._sizes()


@dataclass(frozen=True, kw_only=True)
class Open(Served, Arrivals, Lengths):
    """Requests at a rate: as many as fill `window_s`, if that is more than `requests`.

    The rate is held before and after them, except by a ramp, which begins with nothing.
    """

    kind: Literal["open"] = "open"
    window_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Trace(Served, Arrivals):
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
class Sweep(Served, Arrivals, Deep, Lengths):
    """Closed loads of `concurrency`, or open ones of `rate_per_s`, doubled until throughput saturates or `most`.

    Over the depth: closed loads of one `concurrency`, `depth_tokens` doubled until `most`, which is the last of them.
    """

    kind: Literal["sweep"] = "sweep"
    over: Literal["concurrency", "rate", "depth"] = "concurrency"
    concurrency: int = 1
    most: float = 256.0
    at_most_s: float = 0.0
    window_s: float = 0.0

    @property
    def waits(self) -> bool:
        return self.over != "rate"

    @property
    def ramps(self) -> bool:
        return not self.waits and super().ramps

    @property
    def deepest(self) -> int:
        return int(self.most) if self.over == "depth" else self.depth_tokens

    def at(self, level: float, requests: int) -> Closed | Open:
        """The load of one level: of that concurrency, rate or depth, `requests` long."""
        if self.waits:
            name = "depth_tokens" if self.over == "depth" else "concurrency"
            return Closed(**{**_shared(self, Closed), name: int(level), "requests": requests})
        return Open(**{**_shared(self, Open), "rate_per_s": level, "requests": requests})

    def _faults(self) -> Iterator[str]:
        yield from super()._faults()
        if self.over == "rate" and not self.rate_per_s > 0:
            yield "a sweep over the rate begins at a rate_per_s above zero"
        if self.over == "rate" and self.depth_tokens:
            yield "depth_tokens is for loads of fixed concurrency: sweep over the concurrency or the depth"
        if self.over == "depth" and not 0 < self.depth_tokens <= self.most:
            yield "a sweep over the depth goes from depth_tokens above zero to most, as depth_tokens: 512, most: 8000"
        if self.depth_tokens and self.lengths != "fixed":
            yield "depth_tokens is for fixed lengths: leave out lengths, or depth_tokens"

    def _level(self) -> str:
        return self.over


@dataclass(frozen=True, kw_only=True)
class Search(Served, Arrivals, Lengths):
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

_ALL_FIELDS = (
    *("batch", "prompt_tokens", "new_tokens", "repeats", "kind", "name", "concurrency", "rate_per_s", "arrivals"),
    *("burstiness", "requests", "window_s", "at_most_s", "lengths", "spread", "turns", "think_s", "path", "speed"),
    *("over", "most", "slo"),
)


def flat(load: Workload) -> Any:
    """The fields of every kind at their defaults, in the fixed order that fingerprints of records depend on.

    Younger ones follow where they are not at their defaults.
    """
    defaults = {each.name: each.default for kind in KINDS.values() for each in fields(kind)}
    younger = (each for each in fields(load) if each.metadata.get("omitted_at_default"))
    more = tuple(each.name for each in younger if getattr(load, each.name) != each.default)
    values = {**defaults, **vars(load)}
    return _flat_type(more)(**{name: values[name] for name in (*_ALL_FIELDS, *more)})


@cache
def _flat_type(more: tuple[str, ...]) -> Any:
    return make_dataclass("_Flat", (*_ALL_FIELDS, *more), frozen=True)


def _shared(load: Sweep | Search, kind: type[Closed | Open]) -> dict[str, Any]:
    """The fields of `load` that the other kind has too."""
    names = {each.name for each in fields(kind)} - {"kind"}
    return {name: value for name, value in vars(load).items() if name in names}
