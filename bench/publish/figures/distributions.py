"""How latency is spread over requests: quantile curves of the online loads, few enough to draw.

From the traces beside the records; where none were kept, from the percentiles that the record has. As the
tables do it: quantiles within a round, then the median over the rounds; never pooled.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from bench.contract.record import RequestTrace, Result
from bench.measure.latency import itl_s, observations, tpot_s, ttft_s
from bench.measure.online_load import measured
from bench.publish.tables.columns import DISTRIBUTIONS
from bench.store import Store

SHARES = (*(i / 50 for i in range(50)), 0.99, 1.0)
_RECORDED = {0.5: ("", "_p50"), 0.9: ("_p90",), 0.95: ("_p95",), 0.99: ("_p99",)}
Curve = tuple[tuple[float, float], ...]  # share of requests (or gaps) at or below -> seconds


@dataclass(frozen=True)
class Distribution:
    """One cell's. `curves`: metric (ttft_s, itl_s, tpot_s) -> its quantiles; absent where nothing is known.

    `traced`: from every request, not from a few recorded percentiles.
    """

    device: str
    suite: str
    model: str
    recipe: str
    engine: str
    workload: str
    curves: dict[str, Curve]
    traced: bool

    @property
    def choice(self) -> str:
        """What one would deploy."""
        return f"{self.recipe} on {self.engine}"


def build(results: Iterable[Result], store: Store) -> list[Distribution]:
    """One for each cell of a closed, open or replayed load, in the order of the records."""
    cells: dict[tuple[str, ...], list[Result]] = {}
    for result in results:
        cell, load = result.cell, result.cell.workload
        if load is not None and load.kind in ("closed", "open", "trace") and result.status == "ok":
            key = (result.hardware.slug, result.suite, cell.model.shown, cell.recipe.name, cell.engine.title, cell.what)
            cells.setdefault(key, []).append(result)
    return [_distribution(key, rounds, store) for key, rounds in cells.items()]


def quantiles(traces: Sequence[RequestTrace]) -> dict[str, list[float]]:
    """Metric -> its values at SHARES, over the requests that completed, each gap of ITL counting once."""
    seen = observations(traces)
    values = {
        "ttft_s": [ttft_s(t) for t in seen],
        "itl_s": [gap for t in seen for gap in itl_s(t)],
        "tpot_s": [v for t in seen if (v := tpot_s(t)) is not None],
    }
    return {key: np.quantile(its, SHARES).tolist() for key, its in values.items() if its}


def _distribution(key: tuple[str, ...], rounds: Sequence[Result], store: Store) -> Distribution:
    traced = [measured(store.traces(store.path(r)), r.facts) for r in rounds]
    found = [quantiles(traces) for traces in traced if traces]
    if found:
        known = [c.key for c in DISTRIBUTIONS if all(c.key in its for its in found)]
        curves = {k: _over(SHARES, [its[k] for its in found]) for k in known}
    else:
        curves = {c.key: curve for c in DISTRIBUTIONS if (curve := _recorded(c.key, rounds))}
    device, suite, model, recipe, engine, what = key
    return Distribution(device, suite, model, recipe, engine, what, curves, bool(found))


def _over(shares: Sequence[float], rounds: Sequence[Sequence[float]]) -> Curve:
    return tuple((share, median(values)) for share, values in zip(shares, zip(*rounds, strict=True), strict=True))


def _recorded(metric: str, rounds: Sequence[Result]) -> Curve:
    name = metric.removesuffix("_s")
    found = []
    for share, ends in _RECORDED.items():
        keys = [f"{name}{end}_s" for end in ends]
        values = [r.metrics[key] for r in rounds for key in keys if key in r.metrics]
        found += [(share, median(values))] if values else []
    return tuple(found)
