import math

import numpy as np
import pytest
from scipy import stats as scipy_stats

from bench.measure.stats import median_interval, percentile, spread


@pytest.mark.parametrize("n", [1, 2, 3, 19, 20, 100, 101])
@pytest.mark.parametrize("q", [0, 2.5, 50, 95, 99, 99.9, 100])
def test_percentile_is_numpys_default(n: int, q: float) -> None:
    """The stated definition is the one NumPy calls linear, at every size and rank."""
    values = np.random.default_rng(n).lognormal(sigma=2, size=n).tolist()
    assert percentile(values, q) == pytest.approx(float(np.percentile(values, q)), rel=1e-12)


@pytest.mark.parametrize(("values", "q"), [([], 50), ([1.0], -1), ([1.0], 101)])
def test_percentile_refuses_what_has_no_answer(values: list[float], q: float) -> None:
    """No values or a rank outside 0..100 is an error, not a zero."""
    with pytest.raises(ValueError, match="percentile"):
        percentile(values, q)


def test_spread_over_rounds() -> None:
    """The figure of a cell is the median; an even number of rounds takes the middle of two."""
    found = spread([5.0, 1.0, 2.0, 4.0])
    assert (found.median, found.low, found.high, found.n) == (3.0, 1.0, 5.0, 4)
    assert math.isnan(spread([7.0]).cv)


@pytest.mark.parametrize(("n", "shape"), [(20, "normal"), (20, "skewed"), (60, "skewed")])
def test_median_interval_covers_as_stated(n: int, shape: str) -> None:
    """Over 1,000 simulated samples the 95 % interval holds the true median in 92 to 97 % of them."""
    rng = np.random.default_rng(11)
    truth, covered = (0.0 if shape == "normal" else 1.0), 0
    for trial in range(1000):
        sample = rng.normal(size=n) if shape == "normal" else rng.lognormal(size=n)
        low, high = median_interval(sample.tolist(), resamples=400, seed=trial)
        covered += low <= truth <= high
    assert 920 <= covered <= 970


def test_median_interval_is_near_scipys_bootstrap() -> None:
    """Same method as scipy.stats.bootstrap(method='percentile'), so the same ends up to resampling."""
    values = np.random.default_rng(3).gamma(2.0, size=40)
    theirs = scipy_stats.bootstrap(
        (values,), np.median, method="percentile", n_resamples=4000, rng=np.random.default_rng(1)
    ).confidence_interval
    ours = median_interval(values.tolist(), resamples=4000)
    assert ours == pytest.approx((theirs.low, theirs.high), rel=0.03)


def test_three_rounds_get_no_interval() -> None:
    """A 95 % interval from three values would be a promise nobody can keep."""
    with pytest.raises(ValueError, match="at least 6"):
        median_interval([1.0, 2.0, 3.0])
