"""Every metric of a record, from its facts and traces by the functions of `measure`; and its roofline's facts."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import formats
from bench.contract.hooks import Task
from bench.contract.record import RequestTrace, Result
from bench.contract.workload import Online
from bench.measure import categories, energy, latency, memory, online_load, prefix, roofline, speculation, throughput


def metrics(result: Result, traces: Sequence[RequestTrace], task: Task | None) -> dict[str, float]:
    """Metrics of a round that came to its end, by name; `task` is the task's module where it has one."""
    cell, facts = result.cell, result.facts
    memory_metrics = {**memory.memory_metrics(facts, cell.device), **memory.kv_metrics(result)}
    if task is not None:
        return {**task.metrics(facts), **_asked_load(traces, facts), **memory_metrics}
    if isinstance(cell.workload, Online):
        speed = online_load.load_metrics(traces, facts, cell.workload)
        start: dict[str, float] = {}
        traces = online_load.measured(traces, facts)
    else:
        speed = {**latency.latency_metrics(traces), **throughput.throughput_metrics(traces)}
        start = {k: float(facts[k]) for k in ("cold_start_s", "load_s") if k in facts}
    speed |= prefix.prefix_metrics([trace for trace in traces if trace.window >= 0], facts)
    if "prompt_file" in facts:
        speed |= categories.length_metrics([trace for trace in traces if trace.window >= 0])
    timed = {**speed, **memory_metrics, **energy.energy_metrics(facts), **start}
    timed |= speculation.speculation_metrics([trace for trace in traces if trace.window >= 0], facts)
    return {**timed, **roofline.roofline_metrics(result, traces, timed)}


def _asked_load(traces: Sequence[RequestTrace], facts: Mapping[str, Any]) -> dict[str, float]:
    """Of a task through a server the load that its items were. All were answered, some by nothing, or in one read."""
    if "concurrency_asked" not in facts:
        return {}
    figures = online_load.online_metrics(traces, facts)
    return {name: value for name, value in figures.items() if value > 0 and name != "failed_requests"}


def category_facts(traces: Sequence[RequestTrace], facts: Mapping[str, Any]) -> dict[str, Any]:
    """`by_category`: a load's figures by the category of its prompts; nothing where they have none."""
    measured = online_load.measured(traces, facts)
    figures = categories.by_category(measured)
    if speculation.FACT in facts:
        for name, its in categories.groups(measured).items():
            figures[name] |= speculation.per_pass(its)
    return {"by_category": figures} if figures else {}


def part_facts(facts: Mapping[str, Any], task: Task | None) -> dict[str, Any]:
    """`parts`: the metrics of each part of a task's items, beside its labels; nothing of a task without parts."""
    parts = task.parts(facts, None) if task is not None else ()
    return {"parts": [{**part.labels, "at": part.at, **part.metrics} for part in parts]} if parts else {}


def roofline_facts(folder: Path, ceiling: Mapping[str, Any]) -> dict[str, Any]:
    """The artifact's `architecture`, and the device's `ceiling` if given; nothing for other than plain decoders."""
    shape = formats.read_architecture(folder)
    return {} if shape is None else {"architecture": dataclasses.asdict(shape), **ceiling}
