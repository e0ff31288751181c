import math

from bench.measure.stats import spread


def test_spread_over_rounds() -> None:
    """The figure of a cell is the median; an even number of rounds takes the middle of two."""
    summary = spread([5.0, 1.0, 2.0, 4.0])
    assert (summary.median, summary.low, summary.high, summary.n) == (3.0, 1.0, 5.0, 4)
    assert math.isnan(spread([7.0]).cv)
