"""The interval of a ratio over blocks, by simulation."""

from __future__ import annotations

import numpy as np
import pytest

from eval.stats import bootstrap


@pytest.mark.slow
def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    """200 simulations of 60 unequal blocks of skewed sums: 89 to 99 % of the 95 % intervals hold it."""
    random, covered = np.random.default_rng(5), 0
    for _ in range(200):
        counts = random.integers(100, 500, size=60)
        sums = counts * random.gamma(2.0, 0.01, size=60)
        low, high = bootstrap.interval(sums.tolist(), counts.tolist())
        covered += low <= 0.02 <= high

    assert 178 <= covered <= 198


def test_it_is_repeatable_and_holds_the_ratio() -> None:
    """The same blocks, the same interval; blocks without any spread have one without width."""
    sums, counts = [1.0, 2.0, 4.0], [10, 10, 10]
    low, high = bootstrap.interval(sums, counts)

    assert (low, high) == bootstrap.interval(sums, counts)
    assert 0.1 <= low < 7 / 30 < high <= 0.4
    assert bootstrap.interval([3.0, 6.0], [1, 2]) == (3.0, 3.0)
    with pytest.raises(ValueError, match="at least 2"):
        bootstrap.interval([1.0], [1])
