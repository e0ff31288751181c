"""report.html: all records as one page that opens from a disk, asks nothing of any network, and reacts.

The page's own template, style and scripts are files of the folder `page`; Vega-Lite is what vl-convert-python
bundles. Whole records are embedded gzipped, a hundred to a chunk, and unpacked when one is opened.
"""

from __future__ import annotations

import base64
import dataclasses
import gzip
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from bench.contract.columns import Column
from bench.contract.record import Result
from bench.publish import machines as machine_names
from bench.publish.figures import specs
from bench.publish.figures.chart_data import Point
from bench.publish.figures.distributions import Distribution
from bench.publish.page import tables as listing
from bench.publish.tables.columns import DISTRIBUTIONS, MBU, MORE, ONLINE, SCALING, SERVING, SIZE, group, quality_axes
from bench.publish.tables.model import LEGEND, Table

NAME = "report.html"
_FOLDER = Path(__file__).parent
_SCRIPTS = ("table.js", "charts.js", "record.js", "page.js")
_CHUNK = 100
_LONG = 24  # numbers of a list that are shown; the rest is in the record's file
_STAMP = re.compile(rb'<meta name="fingerprint" content="([0-9a-f]{64})">')


def write(path: Path, data: Mapping[str, Any], chunks: Sequence[str], library: str) -> bool:
    """Write the page, unless one of the same content is there; whether it was written. `library`: `vega`."""
    from bench.contract import wire

    parts = {name: (_FOLDER / name).read_text(encoding="utf-8") for name in ("page.html", "page.css", *_SCRIPTS)}
    plain = _embedded(data)
    stamp = hashlib.sha256("\0".join((*parts.values(), plain, *chunks)).encode()).hexdigest()
    if _stamp(path) == stamp:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    wire.write(path, _html(parts, plain, chunks, stamp, library))
    return True


def content(
    results: Sequence[Result],
    tables: Sequence[Table],
    points: Sequence[Point],
    spread: Sequence[Distribution],
    where: Callable[[Result], str],
) -> tuple[dict[str, Any], list[str]]:
    """What the page shows, and its records in chunks. `where`: a record's path below the results."""
    ordered = sorted(results, key=where)
    won, kept = specs.axis_columns(points)
    families, engines = [p.family for p in points], [p.engine for p in points]
    machines: dict[str, str] = {}
    for result in ordered:
        machines.setdefault(result.hardware.slug, machine_names.named(result.hardware))
    data = {
        "machines": machines,
        "chunk": _CHUNK,
        "records": [_key(r) for r in ordered],
        "speed": vars(listing.speed(tables)),
        "quality": vars(listing.quality(tables)),
        "legend": LEGEND,
        "notes": list(dict.fromkeys(note for table in tables for note in table.notes)),
        "points": [_point(p, won) for p in points],
        "spread": [_spread(d) for d in spread],
        "axes": {"x": [_axis(c) for c in won], "y": [_axis(c, task) for c, task in kept]},
        "units": {c.key: [c.header, c.unit, c.scale, c.digits] for c in _known()},
        "charts": _templates(),
        "colours": [specs.coloured(families), specs.coloured(families, dark=True)],
        "palettes": [specs.LIGHT, specs.DARK],
        "dashes": specs.DASHES,
        "shapes": specs.shaped(engines),
    }
    packed = [ordered[i : i + _CHUNK] for i in range(0, len(ordered), _CHUNK)]
    return data, [_chunk([(where(r), r) for r in some]) for some in packed]


def _html(parts: Mapping[str, str], plain: str, chunks: Sequence[str], stamp: str, library: str) -> str:
    script = "\n".join(('"use strict";', *(parts[name] for name in _SCRIPTS)))
    hashes = " ".join(f"'sha256-{_sha256(text)}'" for text in (library, script))
    filled = {
        "policy": f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'",
        "fingerprint": stamp,
        "style": parts["page.css"],
        "data": plain,
        "chunks": "\n".join(f'<script type="text/plain" class="chunk">{c}</script>' for c in chunks),
        "vega": library,
        "script": script,
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda found: filled[found[1]], parts["page.html"])


def vega() -> str:
    """Vega, Vega-Lite and Vega-Embed with its interpreter of expressions, as one script."""
    import vl_convert

    script: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    return script.replace("</script", "<\\/script")


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _stamp(path: Path) -> str:
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        found = _STAMP.search(file.read(4000))
    return found[1].decode() if found else ""


def _embedded(value: Any) -> str:
    """JSON that nothing in it can end: no < is left in it."""
    text = orjson.dumps(value).decode()
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _chunk(records: Sequence[tuple[str, Result]]) -> str:
    whole = [{"path": path, **vars(_shortened(result))} for path, result in records]
    text = orjson.dumps(whole, option=orjson.OPT_NON_STR_KEYS)
    return base64.b64encode(gzip.compress(text, 6, mtime=0)).decode()


def _shortened(result: Result) -> Result:
    """The record, with the long lists of its facts left to its file."""
    made = result.artifact
    if made is not None:
        made = dataclasses.replace(made, facts=_short(made.facts))
    return dataclasses.replace(result, facts=_short(result.facts), artifact=made)


def _short(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _short(its) for key, its in value.items()}
    if isinstance(value, list | tuple):
        if len(value) > _LONG and not isinstance(value[0], Mapping | list | tuple):
            return f"{len(value)} values, in the record's file"
        return [_short(its) for its in value]
    return value


def _key(result: Result) -> list[str]:
    """What tells which lines of the tables a record stands behind."""
    cell = result.cell
    kind = "load" if cell.workload else "task" if cell.task else "made"
    engine = "" if kind == "made" else cell.engine.title
    return [
        result.hardware.slug,
        result.suite,
        cell.model.shown,
        cell.recipe.name,
        engine,
        kind,
        cell.what,
        result.status,
        str(result.round),
    ]


def _point(point: Point, won: Sequence[Column]) -> dict[str, Any]:
    names = ("device", "suite", "model", "recipe", "engine", "family", "baseline", "slo")
    scales = {c.key: c.scale for c in quality_axes()}
    return {
        **{name: getattr(point, name) for name in names},
        "load": point.workload,
        "x": {c.key: point.figures[c.key] * c.scale for c in (*won, MBU) if c.key in point.figures},
        "y": {f"{metric}|{task}": value * scales[metric] for (metric, task), value in point.quality.items()},
        "from": dict(point.quality_from),
        "levels": [_level(level.over, level.level, level.figures) for level in point.levels],
    }


def _level(over: str, at: float, figures: Mapping[str, float]) -> list[Any]:
    return [over, at, {c.key: figures[c.key] * c.scale for c in SCALING if c.key in figures}]


def _spread(found: Distribution) -> dict[str, Any]:
    scales = {c.key: c.scale for c in DISTRIBUTIONS}
    curves = {
        key: [[share, float(f"{value * scales[key]:.4g}")] for share, value in curve]
        for key, curve in found.curves.items()
    }
    return {**dataclasses.asdict(found), "load": found.workload, "curves": curves}


def _axis(column: Column, task: str | None = None) -> dict[str, Any]:
    """What may be on an axis: of x its key is the metric, of y the metric and the task."""
    return {
        "id": column.key if task is None else f"{column.key}|{task}",
        "task": task or "",
        "title": specs.heading(column, task or ""),
        "named": column.heading().strip(),
        "more": column.better == "higher",
        "log": specs.is_log(column),
        "least": specs.least(column),
        "sized": column in SIZE,
        "edge": specs.edge(column) if specs.least(column) else {},
    }


def _templates() -> dict[str, Any]:
    """The charts without their data, colours and titles."""
    return {
        "config": [specs.config(dark=dark, font="system-ui, sans-serif") for dark in (False, True)],
        "pareto": specs.pareto({}, {}),
        "spread": {c.key: specs.ecdf({}, c) for c in DISTRIBUTIONS[:2]},
        "least": {c.key: specs.least(c) for c in DISTRIBUTIONS[:2]},
        "load": {
            over: {c.key: specs.scaling({}, over, c.heading(), linear=c.better == "higher") for c in SCALING}
            for over in ("concurrency", "rate")
        },
        "slo": {c.key: c.key.replace("_p95", "") for c in SCALING if c.better == "lower"},
        "limit": specs.limit_line(1.0),
    }


def _known() -> list[Column]:
    more = [column for its in MORE.values() for column in group(its)]
    return list(dict.fromkeys((*SERVING, *ONLINE, *SCALING, *more)))
