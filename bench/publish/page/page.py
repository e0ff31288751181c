"""report.html: all records as one interactive page that opens from a disk and sends no network request.

Its template, style and scripts are files of this folder; Vega-Lite is what vl-convert-python bundles. Whole
records are embedded gzipped, a hundred to a chunk, and unpacked when one is opened.
"""

from __future__ import annotations

import base64
import dataclasses
import gzip
import hashlib
import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from bench.contract import wire
from bench.contract.columns import Column
from bench.contract.outside import printable
from bench.contract.record import Result
from bench.publish import machines
from bench.publish.figures import specs
from bench.publish.figures.chart_data import Point
from bench.publish.figures.distributions import Distribution
from bench.publish.page import tables
from bench.publish.records import Records
from bench.publish.tables.columns import (
    DEPTH,
    DISTRIBUTIONS,
    MBU,
    MORE,
    ONLINE,
    SCALING,
    SERVING,
    SIZE,
    group,
    quality_axes,
)
from bench.publish.tables.model import LEGEND, names
from bench.store import Store

NAME = "report.html"
_FOLDER = Path(__file__).parent
_SCRIPTS = ("table.js", "charts.js", "record.js", "page.js")
_CHUNK = 100
_ATOMS = frozenset({str, int, float, bool, type(None)})
_AGAINST: Mapping[str, Sequence[Column]] = {"concurrency": SCALING, "rate": SCALING, "depth": DEPTH}
_LONG = 24  # lists of more numbers are left to the record's file


def write(path: Path, data: Mapping[str, Any], chunks: Sequence[str], library: str) -> bool:
    """Write the page of this `content` with the script `library`; False if it is there already."""
    parts = {name: (_FOLDER / name).read_text(encoding="utf-8") for name in ("page.html", "page.css", *_SCRIPTS)}
    json = _script_safe(data)
    fingerprint = hashlib.sha256("\0".join((*parts.values(), json, *chunks)).encode()).hexdigest()
    if path.is_file() and f'<meta name="fingerprint" content="{fingerprint}">'.encode() in path.read_bytes():
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    wire.write(path, _html(parts, json, chunks, fingerprint, library))
    return True


def content(
    records: Records, points: Sequence[Point], distributions: Sequence[Distribution], store: Store
) -> tuple[dict[str, Any], list[str]]:
    """What the page shows, and its records, which lie in `store`, in chunks."""
    named = sorted(((store.name(result), result) for result in records.all_results()), key=lambda pair: pair[0])
    results = [result for _, result in named]
    units = itertools.chain(SERVING, ONLINE, SCALING, *map(group, MORE.values()))
    costs, qualities = specs.axis_columns(points)
    families, scales = [p.family for p in points], {c.key: c.scale for c in quality_axes()}
    hardware: dict[str, str] = {}
    for result in results:
        hardware.setdefault(result.hardware.slug, machines.named(result.hardware))
    data = {
        "machines": hardware,
        "chunk": _CHUNK,
        "records": [_key(result) for result in results],
        "speed": tables.speed(records.rows()),
        "quality": tables.quality(records.rows()),
        "parts": tables.by_part(list(records.rows())),
        "legend": LEGEND,
        "notes": list(dict.fromkeys(note for table in records.tables.values() for note in table.notes)),
        "points": [_point(p, costs, scales) for p in points],
        "spread": [_distribution(d) for d in distributions],
        "curves": list(_curves(points)),
        "fields": list(_fields(points)),
        "axes": {"x": [_axis(c) for c in costs], "y": [_axis(c, task) for c, task in qualities]},
        "units": {c.key: [c.header, c.unit, c.scale, c.digits] for c in units},
        "charts": _templates(points),
        "colours": [specs.family_colours(families), specs.family_colours(families, dark=True)],
        "palettes": [specs.LIGHT, specs.DARK],
        "dashes": specs.DASHES,
        "shapes": specs.cycled(specs.SHAPES, (p.engine for p in points)),
    }
    return data, [_chunk(named[i : i + _CHUNK]) for i in range(0, len(named), _CHUNK)]


def _html(parts: Mapping[str, str], json: str, chunks: Sequence[str], fingerprint: str, library: str) -> str:
    script = "\n".join(('"use strict";', *(parts[name] for name in _SCRIPTS)))
    hashes = " ".join(f"'sha256-{_sha256(text)}'" for text in (library, script))
    slots = {
        "policy": f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'",
        "fingerprint": fingerprint,
        "style": parts["page.css"],
        "data": json,
        "chunks": "\n".join(f'<script type="text/plain" class="chunk">{c}</script>' for c in chunks),
        "vega": library,
        "script": script,
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda match: slots[match[1]], parts["page.html"])


def vega() -> str:
    """Vega, Vega-Lite and Vega-Embed with its expression interpreter (the policy forbids eval), as one script."""
    import vl_convert

    script: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    return script.replace("</script", "<\\/script")


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _script_safe(value: Any) -> str:
    """JSON in which nothing can end a script element, as it has no <, or turn the text beside it around."""
    return printable(orjson.dumps(value).decode()).replace("<", "\\u003c")


def _chunk(named: Sequence[tuple[str, Result]]) -> str:
    records = []
    for path, result in named:
        # Without the long lists of its facts, which its file has.
        artifact = result.artifact and dataclasses.replace(result.artifact, facts=_short(result.artifact.facts))
        records.append({"path": path, **vars(result), "facts": _short(result.facts), "artifact": artifact})
    text = printable(orjson.dumps(records, option=orjson.OPT_NON_STR_KEYS).decode())
    return base64.b64encode(gzip.compress(text.encode(), 6, mtime=0)).decode()


def _short(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: nested if type(nested) in _ATOMS else _short(nested) for key, nested in value.items()}
    if isinstance(value, list | tuple):
        if len(value) > _LONG and not isinstance(value[0], Mapping | list | tuple):
            return f"{len(value)} values, in the record's file"
        return [_short(nested) for nested in value]
    return value


def _key(result: Result) -> list[str]:
    """What page.js finds the records of a line or a point by; those of replicates are their recipe's."""
    *choice, recipe, engine, title = names(result)
    choice.append(result.cell.recipe.replicate_of or recipe)
    kind = "load" if result.cell.workload else "task" if result.cell.task else "artifact"
    return [*choice, engine if title else "", kind, title, result.status, str(result.round)]


def _point(point: Point, costs: Sequence[Column], scales: Mapping[str, float]) -> dict[str, Any]:
    fields = ("device", "suite", "model", "recipe", "engine", "family", "baseline", "slo")
    levels = [
        [
            level.over,
            level.level,
            {c.key: level.metrics[c.key] * c.scale for c in _AGAINST[level.over] if c.key in level.metrics},
        ]
        for level in point.levels
    ]
    return {
        **{name: getattr(point, name) for name in fields},
        "load": point.workload,
        "x": {c.key: point.metrics[c.key] * c.scale for c in (*costs, MBU) if c.key in point.metrics},
        "y": {f"{metric}|{task}": value * scales[metric] for (metric, task), value in point.quality.items()},
        "from": dict(point.quality_from),
        "levels": levels,
    }


def _curves(points: Sequence[Point]) -> Iterator[dict[str, Any]]:
    """A task's metrics by position: a curve for each choice of a suite, in the units that are displayed."""
    fields = ("device", "suite", "model", "recipe", "engine")
    choices = {tuple(getattr(point, name) for name in fields): point.by_position for point in points}
    for choice, curves in choices.items():
        for (column, task), curve in curves.items():
            values = [[at, max(value * column.scale, column.axis_min or -math.inf)] for at, value in curve]
            named = dict(zip(fields, choice, strict=True))
            yield {**named, "load": "", "task": task, "metric": column.key, "curve": values}


def _fields(points: Sequence[Point]) -> Iterator[dict[str, Any]]:
    """A task's metric over two axes: a heat map for each choice of a suite, in the units that are displayed."""
    names = ("device", "suite", "model", "recipe", "engine")
    choices = {tuple(getattr(point, name) for name in names): point for point in points}
    for choice, point in choices.items():
        for (column, task), cells in point.fields.items():
            shown = [[row, name, max(value * column.scale, column.axis_min)] for row, name, value in cells]
            if any(value > 0 for _, _, value in cells):
                named = dict(zip(names, choice, strict=True))
                yield {**named, "load": "", "task": task, "metric": column.key, "cells": shown}


def _distribution(distribution: Distribution) -> dict[str, Any]:
    scales = {c.key: c.scale for c in DISTRIBUTIONS}
    curves = {
        key: [[share, float(f"{value * scales[key]:.4g}")] for share, value in curve]
        for key, curve in distribution.curves.items()
    }
    return {**vars(distribution), "load": distribution.workload, "curves": curves}


def _axis(column: Column, task: str | None = None) -> dict[str, Any]:
    """A choice of an axis: the id of x is the metric, of y the metric and the task."""
    return {
        "id": column.key if task is None else f"{column.key}|{task}",
        "task": task or "",
        "title": specs.axis_title(column, task or ""),
        "named": column.heading().strip(),
        "more": column.better == "higher",
        "log": specs.is_log(column),
        "least": column.axis_min,
        "sized": column in SIZE,
        "edge": specs.edge_label(column) if column.axis_min else {},
    }


def _templates(points: Sequence[Point]) -> dict[str, Any]:
    """The charts without their data, colours and titles."""
    return {
        "config": [specs.config(dark=dark, font="system-ui, sans-serif") for dark in (False, True)],
        "pareto": specs.pareto({}, {}),
        "spread": {c.key: specs.ecdf({}, c) for c in DISTRIBUTIONS[:2]},
        "least": {c.key: c.axis_min for c in DISTRIBUTIONS[:2]},
        "load": {
            over: {c.key: specs.scaling({}, over, c.heading(), linear=c.better == "higher") for c in its}
            for over, its in _AGAINST.items()
        },
        "slo": {c.key: c.key.replace("_p95", "") for c in SCALING if c.better == "lower"},
        "limit": specs.limit_line(1.0),
        "position": {c.key: specs.by_position({}, c) for p in points for c, _ in p.by_position},
        "heat": {c.key: specs.heat(c, *p.field_axes[task]) for p in points for c, task in p.fields},
    }
