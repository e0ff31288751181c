from __future__ import annotations

import math

import pytest
from scipy import stats as scipy_stats

from bench.contract.variation import coefficient_of_variation, settled


def test_coefficient_of_variation_is_scipys() -> None:
    """The sample standard deviation over the mean, as scipy.stats.variation with ddof=1."""
    values = [3.0, 4.5, 5.25, 4.0]
    assert coefficient_of_variation(values) == pytest.approx(float(scipy_stats.variation(values, ddof=1)))
    assert math.isnan(coefficient_of_variation([1.0]))
    assert math.isnan(coefficient_of_variation([-1.0, 1.0]))


def test_warm_up_settles_on_its_tail() -> None:
    """A slow first run does not keep warm-up going; too few runs, or a wide tail, do."""
    assert settled([9.0, 1.0, 1.01, 1.0], 0.05)
    assert not settled([1.0, 1.0], 0.05)
    assert not settled([1.0, 1.0, 1.5], 0.05)
    assert not settled([0.0, 0.0, 0.0], 0.05)
