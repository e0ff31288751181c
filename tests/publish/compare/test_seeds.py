"""A comparison of recipes with replicates: better only beyond the noise of items and of seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from scipy import stats

from bench.contract.record import Result
from bench.contract.spec import Step
from bench.publish.compare import gates
from bench.publish.compare.compare import NO_DIFFERENCE, WORSE, MetricComparison, compare
from bench.publish.compare.report import as_json, page
from bench.publish.compare.selectors import Filter, selections
from bench.store import Store
from tests.publish.tables.test_build import PPL
from tests.publish.tables.test_replicates import replicate, seeds
from tests.publish.tables.test_scores import _answered, _answers


def calibrated(records: Sequence[Result], method: str = "gptq") -> list[Result]:
    """The records, each of an artifact that a seed made."""
    results = []
    for seed, result in enumerate(records):
        assert result.artifact is not None
        artifact = replace(result.artifact, steps=(Step(method, {"seed": seed}),))
        results.append(replace(result, artifact=artifact))
    return results


def between(
    folder: Path, records: Sequence[Result], a: str, b: str, engine: str = "", recipe: str = ""
) -> list[MetricComparison]:
    store = Store(folder)
    for result in records:
        store.put(result)
    return [
        m
        for m in compare(*selections(a, b, folder, Filter(engine=engine, recipe=recipe))).metrics
        if m.cell.kind == "task"
    ]


A, B = [20.0, 24.0, 31.0], [26.0, 27.0, 33.0]


def test_p_and_interval_are_the_larger_of_items_and_seeds(tmp_path: Path) -> None:
    """Windows tell b from a, their seeds do not: Welch's test of the logarithms of three beside three."""
    records = [*calibrated(seeds("gptq-a", A)), *calibrated(seeds("gptq-b", B))]
    (one,) = between(tmp_path / "one", [records[0], records[3]], "gptq-a", "gptq-b")
    (all_of_them,) = between(tmp_path / "all", records, "gptq-a", "gptq-b")
    logs = [[math.log(r.metrics["perplexity"]) for r in its] for its in (records[3:], records[:3])]
    test = stats.ttest_ind(*logs, equal_var=False)

    assert (one.verdict, one.seeds) == (WORSE, (1, 1))
    assert (all_of_them.verdict, all_of_them.seeds) == (NO_DIFFERENCE, (3, 3))
    assert all_of_them.ratio.value == one.ratio.value
    assert all_of_them.p_holm == pytest.approx(test.pvalue, rel=1e-4)
    interval = test.confidence_interval(0.95)
    assert all_of_them.ratio.high is not None
    assert one.ratio.value is not None
    assert math.log(all_of_them.ratio.high / one.ratio.value) == pytest.approx(
        (interval.high - interval.low) / 2, rel=1e-3
    )


def test_a_difference_beyond_both_is_one(tmp_path: Path) -> None:
    """A p-value from windows that is larger than that of the seeds stays."""
    records = [*calibrated(seeds("gptq-a", [20.0, 20.1, 20.2])), *calibrated(seeds("gptq-b", [40.0, 40.1, 40.2]))]
    (one,) = between(tmp_path / "one", [records[0], records[3]], "gptq-a", "gptq-b")
    (all_of_them,) = between(tmp_path / "all", records, "gptq-a", "gptq-b")

    assert all_of_them.verdict == WORSE
    assert all_of_them.p_holm is not None
    assert one.p_holm is not None
    assert one.p_holm <= all_of_them.p_holm < 0.05


def test_a_first_seed_that_the_others_contradict_shows_nothing(tmp_path: Path) -> None:
    """The first of b is worse than a, its other two far better: no verdict by the first."""
    records = [*calibrated(seeds("gptq-a", [20.0, 20.5, 19.5])), *calibrated(seeds("gptq-b", [22.0, 5.0, 4.0]))]
    (metric,) = between(tmp_path, records, "gptq-a", "gptq-b")

    assert (metric.verdict, metric.p_holm) == (NO_DIFFERENCE, 1.0)


def test_a_calibrated_rival_without_replicates_is_taken_to_vary_too(tmp_path: Path) -> None:
    """The same figure of a recipe that no seed made is told from the replicates, that of a calibrated one is not."""
    replicates = calibrated(seeds("gptq-a", [20.0, 21.0, 20.4]))
    (rival,) = seeds("awq-b", [24.0])
    (known,) = between(tmp_path / "known", [*replicates, rival], "gptq-a", "awq-b")
    (calibrated_too,) = between(tmp_path / "too", [*replicates, *calibrated([rival], "awq")], "gptq-a", "awq-b")

    assert known.p_holm is not None
    assert calibrated_too.p_holm is not None
    assert (known.verdict, known.seeds) == (WORSE, (3, 1))
    assert calibrated_too.p_holm > known.p_holm


def test_scores_widen_by_seeds(tmp_path: Path) -> None:
    """60 of 1,000 items lost by the first seed and 5 and 8 by the others: McNemar alone would say worse."""
    own, *others = calibrated([_answered(f"gptq-4{n}", _answers(600, k)) for n, k in (("", 60), ("-a", 5), ("-b", 8))])
    records = [_answered("baseline", _answers(600)), own, *(replicate(other, "gptq-4") for other in others)]
    (alone,) = between(tmp_path / "alone", records[:2], "baseline", "gptq-4")
    (metric,) = between(tmp_path / "all", records, "baseline", "gptq-4")

    assert (alone.verdict, metric.verdict) == (WORSE, NO_DIFFERENCE)
    assert metric.p_holm == pytest.approx(stats.ttest_1samp([0.54, 0.595, 0.592], 0.6).pvalue, rel=1e-4)
    assert metric.difference is not None
    assert alone.difference is not None
    assert metric.difference.high is not None
    assert alone.difference.high is not None
    assert metric.difference.high > 0 > alone.difference.high
    (judged,) = gates.judge(
        [gates.parse("accuracy < -0.01")], compare(*selections("baseline", "gptq-4", tmp_path / "all", Filter()))
    )
    assert judged.verdict == "cannot tell"


def test_replicates_are_no_cells_of_their_own(tmp_path: Path) -> None:
    """Between engines too, and by a filter of their recipe's name; one artifact on two engines has one seed."""
    records = calibrated(seeds("gptq-a", A))
    worse = calibrated(seeds("gptq-a", [more + 5 for more in A]))
    elsewhere = [replace(r, cell=replace(r.cell, engine=replace(r.cell.engine, name="vllm"))) for r in worse]
    metrics = between(tmp_path, [*records, *elsewhere], "hf", "vllm", recipe="gptq-a")

    assert [(m.cell.recipe, m.verdict, m.seeds) for m in metrics] == [("gptq-a", WORSE, (1, 1))]
    (one,) = between(tmp_path, [], "gptq-a", "gptq-a-seed1", engine="hf")
    assert one.seeds == (3, 1)


def test_a_person_and_a_program_are_told_of_the_seeds(tmp_path: Path) -> None:
    """The rule has how many of each, the footer what that means, and JSON the counts."""
    records = [*calibrated(seeds("gptq-a", A)), *calibrated(seeds("gptq-b", B))]
    for result in records:
        Store(tmp_path).put(result)
    comparison = compare(*selections("gptq-a", "gptq-b", tmp_path, Filter()))
    text = " ".join(page(comparison, 160).split())

    assert "windows, seeds 3+3" in text
    assert "p and interval are the larger of those by items and by Welch's t over seeds" in text
    metric = next(m for m in as_json(comparison)["figures"] if m["what"] == PPL.title)
    assert metric["seeds"] == (3, 3)
