"""How scores on items are shown: beside the baseline's on the same items, and noise called so."""

from __future__ import annotations

import csv
import io
import json
import random
from typing import Any

import pytest

from bench.contract.columns import SCORE_CHANGE
from bench.contract.record import Result
from bench.contract.spec import Task
from bench.publish.tables.build import build
from bench.publish.tables.columns import format_change
from bench.publish.tables.render import render
from eval.tasks import lm_eval
from tests.publish.tables.test_build import CPU, artifact_of, cell

TASK = Task("lm_eval", name="lm_eval-some_task")


def _answered(recipe: str, answers: str, engine: str = "hf", **facts: object) -> Result:
    share = answers.count("1") / len(answers)
    known = {
        "scores": {"acc": share, "acc_stderr": (share * (1 - share) / (len(answers) - 1)) ** 0.5},
        "metric": "acc",
        "items": len(answers),
        "item_scores": answers,
        "texts_sha256": "t",
        "max_length": 9,
        **facts,
    }
    return Result(
        "d",
        "demo",
        cell(recipe, engine, TASK),
        0,
        "ok",
        CPU,
        artifact=artifact_of(recipe),
        facts=known,
        metrics=lm_eval.metrics(known),
    )


def _answers(right: int, flipped: int = 0, of: int = 1000) -> str:
    """`right` of the items are right, in a fixed shuffled order; the first `flipped` right ones are not."""
    items = ["1"] * right + ["0"] * (of - right)
    random.Random(1).shuffle(items)  # noqa: S311  (reproducible, not secret)
    for _ in range(flipped):
        items[items.index("1")] = "0"
    return "".join(items)


RECORDS = [
    _answered("baseline", _answers(600)),
    _answered("gptq-4", _answers(600, 2)),
    _answered("gptq-3", _answers(600, 60)),
    _answered("gguf-q2", _answers(600, 7), "llamacpp"),
]


def test_noise_is_called_noise() -> None:
    """60 items lost of 1,000 are a loss, two are not; points, recovery and items stand beside it."""
    text = render(build(RECORDS), "terminal", 120)
    lines = {line.split()[0]: line for line in text.splitlines() if line.strip()}

    assert "some_task: 1,000 items (n=1)" in text
    assert "60.0 ± 3.0" in lines["baseline"]
    assert "noise (-0.2 ±" in lines["gptq-4"]
    assert "2 / 0" in lines["gptq-4"]
    assert "noise" not in lines["gptq-3"]
    assert "-6.0 ± 1.4" in lines["gptq-3"]
    assert "90.00" in lines["gptq-3"]
    assert "noise: the items show no difference" in text
    assert "McNemar" in text
    assert all(len(line) <= 120 for line in text.splitlines())


def test_p_values_are_adjusted_over_the_recipes() -> None:
    """Seven items lost and none won have p 0.016 alone and 0.031 as the second of three; alone it stays."""
    table = build(RECORDS)
    change = next(row for row in table.rows if row.recipe == "gguf-q2").tasks[TASK.title].change
    alone = build([RECORDS[0], RECORDS[3]]).rows[1].tasks[TASK.title].change

    assert change["mcnemar_p"] == pytest.approx(2 / 2**7)
    assert change["mcnemar_p_holm"] == pytest.approx(4 / 2**7)
    assert alone["mcnemar_p_holm"] == alone["mcnemar_p"]


def test_a_baseline_on_another_engine_has_its_star() -> None:
    """As for perplexity: the change is shown, and said to be across engines."""
    text = render(build(RECORDS), "md")

    assert r"-0.7 ± 0.5 \*" in text
    assert "baseline on another engine" in text


def test_other_items_are_not_compared() -> None:
    """Another text or metric, or another window where it cuts requests or texts: a dash, not a figure."""
    shorter: dict[str, Any] = {"max_length": 8}
    for change in (
        {"texts_sha256": "u"},
        {"metric": "acc_norm"},
        {**shorter, "truncated": 1, "requests": 1000},
        {**shorter, "item_scores": []},
    ):
        facts: dict[str, Any] = {"scores": {"acc": 0.5, "acc_norm": 0.5}, **change}
        odd = _answered("gptq-4", _answers(600, 2), **facts)
        entry = build([RECORDS[0], odd]).rows[1].tasks[TASK.title]

        assert entry.change == {}
        assert format_change(SCORE_CHANGE, entry) == "\N{EN DASH}"


def test_a_window_that_cuts_nothing_does_not_matter() -> None:
    """Models of other contexts are compared over the same items."""
    whole = _answered("gptq-4", _answers(600, 2), scores={"acc": 0.5}, max_length=8)

    assert build([RECORDS[0], whole]).rows[1].tasks[TASK.title].change["score_change"] != 0


def test_a_score_without_items_has_a_difference_and_no_test() -> None:
    """A perplexity by lm-eval, say: no noise is claimed, none ruled out."""
    both = [
        _answered(recipe, "11", item_scores=[], metric="word_perplexity", scores={"word_perplexity": value})
        for recipe, value in (("baseline", 20.0), ("gptq-4", 21.5))
    ]
    text = render(build(both), "terminal", 120)

    assert "word_perplexity" in text
    assert "+1.5" in text
    assert "107.5" in text
    assert "noise" not in text


def test_cut_requests_are_said_below_the_table() -> None:
    """A score on contexts that were cut from the left is not quite the task's."""
    cut = [_answered("baseline", _answers(600), truncated=12, requests=4000)]

    assert "some_task: 12 of 4000 requests cut to max_length" in render(build(cut), "terminal", 120)
    assert "cut to" not in render(build(RECORDS), "terminal", 120)


def test_csv_and_json_have_every_figure_of_a_score() -> None:
    """Metric, change with its ends, both p-values, flips, recovery."""
    table = build(RECORDS)
    (line,) = [row for row in csv.DictReader(io.StringIO(render(table, "csv"))) if row["recipe"] == "gptq-3"]
    whole = json.loads(render(table, "json"))

    assert line["lm_eval-some_task/metric"] == "acc"
    assert float(line["lm_eval-some_task/accuracy_fraction"]) == pytest.approx(0.54)
    assert float(line["lm_eval-some_task/flips_worse"]) == 60
    assert float(line["lm_eval-some_task/score_change"]) == pytest.approx(-0.06)
    assert float(line["lm_eval-some_task/mcnemar_p_holm"]) < 1e-12
    assert whole["rows"][1]["tasks"]["lm_eval-some_task"]["change"]["score_recovery_fraction"] > 0.9
