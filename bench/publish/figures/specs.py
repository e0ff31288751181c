"""Charts as Vega-Lite specifications without data: one source for the interactive page and for SVG figures.

Colour never carries a meaning alone: engines have shapes, lines have dashes. The colours are Okabe and Ito's,
which colour-blind readers can tell apart, and a few of Paul Tol's where those run out; the light ones are
darkened on a light background, for a contrast of three to one.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bench.contract.columns import Column, Group
from bench.publish.figures.chart_data import UNQUANTIZED, Point
from bench.publish.tables.columns import X_AXES, quality_axes, task_name

Spec = dict[str, Any]
SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
# For a light page and for a dark one; the first of each is reserved for unquantized weights.
LIGHT = ("#000000", "#0072B2", "#D55E00", "#009E73", "#C06A9A", "#B8860B", "#2E9BD6", "#882255", "#777733", "#666666")
DARK = ("#FFFFFF", "#56B4E9", "#FF8A3D", "#2FC79A", "#E59BC5", "#F0E442", "#8FCBFF", "#E07BA8", "#C2C25E", "#A8A8A8")
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right", "triangle-left")
DASHES = ((1, 0), (6, 3), (2, 2), (8, 3, 2, 3), (12, 4), (1, 4))
_LINE_LEGEND = {"symbolType": "stroke", "symbolSize": 700, "symbolStrokeWidth": 2.5}
NUMBER = ",.6~f"
_INK = {False: ("#1a1a1a", "#555555", "#dddddd"), True: ("#f0f0f0", "#b5b5b5", "#3a3a3a")}


def config(*, dark: bool, font: str = "sans-serif") -> Spec:
    """Fonts, colours and legend of every chart."""
    size = 13  # of the text, in pixels
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


def family_colours(families: Iterable[str], *, dark: bool = False) -> dict[str, str]:
    """A colour for each family, the same ones for the same families; UNQUANTIZED has the first."""
    first, *others = DARK if dark else LIGHT
    return {UNQUANTIZED: first, **_cycled(others, {*families} - {UNQUANTIZED})}


def _cycled(marks: Sequence[str], names: Iterable[str]) -> dict[str, str]:
    return dict(zip(sorted(set(names)), itertools.cycle(marks), strict=False))


def line_colours(names: Iterable[str]) -> dict[str, str]:
    """A colour of a light page for each line of a chart."""
    return _cycled(LIGHT, names)


def shapes(names: Iterable[str]) -> dict[str, str]:
    """A shape of its points for each engine, or each load."""
    return _cycled(SHAPES, names)


def axis_columns(points: Sequence[Point]) -> tuple[list[Column], list[tuple[Column, str]]]:
    """What x may be, and what y may be: a column and its task, those that most points have first."""
    costs = [c for c in X_AXES if any(c.key in p.metrics for p in points)]
    counts = Counter(key for p in points for key in p.quality)
    return costs, [(c, task) for c in quality_axes() for (key, task), _ in counts.most_common() if key == c.key]


def axis_title(column: Column, task: str = "") -> str:
    """The column's heading, with the task it is of."""
    title = column.heading(task_name(task))
    return title if "{title}" in column.header or not task else f"{title} ({task_name(task)})"


def is_log(column: Column) -> bool:
    """Whether an axis is logarithmic whatever its values are: divergences and perplexities."""
    return Group.LOG_AXIS in column.groups


def edge_label(column: Column) -> Spec:
    """The axis property that marks the edge's tick with a "≤"."""
    prefix = f"datum.value == {column.axis_min:g} ? '≤ ' : ''"
    return {"labelExpr": f"({prefix}) + format(datum.value, '{NUMBER}')"}


def set_ticks(encoding: Spec, values: Sequence[float]) -> None:
    """Give an axis round ticks over these values, if it is logarithmic."""
    if encoding["scale"].get("type") == "log" and min(values) > 0:
        encoding["axis"] = {**encoding["axis"], "values": ticks(min(values) / 1.3, max(values) * 1.3)}


def ticks(low: float, high: float) -> list[float]:
    """Ticks of a logarithmic axis: 1, 2 and 5 times powers of ten, fewer over many decades."""
    decades = math.log10(high / low)
    steps = (1, 2, 3, 5) if decades <= 1.1 else (1, 2, 5) if decades <= 2.2 else (1, 3) if decades <= 3 else (1,)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [tick for power in powers for step in steps if low <= (tick := float(f"{step}e{power}")) <= high]


def pareto(colours: Mapping[str, str], shapes: Mapping[str, str]) -> Spec:
    """Quality against cost: points {x, y, choice, family, engine, baseline}, their frontier and labels.

    Its data sets are empty and its axes have no titles: figures and the page set them.
    """
    offsets = {name: {"expr": f"datum.{name}"} for name in ("align", "dx", "dy")}
    legend = {"symbolStrokeWidth": 0}
    point_encoding = {
        "color": nominal("family", "weights", colours, legend),
        "shape": nominal("engine", "engine", shapes, legend),
    }
    layers: list[tuple[str, Spec, Spec]] = [
        ("frontier", {"type": "line", "strokeDash": [5, 4], "strokeWidth": 1.5, "color": "#808080"}, {}),
        ("baseline", {"type": "point", "shape": "circle", "size": 330, "strokeWidth": 1.5, "color": "#808080"}, {}),
        ("points", {"type": "point", "filled": True, "size": 95, "opacity": 0.9, "cursor": "pointer"}, point_encoding),
        ("labels", {"type": "text", "baseline": "middle", **offsets}, {"text": {"field": "label"}}),
    ]
    return {
        "$schema": SCHEMA,
        "encoding": {axis: quantitative(axis, "", {}, tickCount=6) for axis in ("x", "y")},
        "layer": [
            {"data": {"name": name, "values": []}, "mark": mark, **({"encoding": encoding} if encoding else {})}
            for name, mark, encoding in layers
        ],
    }


def ecdf(colours: Mapping[str, str], column: Column) -> Spec:
    """The share of requests at or below a time: rows {choice, share (0..1), value (ms)}."""
    edge = edge_label(column) if column.axis_min else {}
    y_axis = {"format": "%", "values": [0, 0.25, 0.5, 0.75, 0.95]}
    y = quantitative("share", "share at or below", {"domain": [0, 1]}, **y_axis)
    return {
        "mark": {"type": "line", "strokeWidth": 2, "interpolate": "linear", "clip": True},
        "encoding": {
            "x": quantitative("value", column.heading(), {"type": "log", "nice": False}, tickCount=5, **edge),
            "y": y,
            "order": {"field": "share"},
            **_lines(colours),
        },
    }


def scaling(colours: Mapping[str, str], over: str, title: str, limit: float = 0.0, *, linear: bool = False) -> Spec:
    """A metric against the load: rows {choice, level, value}; a line across at the SLO's limit (ms), if any."""
    x_title = {"concurrency": "requests in flight", "rate": "request rate (per second)"}[over]
    x_scale = {"type": "log", "base": 2, "nice": False, "padding": 12}
    y_scale = {"zero": True, "nice": True} if linear else {"type": "log", "nice": False, "padding": 12}
    lines: Spec = {
        "mark": {"type": "line", "strokeWidth": 2, "point": {"size": 45, "filled": True}},
        "encoding": {
            "x": quantitative("level", x_title, x_scale, tickCount=6),
            "y": quantitative("value", title, y_scale, tickCount=5),
            **_lines(colours),
        },
    }
    return {"layer": [lines, *(limit_line(limit) if limit else ())]}


def limit_line(limit: float) -> list[Spec]:
    """Two layers: a dashed line across at a limit of the SLO, in ms, and its text."""
    y = {"datum": limit, "type": "quantitative"}
    data: Spec = {"values": [{}]}
    text = {"value": f"SLO {limit:,.4g} ms"}
    return [
        {"data": data, "mark": {"type": "rule", "strokeDash": [3, 3], "strokeWidth": 1.5}, "encoding": {"y": y}},
        {
            "data": data,
            "mark": {"type": "text", "align": "left", "dx": 4, "dy": -7, "fontWeight": 600},
            "encoding": {"y": y, "x": {"value": 0}, "text": text},
        },
    ]


def quantitative(field: str, title: str, scale: Spec, **axis: Any) -> Spec:
    """The encoding of a number by a position."""
    return {"field": field, "type": "quantitative", "title": title, "scale": scale, "axis": {"format": NUMBER, **axis}}


def nominal(field: str, title: str, values: Mapping[str, Any], legend: Spec | None = None) -> Spec:
    """The encoding of a name by a colour, a shape or a dash."""
    scale = {"domain": list(values), "range": list(values.values())}
    encoding = {"field": field, "type": "nominal", "title": title, "scale": scale}
    return encoding if legend is None else {**encoding, "legend": legend}


def _lines(colours: Mapping[str, str]) -> Spec:
    """Choices as lines of their own colour and dash."""
    dashes = dict(zip(colours, map(list, itertools.cycle(DASHES)), strict=False))
    encodings = {"color": colours, "strokeDash": dashes}
    return {name: nominal("choice", "", values, _LINE_LEGEND) for name, values in encodings.items()}
