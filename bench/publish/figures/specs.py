"""The charts, as Vega-Lite specifications: one source for the page, where they react, and for figures.

Colour is never alone in carrying a meaning: engines have shapes, lines have dashes, points have names. The
colours are Okabe and Ito's, told apart by colour-blind readers, and a few of Paul Tol's where those run out;
on a light ground the light ones are darkened, to stand out from it three to one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bench.contract.columns import Column, Group
from bench.publish.figures.chart_data import UNQUANTIZED, Point
from bench.publish.tables.columns import X_AXES, quality_axes, task_name

Spec = dict[str, Any]
SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
# Of a light page and of a dark one; the first of each is kept for weights that are as they were.
LIGHT = ("#000000", "#0072B2", "#D55E00", "#009E73", "#C06A9A", "#B8860B", "#2E9BD6", "#882255", "#777733", "#666666")
DARK = ("#FFFFFF", "#56B4E9", "#FF8A3D", "#2FC79A", "#E59BC5", "#F0E442", "#8FCBFF", "#E07BA8", "#C2C25E", "#A8A8A8")
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right", "triangle-left")
DASHES = ((1, 0), (6, 3), (2, 2), (8, 3, 2, 3), (12, 4), (1, 4))
_STROKE = {"symbolType": "stroke", "symbolSize": 700, "symbolStrokeWidth": 2.5}
NUMBER = ",.6~f"
_INK = {False: ("#1a1a1a", "#555555", "#dddddd"), True: ("#f0f0f0", "#b5b5b5", "#3a3a3a")}


def config(*, dark: bool, font: str = "sans-serif", size: int = 13) -> Spec:
    """How every chart looks; `size` is that of its text, in pixels."""
    ink, faint, rule = _INK[dark]
    text = {
        "labelFont": font,
        "titleFont": font,
        "labelFontSize": size - 1,
        "titleFontSize": size,
        "labelColor": ink,
        "titleColor": ink,
        "titleFontWeight": 600,
    }
    return {
        "background": None if dark else "white",
        "font": font,
        "view": {"stroke": None},
        "axis": {
            **text,
            "gridColor": rule,
            "domainColor": faint,
            "tickColor": faint,
            "titlePadding": 8,
            "labelOverlap": "greedy",
            "labelFlush": False,
        },
        "legend": {
            **text,
            "orient": "bottom",
            "direction": "horizontal",
            "columns": 5,
            "layout": {"bottom": {"direction": "vertical", "anchor": "start", "margin": 4}},
            "symbolBaseFillColor": ink,
            "symbolBaseStrokeColor": ink,
            "symbolSize": 90,
            "labelLimit": 260,
            "rowPadding": 3,
            "columnPadding": 14,
            "titleOrient": "left",
        },
        "header": {**text, "labelFontWeight": 600, "labelFontSize": size},
        "title": {
            "font": font,
            "fontSize": size + 2,
            "subtitleFontSize": size,
            "color": ink,
            "subtitleColor": faint,
            "subtitleFont": font,
            "anchor": "start",
            "offset": 12,
            "subtitlePadding": 5,
        },
        "text": {"font": font, "fontSize": size - 1, "color": ink},
        "rule": {"color": faint},
    }


def coloured(words: Iterable[str], *, dark: bool = False) -> dict[str, str]:
    """A colour for each family, UNQUANTIZED having the first; the same ones for the same families."""
    palette = DARK if dark else LIGHT
    rest = sorted({word for word in words if word != UNQUANTIZED})
    return {UNQUANTIZED: palette[0], **{w: palette[1 + i % (len(palette) - 1)] for i, w in enumerate(rest)}}


def shaped(engines: Iterable[str]) -> dict[str, str]:
    return {engine: SHAPES[i % len(SHAPES)] for i, engine in enumerate(sorted(set(engines)))}


def axis_columns(points: Sequence[Point]) -> tuple[list[Column], list[tuple[Column, str]]]:
    """What x may be, and what y may be: a column and the task it is of, those that most points have first."""
    won = [c for c in X_AXES if any(c.key in p.figures for p in points)]
    counts: dict[tuple[str, str], int] = {}
    for key in (key for p in points for key in p.quality):
        counts[key] = counts.get(key, 0) + 1
    kept = [(c, task) for c in quality_axes() for task in sorted(_tasks(counts, c), key=lambda t: -counts[c.key, t])]
    return won, kept


def heading(column: Column, task: str = "") -> str:
    """An axis's title: the column's, and the task it is of."""
    shown = column.heading(task_name(task))
    return shown if "{title}" in column.header or not task else f"{shown} ({task_name(task)})"


def is_log(column: Column) -> bool:
    """Whether an axis is drawn in factors: divergences and perplexities, which range over several."""
    return Group.LOG_AXIS in column.groups


def least(column: Column) -> float:
    """The smallest value, as shown, that is drawn where it is: what is below lies on the edge."""
    return column.axis_min


def edge(column: Column) -> Spec:
    """What an axis says at the least that it draws."""
    at = f"datum.value == {least(column):g} ? '≤ ' : ''"
    return {"labelExpr": f"({at}) + format(datum.value, '{NUMBER}')"}


def scale_of(column: Column, values: Sequence[float]) -> Spec:
    """The scale of an axis over its values, as shown: in factors where they are many times apart."""
    wide = bool(values) and min(values) > 0 and max(values) > 5 * min(values)
    if is_log(column) or wide:
        return {"type": "log", "nice": False, "padding": 18}
    return {"zero": False, "nice": True, "padding": 18}


def ticked(encoding: Spec, values: Sequence[float]) -> Spec:
    """An axis's encoding, with ticks for these values where it is in factors of ten."""
    if encoding["scale"].get("type") != "log" or "base" in encoding["scale"] or min(values) <= 0:
        return encoding
    return {**encoding, "axis": {**encoding["axis"], "values": ticks(min(values) / 1.3, max(values) * 1.3)}}


def ticks(low: float, high: float) -> list[float]:
    """Where an axis in factors has its ticks: at 1, 2 and 5 times powers of ten, at these alone if many."""
    span = math.log10(high / low)
    steps = (1, 2, 3, 5) if span <= 1.1 else (1, 2, 5) if span <= 2.2 else (1, 3) if span <= 3 else (1,)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [at for power in powers for step in steps if low <= (at := float(f"{step}e{power}")) <= high]


def pareto(colours: Mapping[str, str], shapes: Mapping[str, str]) -> Spec:
    """Quality against what is won: points {x, y, choice, family, engine, baseline}, frontier, labels.

    Its data sets are empty and its axes have no titles: figures and the page set them.
    """
    x, y = (
        {"field": field, "type": "quantitative", "title": "", "scale": {}, "axis": {"format": NUMBER, "tickCount": 6}}
        for field in ("x", "y")
    )
    named = {
        "color": _scaled("family", "weights", colours, "symbolStrokeWidth"),
        "shape": _scaled("engine", "engine", shapes, "symbolStrokeWidth"),
    }
    return {
        "$schema": SCHEMA,
        "encoding": {"x": x, "y": y},
        "layer": [
            {
                "data": {"name": "frontier", "values": []},
                "mark": {"type": "line", "strokeDash": [5, 4], "strokeWidth": 1.5, "color": "#808080"},
            },
            {
                "data": {"name": "baseline", "values": []},
                "mark": {"type": "point", "shape": "circle", "size": 330, "strokeWidth": 1.5, "color": "#808080"},
            },
            {
                "data": {"name": "points", "values": []},
                "mark": {"type": "point", "filled": True, "size": 95, "opacity": 0.9, "cursor": "pointer"},
                "encoding": named,
            },
            {
                "data": {"name": "labels", "values": []},
                "mark": {
                    "type": "text",
                    "align": {"expr": "datum.align"},
                    "baseline": "middle",
                    "dx": {"expr": "datum.dx"},
                    "dy": {"expr": "datum.dy"},
                },
                "encoding": {"text": {"field": "label"}},
            },
        ],
    }


def titled(spec: Spec, x: Column, y: Column, task: str, xs: Sequence[float], ys: Sequence[float]) -> Spec:
    """The chart with its axes named and scaled for these values, as shown."""
    for side, column, title, values in (("x", x, heading(x), xs), ("y", y, heading(y, task), ys)):
        spec["encoding"][side] |= {"title": title, "scale": scale_of(column, values)}
        if least(column) and any(value <= least(column) for value in values):
            spec["encoding"][side]["axis"] = {**spec["encoding"][side]["axis"], **edge(column)}
    return spec


def lines(colours: Mapping[str, str]) -> Spec:
    """How two charts of lines tell their choices apart: by colour and by dash."""
    dashes = {word: list(DASHES[i % len(DASHES)]) for i, word in enumerate(colours)}
    return {
        "color": {**_scaled("choice", "", colours, "symbolSize"), "legend": _STROKE},
        "strokeDash": {
            "field": "choice",
            "title": "",
            "type": "nominal",
            "legend": _STROKE,
            "scale": {"domain": list(dashes), "range": list(dashes.values())},
        },
    }


def choices(words: Iterable[str], *, dark: bool = False) -> dict[str, str]:
    """A colour for each line of a chart."""
    palette = DARK if dark else LIGHT
    return {word: palette[i % len(palette)] for i, word in enumerate(sorted(set(words)))}


def ecdf(colours: Mapping[str, str], column: Column) -> Spec:
    """The share of requests at or below a time: rows {choice, share (0..1), value (ms)}."""
    x = {
        "field": "value",
        "type": "quantitative",
        "title": column.heading(),
        "scale": {"type": "log", "nice": False},
        "axis": {"format": NUMBER, "tickCount": 5, **(edge(column) if least(column) else {})},
    }
    y = {
        "field": "share",
        "type": "quantitative",
        "title": "share at or below",
        "axis": {"format": "%", "values": [0, 0.25, 0.5, 0.75, 0.95]},
        "scale": {"domain": [0, 1]},
    }
    order = {"field": "share"}
    return {
        "mark": {"type": "line", "strokeWidth": 2, "interpolate": "linear", "clip": True},
        "encoding": {"x": x, "y": y, "order": order, **lines(colours)},
    }


def scaling(colours: Mapping[str, str], over: str, title: str, limit: float = 0.0, *, linear: bool = False) -> Spec:
    """A figure against the load: rows {choice, level, value}; a line across at the SLO's limit, if any."""
    named = {"concurrency": "requests in flight", "rate": "requests per second asked"}[over]
    x = {
        "field": "level",
        "type": "quantitative",
        "title": named,
        "scale": {"type": "log", "base": 2, "nice": False, "padding": 12},
        "axis": {"format": NUMBER, "tickCount": 6},
    }
    scale = {"zero": True, "nice": True} if linear else {"type": "log", "nice": False, "padding": 12}
    y = {
        "field": "value",
        "type": "quantitative",
        "title": title,
        "scale": scale,
        "axis": {"format": NUMBER, "tickCount": 5},
    }
    drawn: Spec = {
        "mark": {"type": "line", "strokeWidth": 2, "point": {"size": 45, "filled": True}},
        "encoding": {"x": x, "y": y, **lines(colours)},
    }
    return {"layer": [drawn, *(limit_line(limit) if limit else ())]}


def limit_line(limit: float) -> list[Spec]:
    at = {"datum": limit, "type": "quantitative"}
    one: Spec = {"values": [{}]}
    words = {"value": f"SLO {limit:,.4g} ms"}
    return [
        {"data": one, "mark": {"type": "rule", "strokeDash": [3, 3], "strokeWidth": 1.5}, "encoding": {"y": at}},
        {
            "data": one,
            "mark": {"type": "text", "align": "left", "dx": 4, "dy": -7, "fontWeight": 600},
            "encoding": {"y": at, "x": {"value": 0}, "text": words},
        },
    ]


def _scaled(name: str, title: str, found: Mapping[str, str], legend: str) -> Spec:
    size = {"symbolStrokeWidth": 0, "symbolSize": 110}[legend]
    scale = {"domain": list(found), "range": list(found.values())}
    return {"field": name, "type": "nominal", "title": title, "scale": scale, "legend": {legend: size}}


def _tasks(counts: Mapping[tuple[str, str], int], column: Column) -> list[str]:
    return [task for key, task in counts if key == column.key]
