"""Pareto dominance, against its definition."""

from __future__ import annotations

import random

import pytest

from bench.measure.frontier import dominates, frontier


def test_no_worse_in_anything_and_better_in_something() -> None:
    """An equal choice does not beat its equal, and a trade does not beat the other side of it."""
    assert dominates([1.0, 0.0])
    assert not dominates([0.0, 0.0])
    assert not dominates([1.0, -0.1])


@pytest.mark.parametrize("more", [(True, True), (True, False), (False, True), (False, False)])
def test_the_sweep_finds_what_every_pair_compared_finds(more: tuple[bool, bool]) -> None:
    """Of points on a coarse grid, so that ties are many, exactly those that no other dominates."""
    drawn = random.Random(7)  # noqa: S311  (points, no secret)
    points = [(float(drawn.randrange(12)), float(drawn.randrange(12))) for _ in range(60)]

    def gains(one: tuple[float, float], other: tuple[float, float]) -> list[float]:
        return [(a - b) * (1 if up else -1) for a, b, up in zip(one, other, more, strict=True)]

    expected = {i for i, one in enumerate(points) if not any(dominates(gains(other, one)) for other in points)}
    indices = frontier(points, more)
    assert set(indices) == expected
    assert [points[i] for i in indices] == sorted(points[i] for i in indices)


def test_a_single_point_is_its_own_frontier() -> None:
    """And nothing has none."""
    assert frontier([(1.0, 2.0)], (True, True)) == [0]
    assert frontier([], (True, True)) == []
