"""The one figure of a round that a running benchmark prints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from bench.contract.columns import Column
from bench.contract.record import Result
from bench.publish.tables.columns import format_value, metric_columns, quotable

_LATENCY = (quotable("ttft_p95_s"), quotable("ttft_s"))
_RATE = (replace(quotable("slo_rate_per_s"), header="within SLO"), replace(quotable("output_tok_per_s"), header=""))


def figure(result: Result) -> str:
    """As "63.1 tok/s", "TTFT p95 82.4 ms", "ppl 12.35", "KL 0.012 nats" or "acc 61.2 %"; "" where it has none."""
    column = next((column for column in _columns(result) if column.key in result.metrics), None)
    if column is None:
        return ""
    name = column.header.format(title=result.facts.get("metric", "") if column.word == "{title}" else "").strip()
    return " ".join(
        filter(None, (name, format_value(column, result.metrics[column.key]), column.unit or column.text_unit))
    )


def _columns(result: Result) -> Sequence[Column]:
    """The candidates, by preference. A load at a given rate has its TTFT: its throughput is given."""
    load, task = result.cell.workload, result.cell.task
    if load is None:
        return metric_columns(task.kind) if task else ()
    return _LATENCY if load.kind in ("open", "trace") else _RATE
