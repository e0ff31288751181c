"""The noise of seeds: intervals and p-values are SciPy's, whichever of the two has replicates."""

from __future__ import annotations

import pytest
from scipy import stats

from bench.measure.seeds import SeedSpread, difference, over_seeds

A, B = [0.50, 0.53, 0.49], [0.61, 0.60, 0.66, 0.63]


def test_the_spread_is_the_mean_with_its_interval_and_the_ends() -> None:
    """Student's t of n - 1 degrees; the smallest and the largest replicate beside it."""
    spread = over_seeds(B)
    low, high = stats.t.interval(0.95, 3, 0.625, stats.sem(B))

    assert spread is not None
    assert (spread.mean, spread.low, spread.high) == pytest.approx((0.625, low, high))
    assert (spread.least, spread.most, spread.n) == (0.60, 0.66, 4)
    assert spread.half == pytest.approx((high - low) / 2)
    assert not spread.includes_zero
    assert SeedSpread(0.1, -0.1, 0.3, 0.0, 0.2, 3).includes_zero


def test_one_replicate_has_no_spread_and_equal_ones_have_none_either() -> None:
    """Nothing is known of one; of equal ones that the seed changed nothing."""
    assert over_seeds([1.0]) is None
    assert over_seeds([0.25, 0.25]) == SeedSpread(0.25, 0.25, 0.25, 0.25, 0.25, 2)


def test_two_with_replicates_are_compared_by_welchs_test() -> None:
    """The p-value is SciPy's, and the interval its own too; both directions are one test."""
    test = stats.ttest_ind(B, A, equal_var=False)
    interval = test.confidence_interval(0.95)
    result = difference(A, B, (True, True))

    assert result is not None
    assert result.p == pytest.approx(test.pvalue)
    assert result.change == pytest.approx(0.625 - 1.52 / 3)
    assert result.half == pytest.approx((interval.high - interval.low) / 2)
    back = difference(B, A, (True, True))
    assert back is not None
    assert (back.change, back.p) == pytest.approx((-result.change, result.p))


def test_what_no_seed_made_is_known_exactly() -> None:
    """Against the unquantized model, say: Student's test of one sample."""
    result = difference([0.55], B, (False, True))

    assert result is not None
    assert result.p == pytest.approx(stats.ttest_1samp(B, 0.55).pvalue)
    assert result.p < 0.05


def test_a_seeded_one_without_replicates_is_taken_to_vary_as_the_other() -> None:
    """Student's test of equal spreads: the same difference counts for less than against what is known exactly."""
    result = difference([0.55], B, (True, True))

    assert result is not None
    assert result.p == pytest.approx(stats.ttest_ind([0.55], B, equal_var=True).pvalue)
    assert result.p > 0.05


def test_without_replicates_nothing_is_said() -> None:
    """Neither of two single makings, nor of none at all."""
    assert difference([0.5], [0.6], (True, True)) is None
    assert difference([], B, (True, True)) is None


@pytest.mark.parametrize(("second", "p"), [([0.6, 0.6], 0.0), ([0.5, 0.5], 1.0)])
def test_seeds_that_change_nothing_leave_no_doubt(second: list[float], p: float) -> None:
    """Equal replicates: a difference is one, and none is none."""
    result = difference([0.5, 0.5], second, (True, True))

    assert result is not None
    assert (result.half, result.p) == (0.0, p)
