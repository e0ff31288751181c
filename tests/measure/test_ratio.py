"""Welch's test of ratios is SciPy's, says what it cannot tell, and raises one false alarm in twenty."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats as scipy_stats

from bench.measure.ratio import EQUAL, SINGLE, WELCH, ZERO, Ratio, ratio, t_p


@pytest.mark.parametrize(("n1", "n2"), [(2, 2), (3, 3), (2, 5), (10, 3)])
def test_p_and_interval_are_scipys_welch_of_the_logarithms(n1: int, n2: int) -> None:
    """ttest_ind(equal_var=False) over logarithms gives the same p, and its interval the same ends."""
    rng = np.random.default_rng(n1 * 10 + n2)
    first, second = rng.lognormal(1.0, 0.05, n1), rng.lognormal(1.1, 0.2, n2)
    theirs = scipy_stats.ttest_ind(np.log(second), np.log(first), equal_var=False)
    ends = theirs.confidence_interval(0.95)
    result = ratio(first.tolist(), second.tolist())

    assert result.rule == WELCH
    assert result.value == pytest.approx(scipy_stats.gmean(second) / scipy_stats.gmean(first), rel=1e-12)
    assert result.p == pytest.approx(float(theirs.pvalue), rel=1e-9)
    assert (result.low, result.high) == pytest.approx((math.exp(ends.low), math.exp(ends.high)), rel=1e-9)


def test_one_side_without_spread_leaves_the_others_degrees_of_freedom() -> None:
    """Three equal rounds beside two that vary: one degree of freedom, p = 2 atan(1 / t) / pi."""
    result = ratio([1.0, 1.0, 1.0], [math.e, math.e**2])

    assert result.value == pytest.approx(math.e**1.5)
    assert result.p == pytest.approx(2 * math.atan(1 / 3) / math.pi)


def test_what_the_rounds_cannot_tell_is_said() -> None:
    """One round, rounds without any spread, a zero: no interval, no p, a ratio but for the last."""
    alone = ratio([2.0], [3.0, 3.1, 3.2])
    assert alone.value == pytest.approx((3.0 * 3.1 * 3.2) ** (1 / 3) / 2)
    assert (alone.low, alone.high, alone.p, alone.rule) == (None, None, None, SINGLE)
    assert ratio([2.0, 2.0], [3.0, 3.0]) == Ratio(1.5, None, None, None, EQUAL)
    assert ratio([2.0, 2.0], [2.0, 2.0]) == Ratio(1.0, None, None, None, EQUAL)
    assert ratio([0.0, 1.0], [1.0, 1.0]) == Ratio(None, None, None, None, ZERO)
    with pytest.raises(ValueError, match="cannot compare 0 rounds with 1"):
        ratio([], [1.0])


@pytest.mark.parametrize("rounds", [3, 5])
def test_a_side_against_itself_is_called_different_one_time_in_twenty(rounds: int) -> None:
    """Of 1,000 A/A comparisons at most 6.5 % have p < 0.05, and at 3 rounds no fewer than 2.5 %."""
    rng, alarms = np.random.default_rng(5), 0
    for _ in range(1000):
        first, second = rng.lognormal(3.0, 0.03, (2, rounds)).tolist()
        p = ratio(first, second).p
        alarms += p is not None and p < 0.05
    assert 25 <= alarms <= 65


@pytest.mark.parametrize("spreads", [(0.03, 0.03), (0.01, 0.1)])
def test_the_interval_covers_as_stated(spreads: tuple[float, float]) -> None:
    """At 3 rounds the 95 % interval holds the true ratio in 93.5 to 98.5 % of 1,000 simulated pairs."""
    rng, covered = np.random.default_rng(6), 0
    for _ in range(1000):
        first, second = rng.lognormal(0.0, spreads[0], 3), rng.lognormal(0.2, spreads[1], 3)
        result = ratio(first.tolist(), second.tolist())
        assert result.low is not None
        assert result.high is not None
        covered += result.low <= math.exp(0.2) <= result.high
    assert 935 <= covered <= 985


@pytest.mark.parametrize("degrees", [1, 4, 1e9])
def test_p_of_an_interval_is_that_of_its_t_test(degrees: float) -> None:
    """An interval that ends at zero has p 0.05, about zero p 1, without width none; else SciPy's."""
    assert t_p(0.0, 1.0, degrees) == pytest.approx(0.05)
    assert t_p(-2.0, 0.0, degrees) == pytest.approx(0.05)
    assert t_p(-1.0, 1.0, degrees) == pytest.approx(1.0)
    assert t_p(1.0, 1.0, degrees) is None
    values = [0.3, 1.0, 0.6, 0.7, 0.2]
    test = scipy_stats.ttest_1samp(values, 0.0)
    ends = test.confidence_interval(0.95)
    assert t_p(float(ends.low), float(ends.high), len(values) - 1) == pytest.approx(test.pvalue)
