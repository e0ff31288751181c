"""What the facts and traces of a round come to: every metric of its record, by the functions of `measure`."""

from __future__ import annotations

from collections.abc import Sequence

from bench.contract import plugins
from bench.contract.record import RequestTrace, Result
from bench.contract.workload import Online
from bench.measure import energy, latency, memory, online_load, roofline, throughput


def metrics(result: Result, traces: Sequence[RequestTrace]) -> dict[str, float]:
    """Metrics of a round that came to its end, by name."""
    cell, facts = result.cell, result.facts
    if cell.task is not None:
        scored = plugins.load(plugins.TASKS, cell.task.kind).metrics(facts)
        return {**scored, **_memory(result)}
    if isinstance(cell.workload, Online):
        online = {
            **online_load.load_metrics(traces, facts, cell.workload.slo.limits),
            **_memory(result),
            **energy.energy_metrics(facts),
        }
        measured = online_load.measured(traces, facts)
        return {**online, **roofline.roofline_metrics(result, measured, online)}
    offline = {
        **latency.latency_metrics(traces),
        **throughput.throughput_metrics(traces),
        **_memory(result),
        **energy.energy_metrics(facts),
        **{k: float(facts[k]) for k in ("cold_start_s", "load_s") if k in facts},
    }
    return {**offline, **roofline.roofline_metrics(result, traces, offline)}


def _memory(result: Result) -> dict[str, float]:
    return {**memory.memory_metrics(result.facts, result.cell.device), **memory.kv_metrics(result)}
