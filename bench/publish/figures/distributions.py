"""Latency distributions: quantile curves of the online loads, few enough points to draw.

From the traces beside the records; where there are none, from the recorded percentiles. As in the tables:
quantiles within a round, then the median over the rounds, never pooled.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from bench.contract.record import RequestTrace, Result
from bench.measure.latency import itl_s, observations, tpot_s, ttft_s
from bench.measure.online_load import measured
from bench.publish.records import Choice
from bench.publish.tables.columns import DISTRIBUTIONS
from bench.publish.tables.model import names
from bench.store import Store

SHARES = (*(i / 50 for i in range(50)), 0.99, 1.0)
_RECORDED = (("_s", 0.5), ("_p50_s", 0.5), ("_p90_s", 0.9), ("_p95_s", 0.95), ("_p99_s", 0.99))
Curve = tuple[tuple[float, float], ...]  # share of requests (or gaps) at or below -> seconds


@dataclass(frozen=True)
class Distribution(Choice):
    """Latencies of one cell, quantiles by metric (ttft_s, itl_s, tpot_s); `traced`: of requests, not percentiles."""

    curves: dict[str, Curve]
    traced: bool


def build(results: Iterable[Result], store: Store) -> list[Distribution]:
    """One for each cell of a closed, open or replayed load, in the order of the records."""
    cells: dict[tuple[str, str, str, str, str, str], list[Result]] = {}
    for result in results:
        load = result.cell.workload
        if load is not None and load.kind in ("closed", "open", "trace") and result.status == "ok":
            cells.setdefault(names(result), []).append(result)
    return [Distribution(*cell, *_curves(rounds, store)) for cell, rounds in cells.items()]


def quantiles(traces: Sequence[RequestTrace]) -> dict[str, list[float]]:
    """Metric -> its values at SHARES, over the requests that completed, each gap of ITL counting once."""
    completed = observations(traces)
    values = {
        "ttft_s": [ttft_s(t) for t in completed],
        "itl_s": [gap for t in completed for gap in itl_s(t)],
        "tpot_s": [v for t in completed if (v := tpot_s(t)) is not None],
    }
    return {key: np.quantile(seconds, SHARES).tolist() for key, seconds in values.items() if seconds}


def _curves(rounds: Sequence[Result], store: Store) -> tuple[dict[str, Curve], bool]:
    """Quantiles by metric, and whether they are from traces."""
    traces = [measured(store.traces(store.path(r)), r.facts) for r in rounds]
    traced = [quantiles(its) for its in traces if its]
    curves: dict[str, Curve] = {}
    for metric in (column.key for column in DISTRIBUTIONS):
        if traced and all(metric in its for its in traced):
            medians = np.median([its[metric] for its in traced], axis=0).tolist()
            curves[metric] = tuple(zip(SHARES, medians, strict=True))
        elif not traced and (curve := _recorded(metric.removesuffix("_s"), rounds)):
            curves[metric] = curve
    return curves, bool(traced)


def _recorded(name: str, rounds: Sequence[Result]) -> Curve:
    """The percentiles that the records have, medians over the rounds."""
    values: dict[float, list[float]] = {}
    for end, share in _RECORDED:
        if recorded := [r.metrics[name + end] for r in rounds if name + end in r.metrics]:
            values.setdefault(share, []).extend(recorded)
    return tuple((share, median(its)) for share, its in values.items())
