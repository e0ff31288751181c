"""Charts as Vega-Lite specifications without data: one source for the interactive page and for SVG figures.

The files of templates/ are the specifications, with a "$slot" for each part that differs.

Colour never carries a meaning alone: engines have shapes, lines have dashes. The colours are Okabe and Ito's,
which colour-blind readers can tell apart, and a few of Paul Tol's where those run out; the light ones are
darkened on a light background, for a contrast of three to one.
"""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.contract.columns import Column, Group
from bench.publish.figures.chart_data import UNQUANTIZED, Point
from bench.publish.tables.columns import X_AXES, quality_axes, task_name

Spec = dict[str, Any]
SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
_TEMPLATES = Path(__file__).parent / "templates"
# For a light page and for a dark one; the first of each is reserved for unquantized weights.
LIGHT = ("#000000", "#0072B2", "#D55E00", "#009E73", "#C06A9A", "#B8860B", "#2E9BD6", "#882255", "#777733", "#666666")
DARK = ("#FFFFFF", "#56B4E9", "#FF8A3D", "#2FC79A", "#E59BC5", "#F0E442", "#8FCBFF", "#E07BA8", "#C2C25E", "#A8A8A8")
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right", "triangle-left")
DASHES = ((1, 0), (6, 3), (2, 2), (8, 3, 2, 3), (12, 4), (1, 4))
NUMBER = ",.6~f"
LOAD_AXES = {
    "concurrency": "requests in flight",
    "rate": "request rate (per second)",
    "depth": "depth (tokens in the KV cache before the prompt)",
}
_INK = {False: ("#1a1a1a", "#555555", "#dddddd"), True: ("#f0f0f0", "#b5b5b5", "#3a3a3a")}


def template(name: str, **slots: Any) -> Spec:
    """A copy of templates/<name>.json, each "$slot" in it replaced by its value."""
    text = (_TEMPLATES / f"{name}.json").read_text(encoding="utf-8")
    spec: Spec = json.loads(text, object_hook=lambda node: {key: _filled(node[key], slots) for key in node})
    return spec


def _filled(value: Any, slots: Mapping[str, Any]) -> Any:
    return slots[value[1:]] if isinstance(value, str) and value.startswith("$") else value


def config(*, dark: bool, font: str = "sans-serif") -> Spec:
    """Fonts, colours and legend of every chart."""
    ink, faint, rule = _INK[dark]
    background = None if dark else "white"
    return template("config", background=background, font=font, ink=ink, faint=faint, rule=rule)


def family_colours(families: Iterable[str], *, dark: bool = False) -> dict[str, str]:
    """A colour for each family, the same ones for the same families; UNQUANTIZED has the first."""
    first, *others = DARK if dark else LIGHT
    return {UNQUANTIZED: first, **cycled(others, {*families} - {UNQUANTIZED})}


def cycled(marks: Sequence[str], names: Iterable[str]) -> dict[str, str]:
    """A mark (a colour, a shape) for each name, the same ones for the same names; over again where they run out."""
    return dict(zip(sorted(set(names)), itertools.cycle(marks), strict=False))


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
    """Quality against cost: points {x, y, family, engine, baseline}; figures and the page set data and axes' titles."""
    return template("pareto", colours=scale(colours), shapes=scale(shapes))


def ecdf(colours: Mapping[str, str], column: Column) -> Spec:
    """The share of requests at or below a time: rows {choice, share (0..1), value (ms)}."""
    axis = {"format": NUMBER, "tickCount": 5, **(edge_label(column) if column.axis_min else {})}
    return template("ecdf", title=column.heading(), axis=axis, colours=scale(colours), dashes=_dashes(colours))


def scaling(colours: Mapping[str, str], over: str, title: str, limit: float = 0.0, *, linear: bool = False) -> Spec:
    """A metric against the load: rows {choice, level, value}; a line across at the SLO's limit (ms), if any."""
    load = LOAD_AXES[over]
    axis = {"zero": True, "nice": True} if linear else {"type": "log", "nice": False, "padding": 12}
    slots = {"load": load, "title": title, "scale": axis, "colours": scale(colours), "dashes": _dashes(colours)}
    lines = template("scaling", **slots)
    return {"layer": [lines, *(limit_line(limit) if limit else ())]}


def depth(colours: Mapping[str, str], title: str) -> Spec:
    """A time against the depth: rows {choice, level, value, line}; `line` is "measured", or "roofline" (dashed)."""
    return template("depth", load=LOAD_AXES["depth"], title=title, colours=scale(colours))


def by_position(colours: Mapping[str, str], column: Column) -> Spec:
    """A task's metric against the tokens before, in the window: rows {choice, level, value}."""
    axis = {"type": "log", "nice": False, "padding": 12} if is_log(column) else {"zero": False, "nice": True}
    slots = {"load": "tokens before, in the window", "title": column.heading(), "scale": axis}
    return template("scaling", **slots, colours=scale(colours), dashes=_dashes(colours))


def heat(column: Column, down: str, across: str) -> Spec:
    """A metric over two axes: rows {row, column, value}."""
    return template("heat", title=column.heading(), down=down, across=across)


def limit_line(limit: float) -> list[Spec]:
    """Two layers: a dashed line across at a limit of the SLO, in ms, and its text."""
    return list(template("limit", limit=limit, text=f"SLO {limit:,.4g} ms")["layer"])


def scale(values: Mapping[str, Any]) -> Spec:
    """The scale of names that have a colour, a shape or a dash each."""
    return {"domain": list(values), "range": list(values.values())}


def _dashes(lines: Iterable[str]) -> Spec:
    return scale(dict(zip(lines, map(list, itertools.cycle(DASHES)), strict=False)))
