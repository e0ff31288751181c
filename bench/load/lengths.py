"""Prompt and output lengths in tokens, drawn from a distribution: pure functions of their seed."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Literal

Kind = Literal["fixed", "uniform", "lognormal"]
_TRIES = 100


def draw(kind: Kind, count: int, mean: int, spread: float, least: int, most: int, seed: str) -> tuple[int, ...]:
    """`count` lengths, each within `least` and `most`.

    fixed: all are the mean; `spread` is ignored. uniform: every integer from mean * (1 - spread)
    rounded down to mean * (1 + spread) rounded up is as likely, as under vLLM's bench --random-range-ratio.
    lognormal: `mean` is the distribution's mean and `spread` its coefficient of variation, before rounding.
    A value outside the limits is drawn again, up to 100 times, and then set to the nearer limit: limits
    that cut off much of the distribution move its mean. ValueError where the mean lies outside the limits,
    where a uniform spread is not in (0, 1] or a lognormal one not above zero.
    """
    if count < 0:
        raise ValueError(f"{count} lengths: must not be negative")
    if not 1 <= least <= mean <= most:
        raise ValueError(f"mean length {mean}: must lie within {least} to {most}, and these start at 1")
    if kind == "fixed":
        return (mean,) * count
    value = _sampler(kind, mean, spread, random.Random(seed))  # noqa: S311  (reproducible, not secret)
    return tuple(_within(value, least, most) for _ in range(count))


def _sampler(kind: Kind, mean: int, spread: float, rng: random.Random) -> Callable[[], int]:
    if kind == "uniform":
        if not 0 < spread <= 1:
            raise ValueError(f"uniform spread {spread}: must be above 0 and at most 1")
        low = math.floor(mean * (1 - spread) + 1e-9)  # 100 * 1.1 is a hair above 110
        high = math.ceil(mean * (1 + spread) - 1e-9)
        return lambda: rng.randint(low, high)
    if not (math.isfinite(spread) and spread > 0):
        raise ValueError(f"lognormal spread {spread}: must be above 0")
    variance = math.log1p(spread * spread)
    mu = math.log(mean) - variance / 2
    return lambda: round(rng.lognormvariate(mu, math.sqrt(variance)))


def _within(value: Callable[[], int], least: int, most: int) -> int:
    for _ in range(_TRIES):
        length = value()
        if least <= length <= most:
            return length
    return min(max(length, least), most)
