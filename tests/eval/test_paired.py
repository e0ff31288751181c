"""Statistics of two artifacts on the same items, against SciPy, published figures and simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats as scipy_stats

from bench.measure import stats
from eval.stats import paired


def test_mcnemar_is_the_exact_binomial_test() -> None:
    """SciPy's two-sided binomial test at even odds over the flips, for every split of up to 40 flips."""
    for flips in range(1, 41):
        for worse in range(flips + 1):
            expected = scipy_stats.binomtest(worse, flips, 0.5).pvalue

            assert paired.mcnemar(worse, flips - worse) == pytest.approx(expected, abs=1e-12)
    assert paired.mcnemar(0, 0) == 1.0
    assert paired.mcnemar(700, 800) == pytest.approx(scipy_stats.binomtest(700, 1500, 0.5).pvalue, rel=1e-9)


def test_mcnemar_gives_the_published_figures() -> None:
    """Fagerland, Lydersen and Laake 2013 (BMC Med Res Methodol 13:91): 1 against 7 pairs, exact p 0.070."""
    assert round(paired.mcnemar(1, 7), 3) == 0.070


def test_holm_gives_what_r_does() -> None:
    """p.adjust of R's stats package, method "holm", on values out of order, with a tie, and none."""
    assert stats.holm([0.04, 0.01, 0.03, 0.05, 0.02]) == pytest.approx([0.09, 0.05, 0.09, 0.09, 0.08])
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert stats.holm([0.6, 0.7]) == [1.0, 1.0]
    assert stats.holm([]) == []


def test_the_interval_is_the_percentile_bootstrap() -> None:
    """SciPy's, over the same changes with one item more in each direction, within resampling noise."""
    changes = [-1.0] * 60 + [1.0] * 30 + [0.0] * 910
    result = scipy_stats.bootstrap(
        ([*changes, -1.0, 1.0],), np.mean, method="percentile", n_resamples=10_000, rng=np.random.default_rng(1)
    ).confidence_interval

    assert paired.interval(changes) == pytest.approx((result.low, result.high), abs=0.002)
    assert paired.interval(changes) == paired.interval(changes)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("items", "better", "worse"), [(1000, 0.05, 0.08), (1000, 0.01, 0.02), (2376, 0.02, 0.05), (200, 0.1, 0.2)]
)
def test_the_interval_covers_the_truth_as_often_as_it_says(items: int, better: float, worse: float) -> None:
    """Of 1,500 simulated pairs of artifacts, 93 to 97 % of the 95 % intervals hold the true difference."""
    random, hits = np.random.default_rng(7), 0
    for _ in range(1500):
        won, lost, _same = random.multinomial(items, [better, worse, 1 - better - worse])
        low, high = paired.interval(_changes(int(won), int(lost), items))
        hits += low <= better - worse <= high

    assert 0.93 <= hits / 1500 <= 0.97


def test_no_flip_is_no_proof_of_no_difference() -> None:
    """Where nothing flipped the interval has a width, and it shrinks with the items."""
    few, many = paired.interval([0.0] * 100), paired.interval([0.0] * 10_000)

    assert few[0] < many[0] < 0 < many[1] < few[1]


def test_an_artifact_is_compared_item_by_item() -> None:
    """Difference, flips each way and p of the same items; recovery is the task's to say."""
    mine, theirs = [1.0, 0.0, 1.0, 1.0, 0.0], [1.0, 1.0, 0.0, 1.0, 1.0]
    comparison = paired.compare(mine, theirs)

    assert comparison["score_change"] == pytest.approx(-0.2)
    assert (comparison["flips_worse"], comparison["flips_better"]) == (2.0, 1.0)
    assert comparison["mcnemar_p"] == 1.0
    assert comparison["score_change_low"] < -0.2 < comparison["score_change_high"]


def test_other_items_are_refused() -> None:
    """Pairs need as many items on both sides, and some."""
    for mine, theirs in (([1.0], [1.0, 0.0]), ([], [])):
        with pytest.raises(ValueError, match="cannot be paired"):
            paired.compare(mine, theirs)


def _changes(won: int, lost: int, items: int) -> list[float]:
    return [1.0] * won + [-1.0] * lost + [0.0] * (items - won - lost)


@pytest.mark.parametrize("windows", [2, 3, 5, 20])
def test_the_interval_per_token_covers_the_truth_at_few_windows_too(windows: int) -> None:
    """Of 2,000 simulated pairs of texts, 93 to 97 % of the intervals hold the true change.

    With the normal distribution's 1.96 for Student's t it is 70 % at two windows, and 88 % at five.
    """
    random, hits, counts = np.random.default_rng(3), 0, [512] * windows
    for _ in range(2000):
        mean, half = paired.per_token(list(random.normal(512 * 0.01, 20.0, windows)), counts)
        hits += abs(mean - 0.01) <= half

    assert 0.93 <= hits / 2000 <= 0.97


def test_the_interval_per_token_is_that_of_scipys_t_test() -> None:
    """Of windows of equal length."""
    changes = [1.0, -2.0, 4.0, 3.5]
    interval = scipy_stats.ttest_1samp(changes, 0.0).confidence_interval(0.95)
    mean, half = paired.per_token(changes, [10] * 4)

    assert (mean - half, mean + half) == pytest.approx((interval.low / 10, interval.high / 10))


@pytest.mark.parametrize("windows", [2, 5, 30])
def test_a_mean_of_skewed_windows_is_covered_at_few_of_them_too(windows: int) -> None:
    """2,000 simulations of unequal windows of skewed sums: nine in ten intervals hold the mean per token.

    Of a bootstrap over two windows it is 45 %, over five 79 %.
    """
    random, hits = np.random.default_rng(5), 0
    for _ in range(2000):
        counts = random.integers(100, 500, size=windows)
        mean, half = paired.per_token((counts * random.gamma(2.0, 0.01, size=windows)).tolist(), counts.tolist())
        hits += abs(mean - 0.02) <= half

    assert 0.89 <= hits / 2000 <= 0.99
