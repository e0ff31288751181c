"""Figures: which are drawn, that a file knows its chart, and that labels do not collide."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from bench.publish import report
from bench.publish.figures import draw, labels
from bench.publish.figures.specs import Spec, ticks
from bench.publish.records import gather
from bench.store import Store

RESULTS = Path(__file__).resolve().parents[3] / "results"


@pytest.fixture(scope="module")
def figures() -> dict[Path, Spec]:
    store = Store(RESULTS)
    records = gather(store.all())
    return report.draw_data(records, store).figures(records.committed())


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


@pytest.mark.parametrize("free", [(1, 1), (-1, -1), (1, -1)])
def test_labels_cover_neither_points_nor_each_other(free: tuple[int, int]) -> None:
    """Of thirty points on a heap some get a name; no two of those meet, and all stay inside."""
    at = [(100.0 + 14 * (i % 6), 100.0 + 9 * (i // 6)) for i in range(30)]
    texts = {i: f"recipe-{i}" for i in range(30)}
    placed = labels.place(texts, at, (400, 300), free)
    boxes = [labels._box(at[i], texts[i], label) for i, label in placed.items()]
    assert 4 < len(placed) < 30
    assert not any(labels._overlap(a, b) for a, b in itertools.combinations(boxes, 2))
    assert not any(box[0] < x < box[2] and box[1] < y < box[3] for box in boxes for x, y in at)
    assert all(box[0] >= -labels._OVERHANG and box[2] <= 400 for box in boxes)


@pytest.mark.parametrize(
    ("low", "high", "found"),
    [(40, 900, [50, 100, 200, 500]), (0.9, 9, [1, 2, 3, 5]), (1e-4, 2, [1e-4, 1e-3, 1e-2, 0.1, 1])],
)
def test_ticks_are_round_and_few(low: float, high: float, found: list[float]) -> None:
    """At 1, 2 and 5 in a decade or two, at powers of ten over several."""
    assert ticks(low, high) == found
