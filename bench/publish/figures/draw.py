"""The figures of the report: which charts a device's suites give, as SVG and PNG beside their tables.

What a picture's bytes are depends on the fonts of the machine that drew it, so a picture carries the digest
of its specification, and is stale when that is another.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from bench.contract import wire
from bench.contract.columns import Column
from bench.measure.frontier import frontier
from bench.publish.figures import labels
from bench.publish.figures import specs as charts
from bench.publish.figures.chart_data import Point
from bench.publish.figures.distributions import Distribution
from bench.publish.figures.specs import Spec
from bench.publish.tables.columns import DISTRIBUTIONS, MBU, SCALING, SIZE, quotable
from bench.store import safe_name

WIDTH, HEIGHT = 590, 370
_MOST = 40  # lines of a figure that a page can hold
_SCALE = 1.75  # pixels of the PNG to one of the SVG
_STAMP = re.compile(rb"<!-- spec ([0-9a-f]{16}) -->\n?\Z")
_KEY = b"spec"
# Against quality, by the name of the chart: the columns that say most of a choice.
_AGAINST: Mapping[str, Column] = {
    "quality-output": quotable("output_tok_per_s"),
    "quality-ttft": quotable("ttft_s"),
    "quality-memory": quotable("peak_memory_bytes"),
    "quality-bits": SIZE[0],
}


def specs(points: Sequence[Point], spread: Sequence[Distribution]) -> dict[Path, Spec]:
    """Every chart that has something to show, by its path below the results, without the ending."""
    found: dict[Path, Spec] = {}
    colours = charts.coloured(p.family for p in points)  # a family has one colour in all figures
    for device, suite in dict.fromkeys((p.device, p.suite) for p in points):
        its = [p for p in points if (p.device, p.suite) == (device, suite)]
        for model in dict.fromkeys(p.model for p in its):
            some = [p for p in its if p.model == model]
            curves = [d for d in spread if (d.device, d.suite, d.model) == (device, suite, model)]
            several = f"-{model}" if len({p.model for p in its}) > 1 else ""
            for name, spec in (*_paretos(some, colours), *_spreads(curves), *_scalings(some), *_rooflines(some)):
                path = Path(safe_name(device)) / "figures" / safe_name(f"{suite}{several}-{name}")
                found[path] = {**spec, "config": charts.config(dark=False), "padding": 12}
    return found


def stale(root: Path, wanted: Mapping[Path, Spec]) -> list[Path]:
    """The pictures that are not there, are not of these specifications, or of none of them."""
    found = []
    for path, spec in wanted.items():
        digest = wire.digest(spec)
        found += [
            made
            for ending, of in (("svg", _of_svg), ("png", _of_png))
            if of(root / (made := path.with_name(f"{path.name}.{ending}"))) != digest
        ]
    return found + _left(root, wanted)


def write(root: Path, wanted: Mapping[Path, Spec]) -> list[Path]:
    """Draw what is stale and delete what is no longer wanted; the paths that changed."""
    left = _left(root, wanted)
    for path in left:
        (root / path).unlink()
    changed = [path for path in stale(root, wanted) if path not in left]
    stems = list(dict.fromkeys(path.with_name(path.name[: -len(path.suffix)]) for path in changed))
    with ThreadPoolExecutor() as pool:  # drawing and packing happen outside Python's lock
        for stem, pictures in zip(stems, pool.map(drawn, (wanted[stem] for stem in stems)), strict=True):
            (root / stem).parent.mkdir(parents=True, exist_ok=True)
            for ending, picture in pictures.items():
                wire.write(root / stem.with_name(f"{stem.name}{ending}"), picture)
    return [*changed, *left]


def drawn(spec: Spec) -> dict[str, bytes]:
    """The picture as .svg and as .png, with the digest of its specification in each."""
    import vl_convert

    digest = wire.digest(spec)
    svg = _renumbered(vl_convert.vegalite_to_svg(spec))
    png = _stamped(vl_convert.svg_to_png(svg, scale=_SCALE), digest)
    return {".svg": f"{svg.rstrip()}\n<!-- spec {digest} -->\n".encode(), ".png": png}


def _renumbered(svg: str) -> str:
    """With its clipping paths counted from 0: the library counts on through all that a process draws."""
    ids: dict[str, str] = {}
    return re.sub(r"(?<=[\"#])clip\d+(?=[\")])", lambda m: ids.setdefault(m[0], f"clip{len(ids)}"), svg)


def _left(root: Path, wanted: Mapping[Path, Spec]) -> list[Path]:
    """Pictures of ours that no chart has any more."""
    there = [path for ending in ("svg", "png") for path in sorted(root.glob(f"*/figures/*.{ending}"))]
    ours = [path for path in there if (_of_svg if path.suffix == ".svg" else _of_png)(path)]
    return [p for p in (path.relative_to(root) for path in ours) if p.with_name(p.name[: -len(p.suffix)]) not in wanted]


def _of_svg(path: Path) -> str:
    """The digest in a picture; "" where there is none."""
    found = _STAMP.search(path.read_bytes()[-64:]) if path.is_file() else None
    return found[1].decode() if found else ""


def _of_png(path: Path) -> str:
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        found = re.search(rb"tEXt" + _KEY + rb"\0([0-9a-f]{16})", file.read(128))
    return found[1].decode() if found else ""


def _stamped(png: bytes, digest: str) -> bytes:
    """The PNG packed tighter, with the digest as a text chunk behind its header (33 bytes)."""
    packed = b"".join(data for kind, data in _chunks(png) if kind == b"IDAT")
    png = png[:33] + _chunk(b"IDAT", zlib.compress(zlib.decompress(packed), 7)) + _chunk(b"IEND", b"")
    return png[:33] + _chunk(b"tEXt", _KEY + b"\0" + digest.encode()) + png[33:]


def _chunks(png: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 8
    while at < len(png):
        (size,) = struct.unpack(">I", png[at : at + 4])
        yield png[at + 4 : at + 8], png[at + 8 : at + 8 + size]
        at += size + 12


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _paretos(points: Sequence[Point], colours: Mapping[str, str]) -> Iterator[tuple[str, Spec]]:
    """Quality against each thing won: under the load that most choices ran, by the task that most have."""
    for name, column in _AGAINST.items():
        sized = column in SIZE
        loads = dict.fromkeys(sorted(p.workload for p in points))
        if sized:  # no load changes it
            once = {p.choice: p for p in points}
            groups = {"": list(once.values())}
        else:
            groups = {load: [p for p in points if p.workload == load and load] for load in loads}
        ready = [(load, *_both(group, column)) for load, group in groups.items()]
        load, shown, kept = max(ready, key=lambda r: len(r[1]), default=("", [], None))
        if kept is not None and _tells(shown, *kept):
            yield name, _pareto(shown, column, *kept, load, colours)


def _tells(points: Sequence[Point], y: Column, task: str) -> bool:
    """Whether the quality of two recipes or more differs at all."""
    values = {p.recipe: value for p in points if (value := p.quality[y.key, task]) > charts.least(y)}
    return len(set(values.values())) > 1


def _both(points: Sequence[Point], x: Column) -> tuple[list[Point], tuple[Column, str] | None]:
    """The points that have x and the quality that most of them have, a divergence before a perplexity."""
    _, kept = charts.axis_columns(points)
    kept = [(c, task) for c, task in kept if charts.is_log(c)]
    having = [([p for p in points if x.key in p.figures and (c.key, task) in p.quality], (c, task)) for c, task in kept]
    return max(having, key=lambda h: len(h[0]), default=([], None))


def _pareto(points: Sequence[Point], x: Column, y: Column, task: str, load: str, colours: Mapping[str, str]) -> Spec:
    xs = [p.figures[x.key] * x.scale for p in points]
    ys = [max(p.quality[y.key, task] * y.scale, charts.least(y)) for p in points]
    there = {p.family for p in points}
    spec = charts.pareto(
        {word: colour for word, colour in colours.items() if word in there}, charts.shaped(p.engine for p in points)
    )
    charts.titled(spec, x, y, task, xs, ys)
    pixels = _fixed(spec, xs, ys)
    best = frontier(list(zip(xs, ys, strict=True)), (x.better == "higher", y.better == "higher"))
    names = _names(points)
    order = sorted(range(len(points)), key=lambda i: (not points[i].baseline, i not in best, names[i]))
    placed = labels.place(names, pixels, order, WIDTH + 12, HEIGHT, [pixels[i] for i in best])
    sets: dict[str, list[dict[str, Any]]] = {
        "frontier": [{"x": xs[i], "y": ys[i]} for i in best],
        "points": [
            {"x": xv, "y": yv, "family": p.family, "engine": p.engine, "baseline": p.baseline}
            for p, xv, yv in zip(points, xs, ys, strict=True)
        ],
        "labels": [
            {
                "x": xs[one.index],
                "y": ys[one.index],
                "label": names[one.index],
                "align": one.align,
                "dx": one.dx,
                "dy": one.dy,
            }
            for one in placed
        ],
    }
    sets["baseline"] = [point for point in sets["points"] if point["baseline"]]
    for layer in spec["layer"]:
        layer["data"]["values"] = sets[layer["data"]["name"]]
    spec["layer"] = [layer for layer in spec["layer"] if layer["data"]["values"]]
    place = ", ".join(filter(None, (points[0].suite, points[0].model, load)))
    said = f"{place}. Dashed: nothing measured is better in both"
    title = f"{y.heading()} against {x.heading()}"
    return {**spec, "width": WIDTH, "height": HEIGHT, "title": {"text": title, "subtitle": said}}


def _fixed(spec: Spec, xs: Sequence[float], ys: Sequence[float]) -> list[tuple[float, float]]:
    """Fix the ends and the ticks of both axes, so that it is known where each point lies; say where."""
    at = {}
    for side, values, length in (("x", xs, WIDTH), ("y", ys, HEIGHT)):
        encoding = spec["encoding"][side]
        log = encoding["scale"].get("type") == "log"
        ends = labels.domain(values, log=log)
        at[side] = labels.positions(values, ends, length, log=log)
        fixed = {"domain": list(ends), "nice": False, "zero": False}
        encoding["scale"] = {"type": "log", **fixed} if log else fixed
        if log:
            encoding["axis"] = {**encoding["axis"], "values": charts.ticks(*ends)}
    return list(zip(at["x"], (HEIGHT - v for v in at["y"]), strict=True))


def _names(points: Sequence[Point]) -> list[str]:
    """What is written beside each: the recipe, and the engine where a recipe ran on several."""
    engines: dict[str, set[str]] = {}
    for p in points:
        engines.setdefault(p.recipe, set()).add(p.engine)
    return [p.recipe if len(engines[p.recipe]) == 1 else f"{p.recipe}, {p.engine}" for p in points]


def _spreads(spread: Sequence[Distribution]) -> Iterator[tuple[str, Spec]]:
    """For TTFT and for ITL the share of requests at or below a time, a panel for each load."""
    colours = charts.choices(d.choice for d in spread)
    for column in DISTRIBUTIONS[:2]:  # TPOT is a mean of ITL: its tails are beside the load
        shown = [d for d in spread if column.key in d.curves]
        if len(shown) < 2:
            continue
        rows: list[dict[str, Any]] = [
            {
                "choice": d.choice,
                "load": d.workload,
                "share": share,
                "value": max(value * column.scale, charts.least(column)),
            }
            for d in sorted(shown, key=lambda d: _natural(d.workload))
            for share, value in d.curves[column.key]
        ]
        unit = {**charts.ecdf(colours, column), "width": 265, "height": 140}
        unit["encoding"]["x"] = charts.ticked(unit["encoding"]["x"], [row["value"] for row in rows])
        name = column.key.removesuffix("_s")
        yield (
            f"spread-{name}",
            {
                "$schema": charts.SCHEMA,
                "data": {"values": rows},
                "columns": 2,
                "spec": unit,
                "title": {
                    "text": f"Distribution of {column.header}",
                    "subtitle": f"{shown[0].suite}, {shown[0].model}. {_each(shown)}",
                },
                "facet": {
                    "field": "load",
                    "title": None,
                    "type": "nominal",
                    "sort": list(dict.fromkeys(row["load"] for row in rows)),
                },
                "resolve": {"axis": {"x": "independent"}},
            },
        )


def _natural(name: str) -> list[tuple[int, str]]:
    """A key that sorts c4 before c16."""
    return [(int(part) if part.isdigit() else -1, part) for part in re.split(r"(\d+)", name)]


def _each(shown: Sequence[Distribution]) -> str:
    whole = all(d.traced for d in shown)
    return "A panel for each load; medians over the rounds" + ("" if whole else "; some from percentiles alone")


def _scalings(points: Sequence[Point]) -> Iterator[tuple[str, Spec]]:
    """Speed and tails against the requests in flight, and against their rate: a panel for each figure."""
    for over in ("concurrency", "rate"):
        rows = [(p, level) for p in points for level in p.levels if level.over == over]
        if len({level.level for _, level in rows}) < 2 or len({p.choice for p, _ in rows}) < 2:
            continue
        colours = charts.choices(p.choice for p, _ in rows)
        limits = {key: value for p, _ in rows for key, value in p.slo.items()}
        panels = []
        for column in SCALING:
            data: list[dict[str, Any]] = [
                {"choice": p.choice, "level": level.level, "value": level.figures[column.key] * column.scale}
                for p, level in sorted(rows, key=lambda r: (r[0].choice, r[1].level))
                if column.key in level.figures
            ]
            limit = limits.get(column.key.replace("_p95", ""), 0.0) * column.scale
            unit = charts.scaling(
                colours,
                over,
                column.heading(),
                limit if column.better == "lower" else 0.0,
                linear=column.better == "higher",
            )
            if len(data) > 1:
                drawn = unit["layer"][0]["encoding"]
                drawn["y"] = charts.ticked(drawn["y"], [row["value"] for row in data])
                panels.append({**unit, "data": {"values": data}, "width": 245, "height": 190})
        if panels:
            title = {
                "concurrency": "Speed and latency against requests in flight",
                "rate": "Speed and latency against the rate of requests",
            }[over]
            yield (
                f"load-{over}",
                {"$schema": charts.SCHEMA, "title": title, "concat": panels, "columns": 2, "spacing": 26},
            )


def _rooflines(points: Sequence[Point]) -> Iterator[tuple[str, Spec]]:
    """How much of the memory's bandwidth decoding uses, a line for each choice and a mark for each load."""
    known = sorted((p for p in points if MBU.key in p.figures), key=lambda p: -p.figures[MBU.key])
    if len(known) < 2:
        return
    choices = list(dict.fromkeys(p.choice for p in known))
    kept = set(choices[:_MOST])
    shown = [p for p in points if MBU.key in p.figures and p.choice in kept]
    cut = f". The {_MOST} nearest to it of {len(choices)}" if len(choices) > _MOST else ""
    rows = [{"choice": p.choice, "load": p.workload, "value": p.figures[MBU.key] * MBU.scale} for p in shown]
    loads = sorted({p.workload for p in shown})
    palette = dict(zip(loads, charts.choices(loads).values(), strict=True))
    shapes = charts.shaped(loads)
    x = {"field": "value", "type": "quantitative", "title": MBU.heading(), "scale": {"domain": [0, 100]}}
    y = {
        "field": "choice",
        "type": "nominal",
        "title": None,
        "sort": {"field": "value", "op": "max", "order": "descending"},
        "axis": {"grid": True, "labelLimit": 260},
    }
    marks = {
        "color": {
            "field": "load",
            "type": "nominal",
            "title": "load",
            "scale": {"domain": list(palette), "range": list(palette.values())},
        },
        "shape": {
            "field": "load",
            "type": "nominal",
            "title": "load",
            "scale": {"domain": list(shapes), "range": list(shapes.values())},
        },
    }
    yield (
        "roofline",
        {
            "$schema": charts.SCHEMA,
            "data": {"values": rows},
            "width": 400,
            "height": {"step": 26},
            "mark": {"type": "point", "filled": True, "size": 95, "opacity": 1},
            "encoding": {"x": x, "y": y, **marks},
            "title": {
                "text": "Decoding against the memory's bandwidth",
                "subtitle": f"{shown[0].suite}, {shown[0].model}. 100 %: a step's bytes at the ceiling{cut}",
            },
        },
    )
