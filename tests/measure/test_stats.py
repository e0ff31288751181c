import math

import pytest
from scipy import stats as scipy_stats

from bench.measure.stats import coefficient_of_variation, spread


def test_coefficient_of_variation_is_scipys() -> None:
    """The sample standard deviation over the mean, as scipy.stats.variation with ddof=1."""
    values = [3.0, 4.5, 5.25, 4.0]
    assert coefficient_of_variation(values) == pytest.approx(float(scipy_stats.variation(values, ddof=1)))
    assert math.isnan(coefficient_of_variation([1.0]))
    assert math.isnan(coefficient_of_variation([-1.0, 1.0]))


def test_spread_over_rounds() -> None:
    """The figure of a cell is the median; an even number of rounds takes the middle of two."""
    found = spread([5.0, 1.0, 2.0, 4.0])
    assert (found.median, found.low, found.high, found.n) == (3.0, 1.0, 5.0, 4)
    assert math.isnan(spread([7.0]).cv)
