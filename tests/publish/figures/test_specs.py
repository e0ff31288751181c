"""Ticks of logarithmic axes."""

from __future__ import annotations

import pytest

from bench.publish.figures.specs import ticks


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(40, 900, [50, 100, 200, 500]), (0.9, 9, [1, 2, 3, 5]), (1e-4, 2, [1e-4, 1e-3, 1e-2, 0.1, 1])],
)
def test_ticks_are_round_and_few(low: float, high: float, expected: list[float]) -> None:
    """At 1, 2 and 5 in a decade or two, at powers of ten over several."""
    assert ticks(low, high) == expected
