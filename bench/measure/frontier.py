"""Which of several choices no other beats: Pareto dominance, the one rule of recommendations and charts."""

from __future__ import annotations

from collections.abc import Sequence


def dominates(gains: Sequence[float]) -> bool:
    """Whether a choice that is better by these gains (negative: worse) is worse in nothing and better in something."""
    return all(gain >= 0 for gain in gains) and any(gain > 0 for gain in gains)


def frontier(points: Sequence[tuple[float, float]], more: tuple[bool, bool]) -> list[int]:
    """Indices of the points that no other dominates, ascending in the first figure.

    `more` says for each of the two figures whether the higher value is the better one. Equal points do not
    dominate each other. One sweep from the best of the first figure on: n log n.
    """
    signs = [1.0 if higher else -1.0 for higher in more]
    gains = [(signs[0] * x, signs[1] * y) for x, y in points]
    undominated: list[int] = []
    last = (float("inf"), -float("inf"))
    for i in sorted(range(len(gains)), key=lambda i: (-gains[i][0], -gains[i][1])):
        if gains[i][1] > last[1] or gains[i] == last:
            undominated.append(i)
            last = gains[i]
    return sorted(undominated, key=lambda i: points[i])
