"""When requests arrive, as due times in seconds from the schedule's start: pure functions of their seed.

Open-loop load: independent users do not wait for one another, so that a slow server meets the same arrivals
as a fast one.
"""

from __future__ import annotations

import math
import random
from itertools import accumulate


def constant(count: int, rate_per_s: float) -> tuple[float, ...]:
    """One every 1 / rate seconds; the first is due at once."""
    _check(count, rate_per_s)
    return tuple(i / rate_per_s for i in range(count))


def poisson(count: int, rate_per_s: float, seed: str) -> tuple[float, ...]:
    """Independent arrivals: exponential gaps with mean 1 / rate, the first gap included."""
    _check(count, rate_per_s)
    draw = random.Random(seed)  # noqa: S311  (reproducible, not secret)
    return tuple(accumulate(draw.expovariate(rate_per_s) for _ in range(count)))


def gamma(count: int, rate_per_s: float, burstiness: float, seed: str) -> tuple[float, ...]:
    """Gaps of a gamma distribution with mean 1 / rate and shape `burstiness`, as vLLM's bench names it.

    The gaps' coefficient of variation is 1 / sqrt(burstiness): below 1 burstier than Poisson, above 1 more
    regular.
    """
    _check(count, rate_per_s)
    if not (math.isfinite(burstiness) and burstiness > 0):
        raise ValueError(f"burstiness {burstiness}: must be above zero; 1 is Poisson")
    draw = random.Random(seed)  # noqa: S311  (reproducible, not secret)
    scale = 1.0 / (rate_per_s * burstiness)
    return tuple(accumulate(draw.gammavariate(burstiness, scale) for _ in range(count)))


def ramp(count: int, rate_per_s: float, seed: str) -> tuple[float, ...]:
    """Independent arrivals whose rate rises evenly from nothing to `rate_per_s` at 2 * count / rate seconds.

    A Poisson process of rate 1 on the scale of the rate's integral R t^2 / 2T, whose inverse gives the times.
    """
    _check(count, rate_per_s)
    draw = random.Random(seed)  # noqa: S311  (reproducible, not secret)
    end = 2 * count / rate_per_s
    return tuple(math.sqrt(2 * end * s / rate_per_s) for s in accumulate(draw.expovariate(1.0) for _ in range(count)))


def _check(count: int, rate_per_s: float) -> None:
    if count < 0:
        raise ValueError(f"{count} arrivals: must not be negative")
    if not (math.isfinite(rate_per_s) and rate_per_s > 0):
        raise ValueError(f"rate {rate_per_s} requests/s: must be above zero")
