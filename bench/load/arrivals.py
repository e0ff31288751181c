"""When requests arrive, as due times in seconds from the window's opening: pure functions of their seed.

Open-loop load: independent users do not wait for one another, so that a slow server meets the same arrivals
as a fast one. All are due within a window of `count` / rate seconds, the last gap included: what is offered in
it is the rate that was asked for, and the schedule can be repeated end to end.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from itertools import accumulate


def constant(count: int, rate_per_s: float) -> tuple[float, ...]:
    """One every 1 / rate seconds; the first is due at once."""
    _check(count, rate_per_s)
    return tuple(i / rate_per_s for i in range(count))


def poisson(count: int, rate_per_s: float, seed: str) -> tuple[float, ...]:
    """Independent arrivals, as a Poisson process has them in a window that holds just `count` of them.

    Exponential gaps, the one before the first and the one after the last included, over their sum: the order
    statistics of uniform times (Devroye 1986, ch. V.2).
    """
    _check(count, rate_per_s)
    draw = random.Random(seed)  # noqa: S311  (reproducible, not secret)
    return _filling(count / rate_per_s, [draw.expovariate(1.0) for _ in range(count + 1)])


def gamma(count: int, rate_per_s: float, burstiness: float, seed: str) -> tuple[float, ...]:
    """Gaps of a gamma distribution with mean 1 / rate and shape `burstiness`, as vLLM's bench names it.

    The gaps' coefficient of variation is 1 / sqrt(burstiness): below 1 burstier than Poisson, above 1 more
    regular. Fitted to the window as Poisson's are.
    """
    _check(count, rate_per_s)
    if not (math.isfinite(burstiness) and burstiness > 0):
        raise ValueError(f"burstiness {burstiness}: must be above zero; 1 is Poisson")
    draw = random.Random(seed)  # noqa: S311  (reproducible, not secret)
    return _filling(count / rate_per_s, [draw.gammavariate(burstiness, 1.0) for _ in range(count + 1)])


def ramp(count: int, rate_per_s: float, seed: str) -> tuple[float, ...]:
    """Independent arrivals whose rate rises evenly from nothing to `rate_per_s` at 2 * count / rate seconds.

    A Poisson process on the scale of the rate's integral R t^2 / 2T, whose inverse gives the times.
    """
    _check(count, rate_per_s)
    return tuple(math.sqrt(2 * count / rate_per_s * s) for s in poisson(count, rate_per_s / 2, seed))


def _filling(window_s: float, gaps: Sequence[float]) -> tuple[float, ...]:
    """The times between the gaps, of which all together are the window."""
    scale = window_s / math.fsum(gaps)
    return tuple(time * scale for time in accumulate(gaps[:-1]))


def _check(count: int, rate_per_s: float) -> None:
    if count < 0:
        raise ValueError(f"{count} arrivals: must not be negative")
    if not (math.isfinite(rate_per_s) and rate_per_s > 0):
        raise ValueError(f"rate {rate_per_s} requests/s: must be above zero")
