"""A round in one figure, for those who watch the run: the tables have the rest."""

from __future__ import annotations

from bench.contract.record import Result
from bench.publish.tables.columns import LATENCY_FIGURES, RATE_FIGURES, TASK_FIGURES, number


def figure(result: Result) -> str:
    """As "63.1 tok/s", "TTFT p95 82.4 ms", "ppl 12.35", "KL 0.012 nats", "acc 61.2 %"; "" where it has none.

    Of a load at a given rate it is the time to the first token: its throughput is what was asked.
    """
    load = result.cell.workload
    shown = TASK_FIGURES if load is None else RATE_FIGURES
    if load is not None and load.kind in ("open", "trace"):
        shown = LATENCY_FIGURES
    column = next((column for column in shown if column.key in result.metrics), None)
    if column is None:
        return ""
    name = column.header.format(title=result.facts.get("metric", "") if column.word == "{title}" else "")
    name = "" if column.unit == "tok/s" else name.strip()
    value = number(result.metrics[column.key] * column.scale, column.digits)
    return " ".join(filter(None, (name, value, column.unit)))
