from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from scipy import stats

from bench.load import arrivals


def gaps(times: tuple[float, ...]) -> list[float]:
    return [b - a for a, b in pairwise((0.0, *times))]


@pytest.mark.parametrize("seed", ["a", "b", "c"])
def test_poisson_gaps_are_exponential(seed: str) -> None:
    """A Kolmogorov-Smirnov test does not tell 5,000 gaps from exponential ones of mean 1 / rate."""
    observed = gaps(arrivals.poisson(5000, 8.0, seed))

    assert stats.kstest(observed, stats.expon(scale=1 / 8.0).cdf).pvalue > 0.01


def test_poisson_counts_have_the_variance_of_their_mean() -> None:
    """Arrivals in whole seconds have variance / mean near 1: no hidden regularity, no bursts."""
    times = arrivals.poisson(20000, 10.0, "x")
    counts = np.bincount(np.floor(times).astype(int))[:-1]

    assert counts.var() / counts.mean() == pytest.approx(1.0, abs=0.15)


@pytest.mark.parametrize("burstiness", [0.25, 1.0, 4.0])
def test_gamma_gaps_have_their_moments(burstiness: float) -> None:
    """The mean gap is 1 / rate, its coefficient of variation 1 / sqrt(burstiness), its shape a gamma's."""
    observed = np.array(gaps(arrivals.gamma(20000, 5.0, burstiness, "g")))

    assert observed.mean() == pytest.approx(0.2, rel=0.05)
    assert observed.std() / observed.mean() == pytest.approx(burstiness**-0.5, rel=0.05)
    distribution = stats.gamma(burstiness, scale=1 / (5.0 * burstiness))
    assert stats.kstest(observed[:5000], distribution.cdf).pvalue > 0.01


def test_constant_arrivals_are_even() -> None:
    """The first is due at once, and every gap is 1 / rate."""
    assert arrivals.constant(4, 2.0) == (0.0, 0.5, 1.0, 1.5)


def test_a_seed_gives_the_same_times() -> None:
    """Every engine meets the same arrivals; another seed is another schedule."""
    assert arrivals.poisson(50, 3.0, "s") == arrivals.poisson(50, 3.0, "s")
    assert arrivals.poisson(50, 3.0, "s") != arrivals.poisson(50, 3.0, "t")
    assert list(arrivals.gamma(50, 3.0, 0.5, "s")) == sorted(arrivals.gamma(50, 3.0, 0.5, "s"))


@pytest.mark.parametrize(
    "call",
    [
        lambda: arrivals.poisson(3, 0.0, ""),
        lambda: arrivals.constant(-1, 1.0),
        lambda: arrivals.constant(1, float("inf")),
        lambda: arrivals.gamma(3, 1.0, 0.0, ""),
        lambda: arrivals.ramp(3, -2.0, ""),
        lambda: arrivals.ramp(-3, 2.0, ""),
    ],
)
def test_what_is_no_rate_is_refused(call: Callable[[], object]) -> None:
    """A rate or burstiness of zero, or a negative count, is an error and not an endless schedule."""
    with pytest.raises(ValueError, match="must"):
        call()


def test_a_ramps_rate_rises_evenly() -> None:
    """Its times squared are uniform over the ramp: the rate's integral is t^2; the end is at 2 N / rate."""
    times = np.array(arrivals.ramp(5000, 10.0, "r"))
    end = 2 * 5000 / 10.0

    assert times[-1] == pytest.approx(end, rel=0.05)
    assert stats.kstest((times / times[-1])[:-1] ** 2, "uniform").pvalue > 0.01
    assert len(times[times > 0.9 * end]) / (0.1 * end) == pytest.approx(9.5, rel=0.15)
