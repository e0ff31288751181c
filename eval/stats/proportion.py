"""How well a share of items is known."""

from __future__ import annotations

import math

from eval.stats.paired import Z95

SHARES = ("acc", "acc_norm", "exact_match", "em")  # lm-eval's metrics that are shares of items, and of groups too


def wilson(share: float, items: float) -> tuple[float, float]:
    """Wilson's 95 % score interval of a share within 0 .. 1 of so many items; it stays within 0 .. 1 itself.

    Wilson 1927; Brown, Cai and DasGupta 2001 recommend it for any number of items. ValueError below one item.
    """
    if items < 1:
        raise ValueError(f"{items:g} items: an interval needs at least one")
    z2 = Z95 * Z95 / items
    middle = (share + z2 / 2) / (1 + z2)
    half = math.sqrt(z2 * (share * (1 - share) + z2 / 4)) / (1 + z2)
    return max(0.0, middle - half), min(1.0, middle + half)


def interval(value: float, stderr: float, items: float, *, is_share: bool) -> tuple[float, float]:
    """The 95 % interval of a score by its standard error: Wilson's of a share, 1.96 errors of any other.

    Wilson's is that of as many items, right or wrong, as have this error, p (1 - p) / error^2 + 1: their own number
    where they are right or wrong, more for scores between, and `items` where the error is zero.
    """
    if not is_share or not 0 <= value <= 1:
        return value - Z95 * stderr, value + Z95 * stderr
    return wilson(value, value * (1 - value) / (stderr * stderr) + 1 if stderr > 0 else max(1.0, items))
