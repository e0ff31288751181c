"""`bench load`: the suite's own client against a server that is already running."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from bench.contract.errors import UserError
from bench.contract.workload import Offline, Workload
from bench.load import build
from bench.measure import categories, online_load, prefix, sanity
from bench.run import online, text_prompts

_UNITS = {"_per_s": ("/s", 1.0), "_fraction": ("%", 100.0), "_s": ("ms", 1e3)}
_CURVE = ("ttft_s", "ttft_p95_s", "tpot_s", "tpot_p95_s", "output_tok_per_s", "request_per_s", "goodput_per_s")


def measure(
    load: Workload, target: build.Target, *, seed: int, timeout_s: float, prefix_caching: bool = False
) -> dict[str, Any]:
    """Metrics and the client's facts; UserError where no request was completed, or for an offline load.

    `prefix_caching`: whether the server keeps prefixes, to which its counted hits of a shared prefix are held.
    """
    if isinstance(load, Offline):
        raise UserError("an offline load runs in the engine's process, not on a server: choose another kind of load")
    deadline = time.monotonic() + timeout_s
    if its := text_prompts.reads_file(load):
        target = replace(target, texts=text_prompts.draw(its, None, target.context, seed).prompts)
    stages, facts = online.loaded(load, target, f"{seed}/{load.title}", 0, deadline, prefix_caching=prefix_caching)
    if error := online.without_figures(load, stages, facts):
        raise UserError(f"{target.endpoint.url}: {error}")
    traces = [trace for stage in stages for trace in stage.traces]
    metrics = {**online_load.load_metrics(traces, facts, load), **prefix.prefix_metrics(traces, facts)}
    if its:
        metrics |= categories.length_metrics(online_load.measured(traces, facts))
    by_category = categories.by_category(online_load.measured(traces, facts))
    return {"metrics": metrics, "facts": {**facts, **({"by_category": by_category} if by_category else {})}}


def lines(title: str, result: Mapping[str, Any]) -> list[str]:
    """The result of `measure` as text: a table of the loads if there are several, then a line per metric."""
    facts, text = result["facts"], [title]
    if "stages" in facts:
        text += [*_curve(facts["stages"]), f"at {facts['stages'][facts['chosen']]['level']:g}:"]
    for name, value in result["metrics"].items():
        unit, scale = next((_UNITS[end] for end in _UNITS if name.endswith(end)), ("", 1.0))
        label = name if name.endswith("_per_s") else name.removesuffix("_s")
        text.append(f"  {label:<22} {value * scale:>10.4g} {unit}".rstrip())
    text.append(f"  {'client CPU':<22} {100 * facts['client_cpu_fraction']:>10.3g} % of a core")
    text.append(f"  {'client lag p99':<22} {1e3 * facts['client_lag_p99_s']:>10.3g} ms")
    if facts.get("capped"):
        text.append(f"  {facts['capped']} requests were cut to the model's context")
    text += [*_categories(facts.get("by_category", {})), *_answers(facts)]
    if contradiction := facts.get("events_against_length"):
        text.append(f"  {contradiction}; give --tokenizer FILE to count them")
    text += [f"  {mark}: {sanity.MARKS[mark]}" for mark in sorted(sanity.load_marks(facts))]
    text += [f"  failed                 {kind} x{count}" for kind, count in facts["failures"].items()]
    return text + [f"    {reason}" for reason in facts["failure_reasons"]]


def _categories(by_category: Mapping[str, Mapping[str, float]]) -> list[str]:
    """A line for each category of prompts."""
    keys = ("requests", "prompt_tokens_mean", "answer_tokens_mean", "ttft_s", "tpot_s")
    rows = [["category", *(f"{key.removesuffix('_s')} ms" if key.endswith("_s") else key for key in keys)]]
    for name, metrics in by_category.items():
        scaled = (metrics[key] * (1e3 if key.endswith("_s") else 1.0) if key in metrics else None for key in keys)
        rows.append([name, *("-" if value is None else f"{value:.4g}" for value in scaled)])
    return _aligned(rows) if by_category else []


def _answers(facts: Mapping[str, Any]) -> list[str]:
    """Reasoning apart from the answer, and calls of functions, where there were any."""
    text = []
    if reasoning := facts.get("reasoning_tokens"):
        text.append(f"  {'reasoning tokens':<22} {reasoning:>10,}, in the figures above as the answer's are")
        after = f"{1e3 * facts['answer_ttft_s']:.4g} ms" if "answer_ttft_s" in facts else "-"
        text.append(f"  {'first of the answer':<22} {after:>10} (median of {facts['answered']} that came to it)")
    if calls := facts.get("calls_only"):
        text.append(f"  {calls} of the answers called functions and had no text")
    return text


def _curve(stages: list[dict[str, Any]]) -> list[str]:
    scales = {key: 1.0 if key.endswith("_per_s") else 1e3 for key in _CURVE if any(key in s["metrics"] for s in stages)}
    header = ["level", *(key if scale == 1.0 else f"{key.removesuffix('_s')} ms" for key, scale in scales.items())]
    rows = [header]
    for stage in stages:
        metrics = stage["metrics"]
        cells = (f"{metrics[key] * scale:.4g}" if key in metrics else "-" for key, scale in scales.items())
        rows.append([f"{stage['level']:.4g}", *cells])
    return _aligned(rows)


def _aligned(rows: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.rjust, row, widths)) for row in rows]
