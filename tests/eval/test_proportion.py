"""Intervals of shares, against SciPy, and as the table of a task has them."""

from __future__ import annotations

import math
from typing import Any

import pytest
from scipy import stats

from bench.contract.record import Hardware, Result
from bench.contract.spec import Cell, EngineSpec, Model, Recipe, Task
from eval import format as evaluation
from eval.stats import proportion
from eval.tasks import lm_eval


@pytest.mark.parametrize("items", [1, 3, 12, 100, 2376])
def test_wilsons_interval_is_scipys(items: int) -> None:
    """For every number of right ones up to a hundred."""
    for right in range(min(items, 100) + 1):
        expected = stats.binomtest(right, items).proportion_ci(0.95, method="wilson")

        assert proportion.wilson(right / items, items) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_no_item_has_no_interval() -> None:
    with pytest.raises(ValueError, match="at least one"):
        proportion.wilson(0.5, 0)


def _facts(scores: list[float], metric: str = "acc", **changes: Any) -> dict[str, Any]:
    """As `score_replies` writes them, with the standard error of lm-eval."""
    share, count = math.fsum(scores) / len(scores), len(scores)
    stderr = math.sqrt(math.fsum((s - share) ** 2 for s in scores) / (count - 1) / count)
    text = "".join("01"[int(s)] for s in scores) if set(scores) <= {0.0, 1.0} else scores
    facts = {"scores": {metric: share, f"{metric}_stderr": stderr}, "metric": metric, "items": count}
    return {**facts, "item_scores": text, **changes}


def test_an_accuracys_interval_stays_within_what_an_accuracy_can_be() -> None:
    """Three of twelve: 9 to 53 %, where 1.96 standard errors say -0.6 to 51; none of ten has a width too."""
    metrics = lm_eval.metrics(_facts([1.0] * 3 + [0.0] * 9))
    none = lm_eval.metrics(_facts([0.0] * 10))

    assert metrics["accuracy_low_fraction"] == pytest.approx(0.0889, abs=1e-4)
    assert metrics["accuracy_high_fraction"] == pytest.approx(0.5323, abs=1e-4)
    assert none["accuracy_low_fraction"] == 0.0
    assert none["accuracy_high_fraction"] == pytest.approx(0.2775, abs=1e-4)


def test_scores_between_right_and_wrong_have_the_interval_of_their_error() -> None:
    """F1 of items varies less than right and wrong would: the interval is narrower, and within 0 .. 1."""
    values = [0.9, 0.95, 1.0, 0.85, 0.92, 0.99, 0.88, 0.97]
    metrics = lm_eval.metrics(_facts(values, "f1"))
    share = metrics["accuracy_fraction"]

    assert 0.85 < metrics["accuracy_low_fraction"] < share < metrics["accuracy_high_fraction"] < 1.0
    assert metrics["accuracy_high_fraction"] - share < 1.3 * 1.96 * metrics["accuracy_stderr_fraction"]


def test_a_groups_accuracy_is_a_share_too_and_a_perplexity_is_none() -> None:
    """A group has no score per item: its interval comes from its standard error. What has no bounds keeps its own."""
    group = lm_eval.metrics(_facts([1.0] * 2 + [0.0] * 30, item_scores=[]))
    perplexity = {"word_perplexity": 0.9, "word_perplexity_stderr": 0.5}
    unbounded = lm_eval.metrics({"scores": perplexity, "metric": "word_perplexity", "items": 9, "item_scores": []})

    assert 0 < group["score_low"] < group["score"] < group["score_high"] < 0.25
    assert unbounded["score_low"] == pytest.approx(0.9 - 1.96 * 0.5, abs=1e-3)


def test_python_m_eval_prints_the_same_intervals() -> None:
    """Three of twelve by each of lm-eval's names, and none of ten."""
    facts = _facts([1.0] * 3 + [0.0] * 9)
    facts["scores"] |= {"acc_norm": 0.0, "acc_norm_stderr": 0.0}
    cell = Cell(Model("m"), Recipe("r"), EngineSpec("hf"), "cpu", task=Task("lm_eval"))
    hardware = Hardware("cpu", "cpu-x", "X", 1, "X", 1, 1, (), "float32", "Linux")
    result = Result("d", "s", cell, 0, "ok", hardware, metrics=lm_eval.metrics(facts))

    text = evaluation.one(result)

    assert "0.08894 … 0.5323" in text
    assert "0 … 0.2425" in text
    assert "-0." not in text
