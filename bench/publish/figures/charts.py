"""Which charts the suites of a device give: their specifications, filled with data, by path of their figure."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.contract.columns import Column
from bench.contract.outside import each_text, printable
from bench.measure.frontier import frontier
from bench.publish.figures import labels, specs
from bench.publish.figures.chart_data import Point
from bench.publish.figures.distributions import Distribution
from bench.publish.figures.specs import Spec
from bench.publish.tables.columns import DEPTH, DISTRIBUTIONS, MBU, SCALING, SIZE, quotable
from bench.store import safe_name

WIDTH, HEIGHT = 590, 370  # pixels of a chart of quality against cost
_MAX_ROOFLINE_ROWS = 40
_HEAT_STEP = 13  # pixels of a line of a heat map
_DEPTH_OF_TITLE = re.compile(r"-d\d+(?=-)")
# Costs that quality is drawn against, by the name of the chart.
_COSTS: Mapping[str, Column] = {
    "quality-output": quotable("output_tok_per_s"),
    "quality-ttft": quotable("ttft_s"),
    "quality-memory": quotable("peak_memory_bytes"),
    "quality-bits": SIZE[0],
}


def build(points: Sequence[Point], distributions: Sequence[Distribution]) -> dict[Path, Spec]:
    """Every chart that has something to show, by the path of its figure below the results folder.

    Its texts are printable: a control character ends the process that draws it.
    """
    charts: dict[Path, Spec] = {}
    colours = specs.family_colours(p.family for p in points)  # a family has one colour in all figures
    groups: dict[tuple[str, str], dict[str, list[Point]]] = {}
    for point in points:
        groups.setdefault((point.device, point.suite), {}).setdefault(point.model, []).append(point)
    for (device, suite), models in groups.items():
        for model, group in models.items():
            curves = [d for d in distributions if (d.device, d.suite, d.model) == (device, suite, model)]
            stem = f"{suite}-{model}" if len(models) > 1 else suite
            for name, spec in _of_model(group, curves, colours):
                path = Path(safe_name(device)) / "figures" / f"{safe_name(f'{stem}-{name}')}.svg"
                charts[path] = {**each_text(spec, printable), "config": specs.config(dark=False), "padding": 12}
    return charts


def _of_model(
    points: Sequence[Point], curves: Sequence[Distribution], colours: Mapping[str, str]
) -> Iterator[tuple[str, Spec]]:
    yield from _paretos(points, colours)
    yield from _ecdfs(curves)
    yield from _scalings(points)
    yield from _depths(points)
    yield from _rooflines(points)
    yield from _positions(points)
    yield from _heat_maps(points)


def _paretos(points: Sequence[Point], colours: Mapping[str, str]) -> Iterator[tuple[str, Spec]]:
    """Quality against each cost: under the load that most choices ran, by the task that most of them have."""
    for name, cost in _COSTS.items():
        if cost in SIZE:  # the same under any load
            groups = {"": list({p.choice: p for p in points}.values())}
        else:
            loads = sorted({p.workload for p in points if p.workload})
            groups = {load: [p for p in points if p.workload == load] for load in loads}
        candidates = [(load, *_with_quality(group, cost)) for load, group in groups.items()]
        load, group, quality = max(candidates, key=lambda candidate: len(candidate[1]), default=("", [], None))
        if quality is not None and _differ(group, *quality):
            yield name, _pareto(group, cost, *quality, load, colours)


def _with_quality(points: Sequence[Point], cost: Column) -> tuple[list[Point], tuple[Column, str] | None]:
    """The points that have the cost and the quality that most of them have, a divergence before a perplexity."""
    axes = [(c, task) for c, task in specs.axis_columns(points)[1] if specs.is_log(c)]
    groups = [
        ([p for p in points if cost.key in p.metrics and (c.key, task) in p.quality], (c, task)) for c, task in axes
    ]
    return max(groups, key=lambda group: len(group[0]), default=([], None))


def _differ(points: Sequence[Point], quality: Column, task: str) -> bool:
    """Whether the quality of two recipes differs by more than what is drawn as equal."""
    values = {p.recipe: value for p in points if (value := p.quality[quality.key, task]) > quality.axis_min}
    return len(set(values.values())) > 1


def _pareto(points: Sequence[Point], x: Column, y: Column, task: str, load: str, colours: Mapping[str, str]) -> Spec:
    xs = [p.metrics[x.key] * x.scale for p in points]
    ys = [max(p.quality[y.key, task] * y.scale, y.axis_min) for p in points]
    families = {p.family for p in points}
    drawn_colours = {family: colour for family, colour in colours.items() if family in families}
    spec = specs.pareto(drawn_colours, specs.cycled(specs.SHAPES, (p.engine for p in points)))
    pixels = _fix_axes(spec["encoding"], x, y, task, xs, ys)
    more = (x.better == "higher", y.better == "higher")
    best = frontier(list(zip(xs, ys, strict=True)), more)
    baselines = [i for i, p in enumerate(points) if p.baseline]
    names = _names(points)
    texts = {i: names[i] for i in (*baselines, *best)}
    free = (1 if more[0] else -1, -1 if more[1] else 1)
    at = [{"x": xv, "y": yv} for xv, yv in zip(xs, ys, strict=True)]
    rows = [
        {**xy, "family": p.family, "engine": p.engine, "baseline": p.baseline} for p, xy in zip(points, at, strict=True)
    ]
    data: dict[str, list[dict[str, Any]]] = {
        "frontier": [at[i] for i in best],
        "baseline": [rows[i] for i in baselines],
        "points": rows,
        "labels": [
            {**at[i], "label": texts[i], **vars(label)}
            for i, label in labels.fit(texts, pixels, (WIDTH + 80, HEIGHT), free).items()
        ],
    }
    for layer in spec["layer"]:
        layer["data"]["values"] = data[layer["data"]["name"]]
    spec["layer"] = [layer for layer in spec["layer"] if layer["data"]["values"]]
    title = {
        "text": f"{y.heading()} against {x.heading()}",
        "subtitle": f"{_subtitle(points[0], load)}. Dashed: nothing measured is better in both",
    }
    return {**spec, "width": WIDTH, "height": HEIGHT, "title": title}


def _fix_axes(
    encoding: Spec, x: Column, y: Column, task: str, xs: Sequence[float], ys: Sequence[float]
) -> list[tuple[float, float]]:
    """Title both axes and fix their ends and ticks, so that each point's pixels are known; return these."""
    pixels = []
    for axis, column, values, length in ((encoding["x"], x, xs, WIDTH), (encoding["y"], y, ys, HEIGHT)):
        axis["title"] = specs.axis_title(column, task if column is y else "")
        if column.axis_min and min(values) <= column.axis_min:
            axis["axis"] |= specs.edge_label(column)
        log = specs.is_log(column) or max(values) > 5 * min(values) > 0
        ends = labels.domain(values, log=log)
        pixels.append(labels.positions(values, ends, length, log=log))
        axis["scale"] = {**({"type": "log"} if log else {}), "domain": list(ends), "nice": False, "zero": False}
        if log:
            axis["axis"] |= {"values": specs.ticks(*ends)}
    return [(left, HEIGHT - up) for left, up in zip(*pixels, strict=True)]


def _names(points: Sequence[Point]) -> list[str]:
    """Recipes, with the engine where a recipe ran on several."""
    engines = Counter(recipe for recipe, _ in {(p.recipe, p.engine) for p in points})
    return [p.recipe if engines[p.recipe] == 1 else f"{p.recipe}, {p.engine}" for p in points]


def _subtitle(of: Point | Distribution, load: str = "") -> str:
    return ", ".join(filter(None, (of.suite, of.model, load)))


def _ecdfs(distributions: Sequence[Distribution]) -> Iterator[tuple[str, Spec]]:
    """For TTFT and for ITL the share of requests at or below a time, a panel for each load."""
    colours = specs.cycled(specs.LIGHT, (d.choice for d in distributions))
    for column in DISTRIBUTIONS[:2]:  # TPOT is a mean of ITL: its tails are in the charts of load
        drawn = [d for d in distributions if column.key in d.curves]
        if len(drawn) < 2:
            continue
        rows: list[dict[str, Any]] = [
            {"choice": d.choice, "load": d.workload, "share": share, "value": max(s * column.scale, column.axis_min)}
            for d in sorted(drawn, key=lambda d: _natural(d.workload))
            for share, s in d.curves[column.key]
        ]
        panel = {**specs.ecdf(colours, column), "width": 265, "height": 140}
        specs.set_ticks(panel["encoding"]["x"], [row["value"] for row in rows])
        loads = list(dict.fromkeys(row["load"] for row in rows))
        partial = "" if all(d.traced for d in drawn) else "; some from percentiles alone"
        subtitle = f"{_subtitle(drawn[0])}. A panel for each load; medians over the rounds{partial}"
        title = f"Distribution of {column.header}"
        spec = specs.template("spread", title=title, subtitle=subtitle, rows=rows, loads=loads, panel=panel)
        yield f"spread-{column.key.removesuffix('_s')}", spec


def _natural(name: str) -> list[tuple[int, str]]:
    """A key that sorts c4 before c16."""
    return [(int(part) if part.isdigit() else -1, part) for part in re.split(r"(\d+)", name)]


def _scalings(points: Sequence[Point]) -> Iterator[tuple[str, Spec]]:
    """Speed and tails against the requests in flight, and against their rate: a panel for each metric."""
    for over, axis in (("concurrency", "requests in flight"), ("rate", "the rate of requests")):
        levels = [(p, level) for p in points for level in p.levels if level.over == over]
        if len({level.level for _, level in levels}) < 2 or len({p.choice for p, _ in levels}) < 2:
            continue
        levels.sort(key=lambda pair: (pair[0].choice, pair[1].level))
        colours = specs.cycled(specs.LIGHT, (p.choice for p, _ in levels))
        panels = []
        for column in SCALING:
            rows: list[dict[str, Any]] = [
                {"choice": p.choice, "level": level.level, "value": level.metrics[column.key] * column.scale}
                for p, level in levels
                if column.key in level.metrics
            ]
            if len(rows) < 2:
                continue
            limits = [limit for p, _ in levels if (limit := p.slo.get(column.key.replace("_p95", "")))]
            limit = limits[-1] * column.scale if limits else 0.0
            panel = specs.scaling(colours, over, column.heading(), limit, linear=column.better == "higher")
            specs.set_ticks(panel["layer"][0]["encoding"]["y"], [row["value"] for row in rows])
            panels.append({**panel, "data": {"values": rows}, "width": 245, "height": 190})
        if panels:
            title = f"Speed and latency against {axis}"
            grid = {"concat": panels, "columns": 2, "spacing": 26}
            yield f"load-{over}", {"$schema": specs.SCHEMA, "title": title, **grid}


def _depths(points: Sequence[Point]) -> Iterator[tuple[str, Spec]]:
    """TPOT against the depth, with the least that the roofline allows, and TTFT: a line for each choice and load."""
    levels = [(p, level) for p in points for level in p.levels if level.over == "depth"]
    if len({level.level for _, level in levels}) < 2:
        return
    several = len({_without_depth(p.workload) for p, _ in levels}) > 1
    lines = [(f"{p.choice}, {_without_depth(p.workload)}" if several else p.choice, level) for p, level in levels]
    lines.sort(key=lambda line: (line[0], line[1].level))
    colours = specs.cycled(specs.LIGHT, (name for name, _ in lines))
    tpot, least, ttft = DEPTH
    panels = []
    for heading, drawn in ((tpot, {tpot: "measured", least: "roofline"}), (ttft, {ttft: "measured"})):
        rows: list[dict[str, Any]] = [
            {"choice": name, "level": level.level, "value": level.metrics[c.key] * c.scale, "line": kind}
            for c, kind in drawn.items()
            for name, level in lines
            if c.key in level.metrics
        ]
        if rows:
            panel = specs.depth(colours, heading.heading())
            panels.append({**panel, "data": {"values": rows}, "width": 265, "height": 240})
    if panels:
        title = {"text": "Latency against depth", "subtitle": f"{_subtitle(levels[0][0])}. Dashed: the roofline"}
        yield "load-depth", {"$schema": specs.SCHEMA, "title": title, "concat": panels, "columns": 2, "spacing": 26}


def _without_depth(title: str) -> str:
    """A load's title without its depth: what the loads of a line have in common."""
    return _DEPTH_OF_TITLE.sub("", title)


def _rooflines(points: Sequence[Point]) -> Iterator[tuple[str, Spec]]:
    """How much of the memory's bandwidth decoding uses, a line for each choice and a mark for each load."""
    measured = [p for p in points if MBU.key in p.metrics]
    if len(measured) < 2:
        return
    choices = list(dict.fromkeys(p.choice for p in sorted(measured, key=lambda p: -p.metrics[MBU.key])))
    drawn = [p for p in measured if p.choice in choices[:_MAX_ROOFLINE_ROWS]]
    cut = f". The {_MAX_ROOFLINE_ROWS} nearest to it of {len(choices)}" if len(choices) > _MAX_ROOFLINE_ROWS else ""
    loads = [p.workload for p in drawn]
    yield (
        "roofline",
        specs.template(
            "roofline",
            title=MBU.heading(),
            subtitle=f"{_subtitle(drawn[0])}. 100 %: a step's bytes at the ceiling{cut}",
            colours=specs.scale(specs.cycled(specs.LIGHT, loads)),
            shapes=specs.scale(specs.cycled(specs.SHAPES, loads)),
            rows=[{"choice": p.choice, "load": p.workload, "value": p.metrics[MBU.key] * MBU.scale} for p in drawn],
        ),
    )


def _positions(points: Sequence[Point]) -> Iterator[tuple[str, Spec]]:
    """A task's metrics against the position in the window: a panel for each, a line for each choice."""
    for task in dict.fromkeys(task for p in points for _, task in p.by_position):
        choices = {p.choice: {c: curve for (c, its), curve in p.by_position.items() if its == task} for p in points}
        colours = specs.cycled(specs.LIGHT, (choice for choice, curves in choices.items() if curves))
        panels = []
        for column in dict.fromkeys(column for curves in choices.values() for column in curves):
            rows: list[dict[str, Any]] = [
                {"choice": choice, "level": at, "value": max(value * column.scale, column.axis_min or -math.inf)}
                for choice, curves in choices.items()
                for at, value in curves.get(column, ())
            ]
            panel = specs.by_position(colours, column)
            if column.axis_min and min(row["value"] for row in rows) <= column.axis_min:
                panel["encoding"]["y"]["axis"] |= specs.edge_label(column)
            specs.set_ticks(panel["encoding"]["y"], [row["value"] for row in rows])
            panels.append({**panel, "data": {"values": rows}, "width": 245, "height": 190})
        title = {"text": "By position in the window", "subtitle": _subtitle(points[0], task)}
        yield (
            f"position-{task}",
            {"$schema": specs.SCHEMA, "title": title, "concat": panels, "columns": 2, "spacing": 26},
        )


def _heat_maps(points: Sequence[Point]) -> Iterator[tuple[str, Spec]]:
    """A task's metric over both axes of its parts: a panel for each choice, all in the same colours."""
    for column, task in dict.fromkeys(key for p in points for key in p.fields):
        choices = {p.choice: p for p in points if any(value > 0 for _, _, value in p.fields.get((column, task), ()))}
        if not choices:
            continue
        values = [value * column.scale for p in choices.values() for _, _, value in p.fields[column, task] if value > 0]
        least, most = max(min(values), column.axis_min), max(*values, column.axis_min)
        panels = []
        for choice, point in choices.items():
            down, across = point.field_axes[task]
            rows: list[dict[str, Any]] = [
                {"row": row, "column": name, "value": max(value * column.scale, least)}
                for row, name, value in point.fields[column, task]
            ]
            panel = specs.heat(column, down, across)
            panel["encoding"]["color"]["scale"]["domain"] = [least, most]
            size = {"width": {"step": 34}, "height": {"step": _HEAT_STEP}}
            panels.append({**panel, "title": choice, "data": {"values": rows}, **size})
        title = {"text": column.heading(), "subtitle": _subtitle(points[0], task)}
        yield f"heat-{task}", {"$schema": specs.SCHEMA, "title": title, "concat": panels, "columns": 2, "spacing": 26}
