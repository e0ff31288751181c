"""Points of charts say what their records say, and whose quality they took."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bench.contract.record import Result
from bench.publish.figures import chart_data
from bench.publish.figures.chart_data import CHANGED, UNQUANTIZED, Point
from bench.publish.records import gather
from bench.store import Store

RESULTS = Path(__file__).resolve().parents[3] / "results"


@pytest.fixture(scope="module")
def records() -> list[Result]:
    return list(Store(RESULTS).all())


@pytest.fixture(scope="module")
def all_points(records: list[Result]) -> list[Point]:
    return chart_data.build(gather(records))


def test_a_point_has_the_median_of_its_rounds(records: list[Result], all_points: list[Point]) -> None:
    """Three rounds of a load: the middle one's tokens per second; bits per weight from the audit."""
    point = next(p for p in all_points if p.suite == "reference" and p.recipe == "nf4" and "b8" in p.workload)
    rounds = sorted(
        r.metrics["output_tok_per_s"]
        for r in records
        if (r.suite, r.cell.recipe.name, r.cell.measurement) == ("reference", "nf4", point.workload)
    )
    assert len(rounds) == 3
    assert point.metrics["output_tok_per_s"] == rounds[1]
    assert 4 < point.metrics["bits_per_weight"] < 5
    assert point.quality_from == {}
    assert not any(key.startswith("energy") for key in point.metrics)  # no counter on this device


def test_a_suite_without_tasks_takes_the_quality_of_the_same_artifact(all_points: list[Point]) -> None:
    """Of the suite where it was measured on the same engine, which the point names."""
    point = next(p for p in all_points if p.suite == "serving" and p.choice == "baseline on hf")
    source = next(p for p in all_points if p.suite == "reference" and p.choice == "baseline on hf")
    task = next(task for metric, task in source.quality if metric == "kl_mean")
    assert point.quality_from[task] == "reference"
    assert point.quality["kl_mean", task] == source.quality["kl_mean", task]


def test_quality_is_not_taken_across_artifacts_engines_or_devices(records: list[Result]) -> None:
    """Another digest, another engine or another device: the point has no quality at all."""
    its = [r for r in records if (r.cell.recipe.name, r.cell.engine.title) == ("baseline", "hf")]
    loads = [r for r in its if r.suite == "serving" and r.cell.workload]
    tasks = [r for r in its if r.suite == "reference" and r.cell.task]
    assert loads

    def taken(changed: list[Result]) -> bool:
        points = chart_data.build(gather([*loads, *changed]))
        return all(p.quality for p in points if p.suite == "serving")

    assert taken(tasks)
    assert not taken([replace(r, artifact=r.artifact and replace(r.artifact, digest="x")) for r in tasks])
    assert not taken([replace(r, hardware=replace(r.hardware, slug="other")) for r in tasks])
    engine = tasks[0].cell.engine
    assert not taken([replace(r, cell=replace(r.cell, engine=replace(engine, label="b"))) for r in tasks])


def test_families_say_what_was_done_to_the_weights(all_points: list[Point]) -> None:
    """The original in any format is unquantized; pruned floats are changed; else the format it is in."""
    families = {p.recipe: p.family for p in all_points if p.suite in ("techniques", "reference")}
    assert families["baseline"] == families["gguf-f16"] == families["onnx-fp32"] == UNQUANTIZED
    assert families["wanda-50"] == families["layers-25-distilled"] == CHANGED
    assert families["gptq-w4g128"] == "gptq"
    assert families["layers-25-distilled-q4_k_m"] == "gguf"


def test_dummy_weights_have_no_quality_and_failures_no_point(all_points: list[Point]) -> None:
    """A shape's points have speed alone; what was unsupported is nowhere."""
    shapes = [p for p in all_points if p.suite == "shape"]
    assert shapes
    assert not any(p.quality for p in shapes)
    assert not [p for p in shapes if p.engine == "vllm" and p.recipe != "baseline"]


def test_levels_are_the_loads_own_or_a_sweeps_stages(all_points: list[Point]) -> None:
    """Four requests in flight are one level; a sweep has one for each stage; limits are in seconds."""
    closed = next(p for p in all_points if p.workload.startswith("closed-c4"))
    assert [(level.over, level.level) for level in closed.levels] == [("concurrency", 4.0)]
    assert closed.slo == {"ttft_s": 0.25, "tpot_s": 0.025}
    sweep = next(p for p in all_points if p.workload.startswith("sweep-concurrency"))
    assert [level.level for level in sweep.levels][:4] == [1, 2, 4, 8]
    assert all("ttft_p95_s" in level.metrics for level in sweep.levels)
