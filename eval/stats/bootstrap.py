"""Intervals of ratios over blocks of text, by resampling the blocks."""

from __future__ import annotations

from collections.abc import Sequence

_RESAMPLES, _CHUNK = 2000, 250


def interval(
    sums: Sequence[float], counts: Sequence[float], *, level: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of sum(sums) / sum(counts), repeatable by `seed` (2,000 resamples).

    A block (a window of text) is drawn whole, with its sum and its count: tokens of one window depend on each
    other, windows hardly do. Efron and Tibshirani 1993, ch. 13. It is too narrow for few blocks: simulated
    coverage at 0.95, unequal blocks of skewed (gamma) sums, is 0.80 at 5 blocks, 0.84 at 10, 0.90 at 30 and
    0.93 at 60. ValueError below two blocks.
    """
    import numpy as np

    if len(sums) < 2:
        raise ValueError(f"an interval needs at least 2 blocks, not {len(sums)}")
    table = np.array([sums, counts], dtype=np.float64).T
    random, even = np.random.default_rng(seed), np.full(len(sums), 1 / len(sums))
    ratios = []
    for _ in range(_RESAMPLES // _CHUNK):
        drawn = random.multinomial(len(sums), even, size=_CHUNK) @ table
        ratios.append(drawn[:, 0] / drawn[:, 1])
    low, high = np.quantile(np.concatenate(ratios), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
