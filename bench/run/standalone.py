"""`bench load`: the suite's own client against a server that runs already."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from bench.contract.errors import UserError
from bench.contract.workload import Offline, Workload
from bench.load import build
from bench.measure import online_load, sanity
from bench.run import online

_UNITS = {"_per_s": ("/s", 1.0), "_fraction": ("%", 100.0), "_s": ("ms", 1e3)}
_CURVE = ("ttft_s", "ttft_p95_s", "tpot_s", "tpot_p95_s", "output_tok_per_s", "request_per_s", "goodput_per_s")


def measure(load: Workload, target: build.Target, *, seed: int, timeout_s: float) -> dict[str, Any]:
    """Metrics and the client's facts; UserError where no request was completed, or for an offline load."""
    if isinstance(load, Offline):
        raise UserError("an offline load runs in the engine's process: give a server a load of another kind")
    seen, facts = online.loaded(load, target, f"{seed}/{load.title}", 0, time.monotonic() + timeout_s)
    if error := online.without_figures(load, seen, facts):
        raise UserError(f"{target.endpoint.url}: {error}")
    traces = [trace for one in seen for trace in one.traces]
    return {"metrics": online_load.load_metrics(traces, facts, load.slo.limits), "facts": facts}


def lines(title: str, found: Mapping[str, Any]) -> list[str]:
    """A figure a line, in the units a person reads; of several loads a line each first."""
    facts, shown = found["facts"], [title]
    if "stages" in facts:
        shown += [*_curve(facts["stages"]), f"at {facts['stages'][facts['chosen']]['level']:g}:"]
    for name, value in found["metrics"].items():
        unit, scale = next((_UNITS[end] for end in _UNITS if name.endswith(end)), ("", 1.0))
        plain = name if name.endswith("_per_s") else name.removesuffix("_s")
        shown.append(f"  {plain:<22} {value * scale:>10.4g} {unit}".rstrip())
    shown.append(f"  {'client CPU':<22} {100 * facts['client_cpu_fraction']:>10.3g} % of a core")
    shown.append(f"  {'client lag p99':<22} {1e3 * facts['client_lag_p99_s']:>10.3g} ms")
    if facts.get("capped"):
        shown.append(f"  {facts['capped']} requests were cut to the model's context")
    shown += [f"  {mark}: {sanity.MARKS[mark]}" for mark in sorted(sanity.load_marks(facts))]
    shown += [f"  failed                 {kind} x{count}" for kind, count in facts["failures"].items()]
    return shown + [f"    {reason}" for reason in facts["failure_reasons"]]


def _curve(stages_: list[dict[str, Any]]) -> list[str]:
    known = [key for key in _CURVE if any(key in one["metrics"] for one in stages_)]
    heads = ["level", *(f"{k.removesuffix('_s')} ms" if not k.endswith("_per_s") else k for k in known)]
    rows = [[f"{one['level']:.4g}", *(_cell(key, one["metrics"]) for key in known)] for one in stages_]
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    return ["  ".join(f"{cell:>{w}}" for cell, w in zip(row, widths, strict=True)) for row in (heads, *rows)]


def _cell(key: str, metrics: Mapping[str, float]) -> str:
    if key not in metrics:
        return "-"
    return f"{metrics[key] * (1.0 if key.endswith('_per_s') else 1e3):.4g}"
