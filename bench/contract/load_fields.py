"""The fields that several kinds of workload share, and what holds of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import ClassVar, Literal

from bench.contract.slo import Slo
from bench.contract.wire import OMITTED_AT_DEFAULT

_CLOSED = {"extra": "forbid"}  # read by pydantic in the parent; an unknown key is an error
# Older records have the fields of all kinds; bench.suite checks those of a suite file.
_OLD_RECORDS = {"extra": "ignore"}


@dataclass(frozen=True)
class SharedPrefix:
    """`groups` prefixes of `tokens` each; every one begins the prompts of `turns` requests, one after the other."""

    tokens: int = 512
    groups: int = 8
    turns: int = 4
    __pydantic_config__ = _CLOSED

    def __post_init__(self) -> None:
        for name, count in vars(self).items():
            if count < 1:
                raise ValueError(f"{name} of a shared prefix starts at 1, got {count}")


@dataclass(frozen=True, kw_only=True)
class Named:
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

    @property
    def deepest(self) -> int:
        """The most tokens of context that are in the KV cache before a clock starts."""
        return 0

    def _level(self) -> str:
        raise NotImplementedError

    def _sizes(self) -> str:
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Tokens(Named):
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
class Lengths(Tokens):
    """`lengths` are those of `Tokens`, or drawn.

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
class Deep(Tokens):
    """Prompts follow a context of `depth_tokens`, which is in the KV cache before the clock starts."""

    depth_tokens: int = field(default=0, metadata=OMITTED_AT_DEFAULT)

    @property
    def deepest(self) -> int:
        return self.depth_tokens

    @property
    def longest(self) -> int:
        return self.deepest + super().longest

    def _sizes(self) -> str:
        depth = f"d{self.depth_tokens}-" if self.depth_tokens else ""
        return depth + super()._sizes()

    def _faults(self) -> Iterator[str]:
        yield from super()._faults()
        if self.depth_tokens < 0:
            yield f"depth_tokens cannot be below zero, got {self.depth_tokens}"
        if self.depth_tokens and self.prompts:
            yield "the prompts of a file follow no drawn context: leave out depth_tokens, or prompts"


@dataclass(frozen=True, kw_only=True)
class Arrivals(Named):
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
class Served(Named):
    """Requests to the engine's server, `requests` of them measured within a load that is steady.

    `slo` makes goodput a metric.
    """

    requests: int = 100
    slo: Slo = Slo()  # noqa: RUF009  (frozen)
    online: ClassVar[bool] = True

    @property
    def waits(self) -> bool:
        """Whether the next request waits for an answer: a closed loop."""
        return False
