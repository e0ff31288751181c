"""Which charts are drawn, and what they label."""

from __future__ import annotations

from pathlib import Path

from bench.publish.figures.specs import Spec


def test_quality_that_does_not_differ_gets_no_figure(figures: dict[Path, Spec]) -> None:
    """Suites whose recipes are all at the noise floor but one have no chart of quality."""
    assert not [path.name for path in figures if path.name.startswith(("engines-", "pruned-quality"))]


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
