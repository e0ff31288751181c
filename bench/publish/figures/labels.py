"""Labels of points that overlap neither a point nor each other: a figure in a file has no tooltips."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

_CHAR, _LINE, _RADIUS = 6.7, 15.0, 6.0  # pixels: width and height of 12 px text, radius of a point
_OVERHANG = 22  # pixels that a label may reach to the left of the axis
# Alignment and offset in pixels, for a frontier whose free quadrant is at the lower right (x and y downward).
_ANCHORS = ((8, 14), (12, 0), (0, 14), (8, -14), (-8, 14), (0, -14), (-12, 0), (-8, -14))
Box = tuple[float, float, float, float]  # left, top, right, bottom


@dataclass(frozen=True)
class Label:
    """`dx` and `dy` are the offset of the text from its point in pixels, y downward."""

    align: str
    dx: int
    dy: int


def domain(values: Sequence[float], *, log: bool) -> tuple[float, float]:
    """The ends of an axis over the values, with a margin of 7 %."""
    low, high = min(values), max(values)
    if log:
        margin = max(math.log(high / low) * 0.07, 0.1)
        return low / math.exp(margin), high * math.exp(margin)
    margin = max((high - low) * 0.07, abs(high) * 0.02, 1e-9)
    return low - margin, high + margin


def positions(values: Sequence[float], ends: tuple[float, float], length: float, *, log: bool) -> list[float]:
    """The values' distances from the low end of an axis of `length` pixels."""
    low, high = map(math.log, ends) if log else ends
    return [((math.log(v) if log else v) - low) / (high - low) * length for v in values]


def fit(
    texts: dict[int, str], points: Sequence[tuple[float, float]], size: tuple[float, float], free: tuple[int, int]
) -> dict[int, Label]:
    """A label for as many of `texts` (by the index of their point, the first ones first) as fit into `size`.

    `points` are in pixels, y downward. `free`: the direction, +1 or -1 in x and y, in which a point of the
    frontier has none beyond it; that side is tried first.
    """
    boxes = {i: (x - _RADIUS, y - _RADIUS, x + _RADIUS, y + _RADIUS) for i, (x, y) in enumerate(points)}
    labels: dict[int, Label] = {}
    occupied = list(boxes.items())
    for index, text in texts.items():
        for across, down in _ANCHORS:
            dx, dy = across * free[0], down * free[1]
            label = Label("left" if dx > 0 else "right" if dx < 0 else "center", dx, dy)
            box = _box(points[index], text, label)
            inside = box[0] >= -_OVERHANG and box[2] <= size[0] and box[1] >= -4 and box[3] <= size[1]
            if inside and not any(_overlap(box, other) for i, other in occupied if i != index):
                labels[index] = label
                occupied.append((-1, box))
                break
    return labels


def _box(point: tuple[float, float], text: str, label: Label) -> Box:
    width = len(text) * _CHAR
    left = point[0] + label.dx - {"left": 0.0, "center": width / 2, "right": width}[label.align]
    return left, point[1] + label.dy - _LINE / 2, left + width, point[1] + label.dy + _LINE / 2


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
