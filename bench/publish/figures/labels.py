"""Names beside points that do not cover each other: a chart in a file cannot be hovered."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

_CHAR, _HEIGHT, _RADIUS = 6.7, 15.0, 6.0  # of 12 px text, and of a point, in pixels
_MARGIN = 0.07


@dataclass(frozen=True)
class Placed:
    """A label that found a place: of which point, its alignment and its offset in pixels (y downward)."""

    index: int
    align: str
    dx: float
    dy: float


def domain(values: Sequence[float], *, log: bool, margin: float = _MARGIN) -> tuple[float, float]:
    """The ends of an axis over the values, with room around them."""
    low, high = min(values), max(values)
    if log:
        room = max(math.log(high / low) * margin, 0.1)
        return low / math.exp(room), high * math.exp(room)
    room = max((high - low) * margin, abs(high) * 0.02, 1e-9)
    return low - room, high + room


def positions(values: Sequence[float], ends: tuple[float, float], length: float, *, log: bool) -> list[float]:
    """Where on an axis of `length` pixels the values are, from its low end."""
    low, high = map(math.log, ends) if log else ends
    return [((math.log(v) if log else v) - low) / (high - low) * length for v in values]


def place(
    texts: Sequence[str],
    at: Sequence[tuple[float, float]],
    order: Sequence[int],
    width: float,
    height: float,
    line: Sequence[tuple[float, float]] = (),
) -> list[Placed]:
    """As many labels as fit, asked in `order`; `at` are the points in pixels, y downward. "" asks for none.

    A place off the line through `line` is taken first, where there is one.
    """
    drawn = [(x - 2, y - 2, x + 2, y + 2) for x, y in _along(line)]
    taken: list[Sequence[float]] = [(x - _RADIUS, y - _RADIUS, x + _RADIUS, y + _RADIUS) for x, y in at]
    found = []
    for index in (i for i in order if texts[i]):
        size = len(texts[index]) * _CHAR
        boxes = [(side, _box(at[index], size, *side)) for side in _around()]
        others = [box for i, box in enumerate(taken) if i != index]
        free = [
            (side, box)
            for side, box in boxes
            if box[0] >= 0 and box[2] <= width and box[1] >= -4 and box[3] <= height
            if not any(_overlap(box, other) for other in others)
        ]
        clear = [one for one in free if not any(_overlap(one[1], other) for other in drawn)]
        for side, box in (clear or free)[:1]:
            taken.append(box)
            found.append(Placed(index, *side))
    return found


def _around() -> Iterator[tuple[str, float, float]]:
    yield from (("left", 12, 0), ("right", -12, 0), ("center", 0, -17), ("center", 0, 17))
    yield from (("left", 8, -12), ("left", 8, 12), ("right", -8, -12), ("right", -8, 12))


def _along(line: Sequence[tuple[float, float]]) -> Iterator[tuple[float, float]]:
    """Points on the line, a few pixels apart."""
    for (x0, y0), (x1, y1) in pairwise(line):
        steps = max(1, math.ceil(math.hypot(x1 - x0, y1 - y0) / 6))
        yield from ((x0 + (x1 - x0) * i / steps, y0 + (y1 - y0) * i / steps) for i in range(steps + 1))


def _box(at: tuple[float, float], size: float, align: str, dx: float, dy: float) -> tuple[float, ...]:
    left = at[0] + dx - {"left": 0.0, "center": size / 2, "right": size}[align]
    return left, at[1] + dy - _HEIGHT / 2, left + size, at[1] + dy + _HEIGHT / 2


def _overlap(one: Sequence[float], other: Sequence[float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
