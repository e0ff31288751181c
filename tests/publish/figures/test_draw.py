"""A figure's file knows the chart it was drawn from."""

from __future__ import annotations

from pathlib import Path

from bench.publish.figures import draw
from bench.publish.figures.specs import Spec

from .conftest import RESULTS


def test_the_committed_figures_are_those_of_the_records(figures: dict[Path, Spec]) -> None:
    """None is stale, none is left over, and each kind of chart is there."""
    assert draw.stale(RESULTS, figures) == []
    kinds = {"quality-output", "quality-bits", "spread-ttft", "load-concurrency", "roofline"}
    assert {kind for kind in kinds if any(path.stem.endswith(kind) for path in figures)} == kinds


def test_a_figure_carries_the_digest_of_its_chart(figures: dict[Path, Spec], tmp_path: Path) -> None:
    """Drawn twice it is the same bytes; another specification, or a lost file, makes it stale."""
    path = next(path for path in figures if path.stem == "shape-roofline")
    one = {path: figures[path]}
    assert draw.write(tmp_path, one) == [path]
    assert draw.stale(tmp_path, one) == []
    assert draw.svg(one[path]) == (tmp_path / path).read_text()
    assert draw.stale(tmp_path, {path: {**one[path], "width": 123}}) == [path]
    (tmp_path / path).unlink()
    assert draw.stale(tmp_path, one) == [path]


def test_a_figure_that_no_chart_has_any_more_is_deleted(figures: dict[Path, Spec], tmp_path: Path) -> None:
    """But not a picture that somebody else put there."""
    path = next(path for path in figures if path.stem == "shape-roofline")
    draw.write(tmp_path, {path: figures[path]})
    other = tmp_path / path.with_name("photo.svg")
    other.write_text("<svg/>")
    assert draw.stale(tmp_path, {}) == [path]
    draw.write(tmp_path, {})
    assert [p.name for p in other.parent.iterdir()] == ["photo.svg"]
