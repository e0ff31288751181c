from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from bench.load.lengths import Kind, draw


def test_fixed_lengths_are_the_mean() -> None:
    """No draw, and no spread."""
    assert draw("fixed", 3, 128, 0.0, 1, 4096, "s") == (128, 128, 128)


@pytest.mark.parametrize("seed", ["a", "b", "c"])
def test_uniform_lengths_are_even_to_both_ends(seed: str) -> None:
    """A chi-square test does not tell 20,000 lengths from even ones, and both ends occur."""
    drawn = draw("uniform", 20_000, 100, 0.1, 1, 4096, seed)
    counts = Counter(drawn)

    assert sorted(counts) == list(range(90, 111))
    assert stats.chisquare(list(counts.values())).pvalue > 0.01
    assert np.mean(drawn) == pytest.approx(100, rel=0.01)


@pytest.mark.parametrize(("mean", "spread", "ends"), [(25, 0.5, (12, 38)), (10, 1.0, (1, 20))])
def test_uniform_ends_are_rounded_outward(mean: int, spread: float, ends: tuple[int, int]) -> None:
    """As vLLM rounds them; a length of zero is drawn again."""
    drawn = draw("uniform", 5000, mean, spread, 1, 4096, "s")

    assert (min(drawn), max(drawn)) == ends


@pytest.mark.parametrize("spread", [0.2, 0.5, 1.0])
def test_lognormal_lengths_have_their_moments(spread: float) -> None:
    """The mean is the mean asked for and the spread its coefficient of variation, not those of the log."""
    drawn = np.array(draw("lognormal", 20_000, 1000, spread, 1, 10_000_000, "m"))

    assert drawn.mean() == pytest.approx(1000, rel=0.03)
    assert drawn.std() / drawn.mean() == pytest.approx(spread, rel=0.05)
    sigma = np.sqrt(np.log1p(spread**2))
    distribution = stats.lognorm(sigma, scale=1000 * np.exp(-(sigma**2) / 2))
    assert stats.kstest(drawn[:5000], distribution.cdf).pvalue > 0.01


@pytest.mark.parametrize("kind", ["uniform", "lognormal"])
def test_limits_are_kept_without_a_heap_at_them(kind: Kind) -> None:
    """What lies outside is drawn again: no limit has more than its share."""
    drawn = draw(kind, 20_000, 500, 1.0, 400, 600, "s")
    counts = Counter(drawn)

    assert set(drawn) == set(range(400, 601))
    assert max(counts[400], counts[600]) < 3 * 20_000 / 201


def test_draws_again_are_bounded() -> None:
    """Limits that almost nothing meets give the limit, and no endless loop."""
    assert set(draw("lognormal", 50, 100, 1e6, 99, 101, "s")) <= {99, 100, 101}


@pytest.mark.parametrize("kind", ["uniform", "lognormal"])
def test_a_seed_gives_the_same_lengths(kind: Kind) -> None:
    """Every engine meets the same lengths; another seed draws others; a longer draw begins as a shorter."""
    first = draw(kind, 50, 100, 0.5, 1, 4096, "s")

    assert first == draw(kind, 50, 100, 0.5, 1, 4096, "s")
    assert first == draw(kind, 80, 100, 0.5, 1, 4096, "s")[:50]
    assert first != draw(kind, 50, 100, 0.5, 1, 4096, "t")


@pytest.mark.parametrize(
    "call",
    [
        lambda: draw("uniform", 1, 100, 0.0, 1, 4096, ""),
        lambda: draw("uniform", 1, 100, 1.5, 1, 4096, ""),
        lambda: draw("uniform", 1, 100, float("nan"), 1, 4096, ""),
        lambda: draw("lognormal", 1, 100, 0.0, 1, 4096, ""),
        lambda: draw("lognormal", 1, 100, float("inf"), 1, 4096, ""),
        lambda: draw("fixed", 1, 5000, 0.0, 1, 4096, ""),
        lambda: draw("fixed", 1, 0, 0.0, 0, 4096, ""),
        lambda: draw("fixed", -1, 100, 0.0, 1, 4096, ""),
    ],
)
def test_what_is_no_distribution_is_refused(call: Callable[[], object]) -> None:
    """A spread, mean or count without a meaning is an error and not a surprising length."""
    with pytest.raises(ValueError, match="must"):
        call()
