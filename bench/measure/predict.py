"""How long a step would take on a device that is not here: what its roofline allows, by what engines need.

A measured time is modelled as overhead per layer + least time / efficiency, both fitted to the cells of one
engine and format by least squares of the relative error. Where there are too few cells of a format, the
engine's are taken together, and then all. The error is that of cells left out of the fit, one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

_ENOUGH = 3  # cells to fit two numbers to


@dataclass(frozen=True)
class Sample:
    """A measured time of a step beside the least that the roofline of its device allows, in seconds."""

    engine: str
    format: str
    layers: int
    least_s: float
    took_s: float
    name: str = ""


@dataclass(frozen=True)
class Law:
    """took = `per_layer_s` x layers + `factor` x least; the factor is one over the efficiency.

    `of`: whose cells it was fitted to, and how many.
    """

    per_layer_s: float
    factor: float
    of: str
    cells: int

    def time_s(self, least_s: float, layers: int) -> float:
        return self.per_layer_s * layers + self.factor * least_s


@dataclass(frozen=True)
class Left:
    """A cell that was left out: what was measured, and what the others say of it."""

    sample: Sample
    predicted_s: float

    @property
    def error_fraction(self) -> float:
        return self.predicted_s / self.sample.took_s - 1.0


def law(samples: Sequence[Sample], engine: str, format_: str) -> Law | None:
    """The law of an engine and format, of the engine, or of all; None where there are too few cells."""
    wider: tuple[tuple[str, Callable[[Sample], bool]], ...] = (
        (f"{engine} {format_}", lambda s: (s.engine, s.format) == (engine, format_)),
        (engine, lambda s: s.engine == engine),
        ("all engines", lambda _: True),
    )
    for of, fits in wider:
        mine = [s for s in samples if fits(s)]
        if len(mine) >= _ENOUGH:
            return Law(*_fitted(mine), of, len(mine))
    return None


def left_out(samples: Sequence[Sample]) -> list[Left]:
    """Each cell as the others predict it; cells that the others are too few for are not there."""
    found = []
    for i, sample in enumerate(samples):
        others = [*samples[:i], *samples[i + 1 :]]
        if (rule := law(others, sample.engine, sample.format)) is not None:
            found.append(Left(sample, rule.time_s(sample.least_s, sample.layers)))
    return found


def error(left: Sequence[Left]) -> tuple[float, float] | None:
    """(median, 90th percentile) of the relative errors, signs dropped; None without any."""
    errors = sorted(abs(each.error_fraction) for each in left)
    if not errors:
        return None
    return median(errors), errors[min(len(errors) - 1, int(0.9 * len(errors)))]


def _fitted(samples: Sequence[Sample]) -> tuple[float, float]:
    """(overhead per layer, factor), neither below zero, of least squares of took / predicted - 1.

    Divided by the time taken, the model is linear: layers/took x overhead + least/took x factor = 1.
    """
    rows = [(s.layers / s.took_s, s.least_s / s.took_s) for s in samples]
    aa, ab, bb = (
        sum(p * q for p, q in pairs)
        for pairs in ([(a, a) for a, _ in rows], [(a, b) for a, b in rows], [(b, b) for _, b in rows])
    )
    a, b = sum(a for a, _ in rows), sum(b for _, b in rows)
    determinant = aa * bb - ab * ab
    if determinant > 1e-9 * aa * bb:
        overhead, factor = (a * bb - b * ab) / determinant, (b * aa - a * ab) / determinant
        if overhead >= 0 and factor >= 0:
            return overhead, factor
    one = (a / aa if aa else 0.0, 0.0), (0.0, b / bb if bb else 0.0)
    return min(one, key=lambda law: sum((p * law[0] + q * law[1] - 1) ** 2 for p, q in rows))
