"""How long a step would take on a device that is not here: what its roofline allows, by what engines need.

A measured time is modelled as overhead per layer + least time / efficiency, both fitted to the cells of one
engine and format by least squares of the relative error. Where there are too few cells of a format, the
engine's are taken together, and then all. The error is that of cells left out of the fit, one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median, quantiles
from typing import NamedTuple

_ENOUGH = 3  # cells to fit two numbers to
_TAIL = 10  # cells below which a 90th percentile is but the largest


@dataclass(frozen=True)
class Sample:
    """A measured time of a step, and the least that the roofline of its device allows, in seconds."""

    engine: str
    format: str
    layers: int
    least_s: float
    took_s: float
    name: str = ""


@dataclass(frozen=True)
class LatencyModel:
    """Time = `per_layer_s` x layers + `factor` x least time; the factor is one over the efficiency.

    `of`: the engine and format that it was fitted to, from so many `cells`.
    """

    per_layer_s: float
    factor: float
    of: str
    cells: int

    def time_s(self, least_s: float, layers: int) -> float:
        return self.per_layer_s * layers + self.factor * least_s


def fit(samples: Sequence[Sample], engine: str, format_: str) -> LatencyModel | None:
    """The model of an engine and format, of the engine, or of all; None where there are too few cells."""
    groups: tuple[tuple[str, Callable[[Sample], bool]], ...] = (
        (f"{engine} {format_}", lambda s: (s.engine, s.format) == (engine, format_)),
        (engine, lambda s: s.engine == engine),
        ("all engines", lambda _: True),
    )
    for of, belongs in groups:
        group = [s for s in samples if belongs(s)]
        if len(group) >= _ENOUGH:
            return LatencyModel(*_least_squares(group), of, len(group))
    return None


def hold_out(samples: Sequence[Sample]) -> list[tuple[Sample, float]]:
    """Each cell with the relative error of its time as the others predict it; none that these are too few for."""
    models = [fit([*samples[:i], *samples[i + 1 :]], s.engine, s.format) for i, s in enumerate(samples)]
    pairs = zip(samples, models, strict=True)
    return [(s, model.time_s(s.least_s, s.layers) / s.took_s - 1.0) for s, model in pairs if model]


class Error(NamedTuple):
    """Relative errors, signs dropped. `p90`: None below ten of them, where it would be but the largest."""

    median: float
    p90: float | None
    largest: float


def error(errors: Sequence[tuple[Sample, float]]) -> Error | None:
    """Of cells that were left out; None without any. Percentiles as in `latency`: Hyndman and Fan's definition 7."""
    sizes = [abs(fraction) for _, fraction in errors]
    if not sizes:
        return None
    p90 = quantiles(sizes, n=10, method="inclusive")[-1] if len(sizes) >= _TAIL else None
    return Error(median(sizes), p90, max(sizes))


def _least_squares(samples: Sequence[Sample]) -> tuple[float, float]:
    """(overhead per layer, factor), neither below zero, of least squares of took / predicted - 1.

    Divided by the time taken, the model is linear: layers/took x overhead + least/took x factor = 1.
    """
    from scipy import optimize  # slow to import, and needed by `predict` alone

    rows = [(s.layers / s.took_s, s.least_s / s.took_s) for s in samples]
    (per_layer_s, factor), _ = optimize.nnls(rows, [1.0] * len(rows))
    return float(per_layer_s), float(factor)
