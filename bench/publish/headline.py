"""A round in one figure, for those who watch the run: the tables have the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from bench.contract.columns import Column
from bench.contract.record import Result
from bench.publish.tables.columns import metric_columns, number, quotable

_LATENCY = (quotable("ttft_p95_s"), quotable("ttft_s"))
_RATE = (replace(quotable("slo_rate_per_s"), header="within SLO"), replace(quotable("output_tok_per_s"), header=""))


def figure(result: Result) -> str:
    """As "63.1 tok/s", "TTFT p95 82.4 ms", "ppl 12.35", "KL 0.012 nats", "acc 61.2 %"; "" where it has none.

    Of a load at a given rate it is the time to the first token: its throughput is what was asked.
    """
    column = next((column for column in _columns(result) if column.key in result.metrics), None)
    if column is None:
        return ""
    metric = result.facts.get("metric", "") if column.word == "{title}" else ""
    value = number(result.metrics[column.key] * column.scale, column.digits)
    name = column.header.format(title=metric).strip()
    return " ".join(filter(None, (name, value, column.unit or column.text_unit)))


def _columns(result: Result) -> Sequence[Column]:
    """Those that may stand for the round, the best first."""
    load, task = result.cell.workload, result.cell.task
    if load is None:
        return metric_columns(task.kind) if task else ()
    return _LATENCY if load.kind in ("open", "trace") else _RATE
