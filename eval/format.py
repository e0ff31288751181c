"""What `python -m eval` prints: metrics with their intervals and units."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import replace

from rich import box
from rich.console import Console
from rich.table import Table

from bench.contract import plugins
from bench.contract.record import Result
from bench.publish.tables import build, parts, render
from bench.publish.tables.columns import number
from eval.stats.proportion import SHARES, interval

_WIDTH = 120
_UNITS = {"_fraction": (100.0, " %"), "_bytes": (2.0**-20, " MiB")}
_COUNTS = ("scored_tokens", "scored_items")
# What a comparison prints, in this order: metric, label, scale, unit.
_CHANGES = (
    ("score_change", "difference", 1.0, ""),
    ("perplexity_change_fraction", "change of perplexity", 100.0, " %"),
    ("score_recovery_fraction", "recovery", 100.0, " %"),
    ("answer_nll_change", "change of the answers' nll", 1.0, " nats/token"),
    ("flips_worse", "items lost", 1.0, ""),
    ("flips_better", "items won", 1.0, ""),
    ("mcnemar_p", "p, McNemar exact", 1.0, ""),
)


def one(result: Result) -> str:
    """A record: its metrics, then its receipts."""
    cell = result.cell
    head = f"{cell.measurement} of {cell.model.label} in {cell.engine.title} on {result.hardware.name}"
    return _page(head, result)


def two(base: str, base_result: Result | None, result: Result, change: Mapping[str, float]) -> str:
    """Two records of one task side by side, and the change over the same items."""
    other = result.cell
    head = f"{other.measurement}: {other.model.label} in {other.engine.title} against {base}"
    if base_result is None:  # the task measures `result` against the base
        return _page(head, result)
    head += f" in {base_result.cell.engine.title}"
    base_rows = {name: (value, interval) for name, value, interval in _rows(base_result.metrics)}
    rows = [(name, *base_rows[name], *cells) for name, *cells in _rows(result.metrics) if name in base_rows]
    grid = _grid(["metric", "base", "95 %", "other", "95 %"], rows)
    changes = _grid(["on the same items", "", "95 %"], _changes(result, change))
    return "\n".join([head, "", grid, "", changes, *(["", *its] if (its := _parts(result, base_result)) else [])])


def _rows(metrics: Mapping[str, float]) -> list[tuple[str, str, str]]:
    """(name, value, interval) of each metric, without bounds and errors, and without what a row repeats."""
    rows, repeated = [], {"accuracy_fraction", "score"} if "scored_items" in metrics else set()
    for key, value in metrics.items():
        stem, unit = _split(key)
        if stem.endswith(("_low", "_high", "_stderr")) or key in repeated:
            continue
        scale, suffix = _UNITS.get(unit, (1.0, ""))
        low, high = metrics.get(f"{stem}_low{unit}"), metrics.get(f"{stem}_high{unit}")
        if low is None and (stderr := metrics.get(f"{stem}_stderr{unit}")) is not None:
            is_share = key.partition("-")[0] in SHARES or value == metrics.get("accuracy_fraction")
            low, high = interval(value, stderr, metrics.get("scored_items", 1.0), is_share=is_share)
        text = f"{value:,.0f}" if key in _COUNTS else number(value * scale, 4) + suffix
        rows.append((stem.replace("_", " "), text, _interval(low, high, scale)))
    return sorted(rows)


def _changes(result: Result, change: Mapping[str, float]) -> list[tuple[str, str, str]]:
    rows = []
    in_points = "accuracy_fraction" in result.metrics
    for key, label, default_scale, default_unit in _CHANGES:
        if key not in change:
            continue
        scale, unit = (100.0, " points") if key == "score_change" and in_points else (default_scale, default_unit)
        stem, end = _split(key)
        sign = "+" if "change" in key else ""
        value = change[key] * scale
        text = f"{value:.0f}" if key.startswith("flips") else f"{value:{sign}.3g}"
        low, high = change.get(f"{stem}_low{end}"), change.get(f"{stem}_high{end}")
        rows.append((label, text + unit, _interval(low, high, scale)))
    return rows


def _interval(low: float | None, high: float | None, scale: float) -> str:
    return "" if low is None or high is None else f"{low * scale:.4g} … {high * scale:.4g}"


def _split(key: str) -> tuple[str, str]:
    unit = next((unit for unit in _UNITS if key.endswith(unit)), "")
    return key.removesuffix(unit), unit


def _page(head: str, result: Result) -> str:
    receipts = [f"  {name:<20} {value}" for name, value in sorted(result.receipts.items())]
    grid = _grid(["metric", "value", "95 %"], _rows(result.metrics))
    return "\n".join([head, "", grid, "", *_parts(result), *receipts])


def _parts(result: Result, base_result: Result | None = None) -> list[str]:
    """The metrics of parts of the items, with their changes where there is a base; nothing of a task without parts."""
    (row,) = build.build([result]).rows
    title, cell = result.cell.measurement, row.tasks[result.cell.measurement]
    if base_result is not None:
        its = plugins.load(plugins.TASKS, cell.kind).parts(result.facts, base_result.facts)
        row = replace(row, tasks={title: replace(cell, parts=tuple(its))})
    sections = list(parts.sections([row], title))
    return [render.text(sections, _WIDTH)] if sections else []


def _grid(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    out = io.StringIO()
    grid = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for i, head in enumerate(heads):
        grid.add_column(head, justify="right" if i else "left", no_wrap=True)
    for row in rows:
        grid.add_row(*row)
    Console(file=out, width=_WIDTH, color_system=None).print(grid)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())
