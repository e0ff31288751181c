"""Figures: which are drawn, that a picture knows what it is of, and that names in them do not collide."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from bench.publish import pictured, report
from bench.publish.figures import draw, labels
from bench.publish.figures.specs import Spec, ticks
from bench.store import Store

RESULTS = Path(__file__).resolve().parents[2] / "results"


@pytest.fixture(scope="module")
def wanted() -> dict[Path, Spec]:
    store = Store(RESULTS)
    return pictured.gather(report.gather(store.all()), store).figures()


def test_the_committed_figures_are_those_of_the_records(wanted: dict[Path, Spec]) -> None:
    """None is stale, none is left over, and each kind of chart is there."""
    assert draw.stale(RESULTS, wanted) == []
    kinds = {"quality-output", "quality-bits", "spread-ttft", "load-concurrency", "roofline"}
    assert {kind for kind in kinds if any(path.name.endswith(kind) for path in wanted)} == kinds


def test_a_picture_carries_its_specifications_digest(wanted: dict[Path, Spec], tmp_path: Path) -> None:
    """Drawn twice it is the same bytes; another specification, or a lost file, makes it stale."""
    path = next(path for path in wanted if path.name == "shape-roofline")
    one = {path: wanted[path]}
    made = draw.write(tmp_path, one)
    assert {p.suffix for p in made} == {".svg", ".png"}
    assert draw.stale(tmp_path, one) == []
    assert draw.drawn(one[path])[".svg"] == (tmp_path / path.with_suffix(".svg")).read_bytes()
    assert draw.drawn(one[path])[".png"] == (tmp_path / path.with_suffix(".png")).read_bytes()
    assert len(draw.stale(tmp_path, {path: {**one[path], "width": 123}})) == 2
    (tmp_path / path.with_suffix(".png")).unlink()
    assert draw.stale(tmp_path, one) == [path.with_suffix(".png")]


def test_a_figure_that_no_chart_has_any_more_is_deleted(wanted: dict[Path, Spec], tmp_path: Path) -> None:
    """But not a picture that somebody else put there."""
    path = next(path for path in wanted if path.name == "shape-roofline")
    draw.write(tmp_path, {path: wanted[path]})
    other = tmp_path / path.with_name("photo.svg")
    other.write_text("<svg/>")
    assert len(draw.stale(tmp_path, {})) == 2
    draw.write(tmp_path, {})
    assert [p.name for p in other.parent.iterdir()] == ["photo.svg"]


def test_quality_that_does_not_differ_gets_no_figure(wanted: dict[Path, Spec]) -> None:
    """Suites whose recipes are all at the noise floor but one have no chart of quality."""
    assert not [path.name for path in wanted if path.name.startswith(("engines-", "pruned-quality"))]


def test_labels_cover_neither_points_nor_each_other() -> None:
    """Of thirty points on a heap some get a name; no two of those meet, and all stay inside."""
    at = [(100.0 + 14 * (i % 6), 100.0 + 9 * (i // 6)) for i in range(30)]
    texts = [f"recipe-{i}" for i in range(30)]
    placed = labels.place(texts, at, range(30), 400, 300)
    boxes = [labels._box(at[p.index], len(texts[p.index]) * 6.7, p.align, p.dx, p.dy) for p in placed]
    assert 4 < len(placed) < 30
    assert not any(labels._overlap(a, b) for a, b in itertools.combinations(boxes, 2))
    assert not any(box[0] < x < box[2] and box[1] < y < box[3] for box in boxes for x, y in at)
    assert all(box[0] >= 0 and box[2] <= 400 for box in boxes)


@pytest.mark.parametrize(
    ("low", "high", "found"),
    [(40, 900, [50, 100, 200, 500]), (0.9, 9, [1, 2, 3, 5]), (1e-4, 2, [1e-4, 1e-3, 1e-2, 0.1, 1])],
)
def test_ticks_are_round_and_few(low: float, high: float, found: list[float]) -> None:
    """At 1, 2 and 5 in a decade or two, at powers of ten over several."""
    assert ticks(low, high) == found
