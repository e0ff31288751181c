"""Which charts are drawn, and what they label."""

from __future__ import annotations

from pathlib import Path

from bench.publish.figures import charts
from bench.publish.figures.chart_data import Level, Point
from bench.publish.figures.specs import Spec


def test_quality_that_does_not_differ_gets_no_figure(figures: dict[Path, Spec]) -> None:
    """Suites whose recipes are all at the noise floor but one have no chart of quality."""
    assert not [path.name for path in figures if path.name.startswith(("engines-", "pruned-quality"))]


def test_loads_at_several_depths_are_lines_beside_their_roofline() -> None:
    """One for each choice; dashed is what the roofline allows. Loads that differ in more than depth are other lines."""
    points = [
        Point(
            *("cpu", "cache", "m", "gguf-f16", engine, f"offline-b{batch}-d{depth}-p1-n64", "unquantized"),
            baseline=True,
            levels=(Level("depth", depth, {"tpot_s": tpot_s + depth / 1e6, "roofline_s": 0.001, "ttft_s": 0.02}),),
        )
        for engine, tpot_s in {"f16": 0.01, "q8_0": 0.02}.items()
        for batch in (1, 4)
        for depth in (512, 2048)
    ]
    shallow = [p for p in points if p.levels[0].level == 512]
    spec = next(spec for path, spec in charts.build(points, []).items() if "load-depth" in path.name)
    tpot, ttft = (panel["data"]["values"] for panel in spec["concat"])

    assert {row["choice"] for row in tpot} == {
        f"gguf-f16 on {engine}, offline-b{batch}-p1-n64" for engine in ("f16", "q8_0") for batch in (1, 4)
    }
    assert [row["line"] for row in tpot] == ["measured"] * 8 + ["roofline"] * 8
    assert {row["value"] for row in tpot if row["line"] == "roofline"} == {1.0}
    assert [row["level"] for row in ttft] == [512, 2048] * 4
    assert not [path for path in charts.build(shallow, []) if "load-depth" in path.name]


def test_only_the_frontier_and_the_baseline_are_labelled(figures: dict[Path, Spec]) -> None:
    """Every label lies at a point of one of these, and the baseline has one."""
    charts = [spec for path, spec in figures.items() if "-quality-" in path.name]
    assert charts
    for spec in charts:
        data = {layer["data"]["name"]: layer["data"]["values"] for layer in spec["layer"]}
        labels_at = {(row["x"], row["y"]) for row in data["labels"]}
        frontier, baseline = ({(row["x"], row["y"]) for row in data[name]} for name in ("frontier", "baseline"))
        assert labels_at <= frontier | baseline
        assert labels_at & baseline
