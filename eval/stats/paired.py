"""Two artifacts on the same items: is the difference more than chance, and how large may it be?

Items are paired, since a hard item is hard for both: a small difference may be significant where the standard
errors of the two scores overlap.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from bench.contract.errors import UserError

_RESAMPLES = 10_000
Z95 = 1.959963984540054  # of the normal distribution, for intervals of 95 %


def require_same_items(
    facts: Mapping[str, Any], other: Mapping[str, Any], same: Sequence[str], needed: Sequence[str] = ()
) -> None:
    """UserError where facts of a task cannot be compared: `same` ones differ, or one that is `needed` is not there."""
    for key in (*same, *needed):
        if key not in facts or key not in other:
            raise UserError(f"facts of another version of the task cannot be compared: '{key}' is missing")
    for key in same:
        if facts[key] != other[key]:
            raise UserError(f"figures over different items cannot be compared: '{key}' differs")


def compare(mine: Sequence[float], baseline: Sequence[float], *, seed: int = 0) -> Mapping[str, float]:
    """Scores of items within 0 .. 1, in one order. ValueError for none, or for different numbers of them.

    score_change: mean difference, with its 95 % interval (`interval`). flips_worse, flips_better: items that
    got a lower or a higher score. mcnemar_p: see `mcnemar`; for scores between 0 and 1 it is the sign test's.
    """
    if not mine or len(mine) != len(baseline):
        raise ValueError(f"{len(mine)} items cannot be paired with {len(baseline)}")
    changes = [a - b for a, b in zip(mine, baseline, strict=True)]
    worse, better = sum(c < 0 for c in changes), sum(c > 0 for c in changes)
    low, high = interval(changes, seed=seed)
    return {
        "score_change": math.fsum(changes) / len(changes),
        "score_change_low": low,
        "score_change_high": high,
        "flips_worse": float(worse),
        "flips_better": float(better),
        "mcnemar_p": mcnemar(worse, better),
    }


def mcnemar(worse: int, better: int) -> float:
    """Exact two-sided p-value of McNemar's test: under no difference a flip goes either way with even odds.

    2 * P(X <= min(worse, better)) for X binomial over all flips at 1/2, at most 1; 1 where nothing flipped.
    McNemar 1947, in its exact (binomial) form.
    """
    flips = worse + better
    tail: int = sum(math.comb(flips, k) for k in range(min(worse, better) + 1))
    return min(1.0, 2 * tail / (1 << flips))


def interval(changes: Sequence[float], *, level: float = 0.95, seed: int = 0) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean change of paired items, repeatable by `seed`.

    Items are drawn as pairs (Efron and Tibshirani 1993, ch. 13), from those given and two more, one better and one
    worse by the largest change: without these two (the adjustment of Bonett and Price 2012, for paired
    proportions) the interval is empty where nothing flipped, and too narrow where little did. 10,000 resamples.
    """
    import numpy as np

    largest = max(map(abs, changes), default=0.0) or 1.0
    values, counts = np.unique([*changes, -largest, largest], return_counts=True)
    drawn = np.random.default_rng(seed).multinomial(len(changes) + 2, counts / counts.sum(), size=_RESAMPLES)
    means = drawn @ values / (len(changes) + 2)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def window_changes(facts: Mapping[str, Any], other: Mapping[str, Any], key: str) -> dict[str, float]:
    """The change per token of sums by window; from two windows on also `_low` and `_high`, by `per_token`."""
    mean, half = per_token([a - b for a, b in zip(facts[key], other[key], strict=True)], facts["window_tokens"])
    return {"": mean, **({"_low": mean - half, "_high": mean + half} if len(facts[key]) > 1 else {})}


def per_token(changes: Sequence[float], counts: Sequence[int]) -> tuple[float, float]:
    """Mean change per token of paired windows of text, and half its 95 % interval; 0 for a single window.

    With d the difference of a window's sums and n its tokens, the change of the mean is m = sum d / sum n,
    its standard error that of a ratio estimator over W windows, sqrt(W / (W - 1) * sum (d - m n)^2) / sum n,
    and the interval is Student's t of W - 1 degrees of freedom (Cochran 1977, ch. 6.5). Tokens of one window depend
    on each other, windows hardly do. Simulated coverage of means of unequal windows with skewed (gamma) sums: 0.93
    at 2 windows, 0.90 at 5, 0.92 at 10, 0.93 at 60, where a bootstrap over windows has 0.45, 0.79, 0.88 and 0.93.
    """
    mean = math.fsum(changes) / sum(counts)
    if len(counts) < 2:
        return mean, 0.0
    from scipy import special  # slow to import, and needed by comparisons alone

    spread = math.fsum((d - mean * n) ** 2 for d, n in zip(changes, counts, strict=True))
    t95 = float(special.stdtrit(len(counts) - 1, 0.975))
    return mean, t95 * math.sqrt(spread * len(counts) / (len(counts) - 1)) / sum(counts)
