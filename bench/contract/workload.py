"""A load: what is asked of an engine, how much of it, and when."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import PurePath
from typing import Literal

_CLOSED = {"extra": "forbid"}  # read by pydantic in the parent; an unknown key is an error
_LENGTHS = ("prompt_tokens", "new_tokens", "lengths", "spread")
_ARRIVALS = ("arrivals", "burstiness")

# The fields of a Workload that mean something to each kind; `kind` and `name` do to all.
LOAD_FIELDS: Mapping[str, tuple[str, ...]] = {
    "offline": ("prompt_tokens", "new_tokens", "batch", "repeats"),
    "closed": ("concurrency", "turns", "think_s", "requests", "at_most_s", "slo", *_LENGTHS),
    "open": ("rate_per_s", *_ARRIVALS, "requests", "window_s", "slo", *_LENGTHS),
    "trace": ("path", "speed", "rate_per_s", *_ARRIVALS, "requests", "slo"),
    "sweep": (
        "over",
        "concurrency",
        "rate_per_s",
        "most",
        *_ARRIVALS,
        "requests",
        "at_most_s",
        "window_s",
        "slo",
        *_LENGTHS,
    ),
    "search": ("rate_per_s", *_ARRIVALS, "requests", "window_s", "slo", *_LENGTHS),
}


@dataclass(frozen=True)
class Slo:
    """What a request must keep to count as good: seconds at most, 0 being no limit.

    TTFT, TPOT and E2EL as the latency metrics define them.
    """

    ttft_s: float = 0.0
    tpot_s: float = 0.0
    e2el_s: float = 0.0
    __pydantic_config__ = _CLOSED

    @property
    def limits(self) -> dict[str, float]:
        """Those that are set, by name."""
        found = {field.name: float(getattr(self, field.name)) for field in fields(self)}
        return {name: limit for name, limit in found.items() if limit > 0}


@dataclass(frozen=True)
class Workload:
    """A load of prompts of `prompt_tokens`, `new_tokens` made from each.

    `offline`: static batches of `batch` in process; `repeats` of them are measured in a round, after warm-up.

    The others go to the engine's server. In each, `requests` are measured after warm-up, and where they come
    at a rate as many as fill `window_s`, if that is more. `slo` makes goodput a metric.

    `closed`: `concurrency` in flight, each followed by the next, for `at_most_s` where that is above zero.
    With `turns` above 1 each of them is a conversation: its prompt grows by the answer's length and by
    `prompt_tokens` at every turn, which comes `think_s` after the last answer.
    `open`: due at `rate_per_s` on average, whatever is in flight. `arrivals`: poisson; constant; gamma with
    the shape `burstiness`, 1 being Poisson's; ramp, whose rate rises evenly from nothing to `rate_per_s`.
    `trace`: the lengths and times in the file at `path` (Azure LLM 2023 and BurstGPT CSV, Mooncake JSONL,
    ShareGPT JSON), `speed` times as fast; with `rate_per_s` above zero the lengths alone.
    `sweep`: closed loads of `concurrency`, or open ones of `rate_per_s`, doubled until the output rises no
    more or `most` is reached.
    `search`: the highest rate at which 95 % of the requests keep `slo`, from `rate_per_s` on.

    `lengths`: every prompt and answer of its length; or drawn: uniform within `spread` times the length
    about it, lognormal with the coefficient of variation `spread`.
    """

    batch: int = 1
    prompt_tokens: int = 128
    new_tokens: int = 64
    repeats: int = 5
    kind: Literal["offline", "closed", "open", "trace", "sweep", "search"] = "offline"
    name: str = ""
    concurrency: int = 1
    rate_per_s: float = 0.0
    arrivals: Literal["poisson", "constant", "gamma", "ramp"] = "poisson"
    burstiness: float = 1.0
    requests: int = 100
    window_s: float = 0.0
    at_most_s: float = 0.0
    lengths: Literal["fixed", "uniform", "lognormal"] = "fixed"
    spread: float = 0.0
    turns: int = 1
    think_s: float = 0.0
    path: str = ""
    speed: float = 1.0
    over: Literal["concurrency", "rate"] = "concurrency"
    most: float = 256.0
    slo: Slo = Slo()
    __pydantic_config__ = _CLOSED

    @property
    def online(self) -> bool:
        """Whether it goes to a server over HTTP."""
        return self.kind != "offline"

    @property
    def staged(self) -> bool:
        """Whether it is several loads, one after the other, against one server."""
        return self.kind in ("sweep", "search")

    @property
    def exact(self) -> bool:
        """Whether every request has the lengths `prompt_tokens` and `new_tokens`."""
        return self.kind != "trace" and self.lengths == "fixed" and self.turns == 1

    @property
    def longest(self) -> int:
        """The tokens that a request comes to hold, on average where lengths are drawn."""
        return (self.prompt_tokens + self.new_tokens) * self.turns

    @property
    def title(self) -> str:
        """As offline-b1-p128-n64, closed-c4-p128-n64, open-poisson2.5-p128-n64, trace-FILE-x2."""
        return self.name or "-".join(filter(None, (self.kind, self._how, self._sizes)))

    @property
    def _how(self) -> str:
        bursts = f"-b{self.burstiness:g}" if self.arrivals == "gamma" else ""
        rate = f"{self.arrivals}{self.rate_per_s:g}{bursts}"
        stem = PurePath(self.path).stem
        return {
            "offline": f"b{self.batch}",
            "closed": f"c{self.concurrency}" + (f"-t{self.turns}" if self.turns > 1 else ""),
            "open": rate,
            "trace": f"{stem}-{rate}" if self.rate_per_s > 0 else f"{stem}-x{self.speed:g}",
            "sweep": self.over,
            "search": "-".join(f"{k.removesuffix('_s')}{v:g}" for k, v in self.slo.limits.items()),
        }[self.kind]

    @property
    def _sizes(self) -> str:
        if self.kind == "trace":
            return f"r{self.requests}"
        drawn = "" if self.lengths == "fixed" else f"-{self.lengths}{self.spread:g}"
        return f"p{self.prompt_tokens}-n{self.new_tokens}{drawn}"
