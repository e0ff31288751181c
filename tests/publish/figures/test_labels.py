"""Labels of a figure do not collide."""

from __future__ import annotations

import itertools

import pytest

from bench.publish.figures import labels


@pytest.mark.parametrize("free", [(1, 1), (-1, -1), (1, -1)])
def test_labels_cover_neither_points_nor_each_other(free: tuple[int, int]) -> None:
    """Of thirty points on a heap some get a name; no two of those meet, and all stay inside."""
    at = [(100.0 + 14 * (i % 6), 100.0 + 9 * (i // 6)) for i in range(30)]
    texts = {i: f"recipe-{i}" for i in range(30)}
    placed = labels.fit(texts, at, (400, 300), free)
    boxes = [labels._box(at[i], texts[i], label) for i, label in placed.items()]
    assert 4 < len(placed) < 30
    assert not any(labels._overlap(a, b) for a, b in itertools.combinations(boxes, 2))
    assert not any(box[0] < x < box[2] and box[1] < y < box[3] for box in boxes for x, y in at)
    assert all(box[0] >= -labels._OVERHANG and box[2] <= 400 for box in boxes)
