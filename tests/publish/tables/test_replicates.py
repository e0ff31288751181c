"""Replicates of a recipe have one row: the first's figures, their spread over seeds, and noise where that is larger."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import replace

import pytest

from bench.contract.record import Artifact, Result
from bench.contract.spec import Recipe, Step
from bench.measure.seeds import over_seeds
from bench.publish.page import tables as page_tables
from bench.publish.recommend import Wish, recommend
from bench.publish.tables.build import build
from bench.publish.tables.model import NO_GAIN, Row
from bench.publish.tables.render import render
from tests.publish.tables.test_build import LOAD, PPL, bad, cell, scored, served
from tests.publish.tables.test_highlight import bold
from tests.publish.tables.test_scores import TASK, _answered, _answers
from tests.publish.tables.test_without_data import BASE, BETTER, GPTQ, ROUNDED, WORSE
from tests.publish.tables.test_without_data import scored as compressed

BASELINE = [1000.0, 990.0, 1010.0, 1005.0]


def replicate(result: Result, of: str) -> Result:
    """The record, as one of a replicate of the recipe `of`."""
    recipe = replace(result.cell.recipe, replicate_of=of)
    return replace(result, cell=replace(result.cell, recipe=recipe))


def losses(more: float) -> list[float]:
    """Of four windows, each about `more` above the baseline's."""
    return [loss + share * more for loss, share in zip(BASELINE, (0.98, 1.005, 1.02, 0.995), strict=True)]


def seeds(recipe: str, more: Sequence[float]) -> list[Result]:
    """Perplexities of a recipe's replicates, its own first."""
    first, *others = (scored(f"{recipe}{f'-seed{n}' if n else ''}", losses(each)) for n, each in enumerate(more))
    return [first, *(replicate(other, recipe) for other in others)]


def row(records: Sequence[Result], recipe: str, *, with_replicates: bool = False) -> Row:
    return next(r for r in build(records, with_replicates=with_replicates).rows if r.recipe == recipe)


RECORDS = [scored("baseline", BASELINE), *seeds("gptq-4", [20.0, 30.0, 22.0]), *seeds("awq-4", [40.0])]


def test_a_recipe_has_one_row_with_its_spread_over_seeds() -> None:
    """Its figures stay those of the first; the column says the mean, half its interval, and how many."""
    table = build(RECORDS)
    task = row(RECORDS, "gptq-4").tasks[PPL.title]
    values = [r.metrics["perplexity"] for r in RECORDS if r.cell.recipe.name.startswith("gptq")]
    text = render(table, "md")

    assert [r.recipe for r in table.rows] == ["baseline", "gptq-4", "awq-4"]
    assert task.figures["perplexity"].median == values[0]
    assert task.seeds["perplexity"] == over_seeds(values)
    assert "| ppl ↓ | ppl over seeds | vs baseline % ↓ |" in text
    spread = over_seeds(values)
    assert spread is not None
    assert f"{spread.mean:.3f} ± {spread.half:.3f} (3)" in text
    assert "over seeds: the mean of a recipe's replicates" in text
    assert "over seeds" not in render(build([RECORDS[0], RECORDS[4]]), "md")


def test_a_change_has_the_larger_of_both_intervals() -> None:
    """Windows alone say ± 0.1 %, seeds ± 2.7 %; where the seeds agree, the windows' interval stays."""
    one = row([RECORDS[0], RECORDS[1]], "gptq-4").tasks[PPL.title]
    text = render(build(RECORDS), "md")
    spread = row(RECORDS, "gptq-4").tasks[PPL.title].seeds["perplexity_change_fraction"]
    close = [RECORDS[0], *seeds("gptq-4", [20.0, 20.0, 20.0])]

    assert f"{100 * one.change['perplexity_change_fraction']:+.2f} ± {100 * spread.half:.2f}" in text
    assert spread.half > 10 * (one.change["perplexity_change_high_fraction"] - one.change["perplexity_change_fraction"])
    line = next(line for line in render(build([RECORDS[0], RECORDS[1]]), "md").splitlines() if "gptq" in line)
    assert line.rpartition("± ")[2] in render(build(close), "md")


def test_a_loss_that_other_seeds_do_not_have_is_noise() -> None:
    """60 items of 1,000 lost by one seed, 5 and 8 by the others: noise, though the items of the first show it."""
    first, *others = (_answered(f"gptq-4{name}", _answers(600, n)) for name, n in (("", 60), ("-a", 5), ("-b", 8)))
    alone = [_answered("baseline", _answers(600)), first]
    text = render(build([*alone, *(replicate(other, "gptq-4") for other in others)]), "md")
    steady = [replicate(_answered(f"gptq-4{name}", _answers(600, 60)), "gptq-4") for name in ("-a", "-b")]

    assert "noise" not in render(build(alone), "md")
    assert "noise (-6.0 ±" in text
    assert "| acc % ↑ | over seeds % |" in text
    assert "54.0 (3)" in render(build([*alone, *steady]), "md")
    assert "noise (" not in render(build([*alone, *steady]), "md")
    assert row([*alone, *(replicate(o, "gptq-4") for o in others)], "gptq-4").tasks[TASK.title].change[
        "mcnemar_p_holm"
    ] == pytest.approx(row(alone, "gptq-4").tasks[TASK.title].change["mcnemar_p"])


def test_the_best_is_bold_only_where_its_seeds_are_apart_too() -> None:
    """gptq-4 is better than awq-4 by its first seed alone; with its replicates the two overlap."""
    first = [RECORDS[0], RECORDS[1], RECORDS[4]]
    overlapping = [RECORDS[0], *seeds("gptq-4", [20.0, 60.0, 45.0]), RECORDS[4]]

    assert any(recipe == "gptq-4" and "%" not in text for recipe, text in bold(first))
    assert not any(text.startswith(("7.", "+")) for recipe, text in bold(overlapping) if recipe == "gptq-4")


def test_rows_of_replicates_come_on_demand() -> None:
    """Behind their recipe, each with its own change; never bold, and the recipe's row as without."""
    table = build(RECORDS, with_replicates=True)

    assert [r.recipe for r in table.rows] == ["baseline", "gptq-4", "gptq-4-seed1", "gptq-4-seed2", "awq-4"]
    assert [r.replicate_of for r in table.rows] == ["", "", "gptq-4", "gptq-4", ""]
    assert table.rows[1] == row(RECORDS, "gptq-4")
    assert table.rows[2].tasks[PPL.title].change["perplexity_change_fraction"] > 0


def test_a_replicate_without_its_recipe_is_a_row_of_its_own() -> None:
    """As in a folder with some of the records."""
    assert [r.recipe for r in build([RECORDS[0], *RECORDS[2:4]]).rows] == ["baseline", "gptq-4-seed1", "gptq-4-seed2"]


def test_a_replicate_that_is_not_in_the_spread_is_told_why() -> None:
    """One failed; one is over another text; one has not run yet: only the last is silent."""
    failed = replicate(
        replace(bad("gptq-4-seed1", "failed", "out of memory"), cell=cell("gptq-4-seed1", what=PPL)), "gptq-4"
    )
    other = replace(RECORDS[3], facts={**RECORDS[3].facts, "sha256": "another"})
    records = [*RECORDS[:2], failed, other]
    waiting = replace(
        cell("gptq-4-seed3", what=PPL), recipe=Recipe("gptq-4-seed3", (Step("gptq"),), replicate_of="gptq-4")
    )
    table = build(records, [*(r.cell for r in records), waiting])
    note = next(r for r in table.rows if r.recipe == "gptq-4").tasks[PPL.title].note

    assert note == ("gptq-4-seed1: failed: out of memory; gptq-4-seed2: its records are over other items, run it again")
    assert [r.recipe for r in table.rows] == ["baseline", "gptq-4"]
    assert table.rows[1].tasks[PPL.title].seeds == {}
    assert "out of memory" in render(table, "terminal")


def test_no_gain_is_what_every_replicate_loses() -> None:
    """A calibrated recipe that loses to rounding with one seed and not with another is not marked."""
    base, rounded = compressed("baseline", (), BASE), compressed("rounded", [ROUNDED], BETTER)

    def marked(other: Sequence[float]) -> bool:
        second = replace(GPTQ, options={**GPTQ.options, "seed": 1})
        more = replicate(compressed("calibrated-seed1", [second], other), "calibrated")
        table = build([base, rounded, compressed("calibrated", [GPTQ], WORSE), more])
        return NO_GAIN in next(r for r in table.rows if r.recipe == "calibrated").tasks[PPL.title].marks

    assert marked(WORSE)
    assert not marked(BASE)


def test_spreadsheets_and_programs_get_all_of_the_spread() -> None:
    """Mean, ends of the interval, smallest, largest and count; nothing of it where there are no replicates."""
    lines = list(csv.DictReader(io.StringIO(render(build(RECORDS), "csv"))))
    spread = row(RECORDS, "gptq-4").tasks[PPL.title].seeds["perplexity"]
    data = json.loads(render(build(RECORDS), "json"))

    assert float(lines[1][f"{PPL.title}/perplexity_seeds_mean"]) == spread.mean
    assert lines[1][f"{PPL.title}/perplexity_seeds_n"] == "3"
    assert lines[2][f"{PPL.title}/perplexity_seeds_n"] == ""
    assert data["rows"][1]["tasks"][PPL.title]["seeds"]["perplexity"]["most"] == spread.most
    assert "seeds" not in data["rows"][2]["tasks"][PPL.title]
    assert "seeds" not in render(build([RECORDS[0], RECORDS[4]]), "csv")


def test_recommendations_and_the_page_have_one_choice_of_a_recipe() -> None:
    """Its replicates are no candidates; the page has the spread behind the metric."""
    timed = [served("baseline", 0.1), served("gptq-4", 0.1), served("awq-4", 0.1)]
    table = build([*RECORDS, *timed])
    quality = page_tables.quality(table.rows)

    assert {c.recipe for c in recommend(table.rows, LOAD.title, Wish())} == {"baseline", "gptq-4", "awq-4"}
    assert [line["recipe"] for line in quality["lines"]] == ["baseline", "gptq-4", "awq-4"]
    heads = [key for key in quality["heads"] if "perplexity" in key]
    assert heads[:2] == [f"perplexity|{PPL.title}", f"perplexity|{PPL.title}|seeds"]
    assert quality["lines"][1]["cells"][heads[1]][0].endswith("(3)")


def test_the_artifact_of_a_replicate_is_not_its_recipes() -> None:
    """The row's size and time of making are the recipe's own."""
    artifact = Artifact("other", "gptq", "sha", (), RECORDS[2].artifact.audit, make_total_s=99.0)  # type: ignore[union-attr]
    records = [*RECORDS[:2], replace(RECORDS[2], artifact=artifact)]

    assert row(records, "gptq-4").made_s == 0.0
    assert row(records, "gptq-4-seed1", with_replicates=True).made_s == 99.0
