"""How well a share of items is known."""

from __future__ import annotations

import math

from eval.stats.paired import Z95


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


def effective_items(share: float, stderr: float) -> float:
    """The number of items of right and wrong whose share has this standard error: p (1 - p) / error^2.

    For means of scores between 0 and 1, and for shares over groups. 0 where the error is zero.
    """
    return share * (1 - share) / (stderr * stderr) if stderr > 0 else 0.0
