"""An engine that speculates beside the same without it: speed-up, acceptance, greedy output, categories."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from bench.contract.record import Hardware, Result
from bench.contract.spec import Cell, EngineSpec, Model, Recipe
from bench.contract.speculation import answers
from bench.contract.workload import Offline
from bench.measure.stats import Spread
from bench.publish.tables import speculation
from bench.publish.tables.build import build
from bench.publish.tables.columns import GAIN, GREEDY
from bench.publish.tables.render import render

_CPU = Hardware("cpu", "cpu-x-2c-8gib", "X", 2**33, "X", 2, 2**33, (), "float32", "Linux")
_PLAIN = {"threads": 1, "speculative_method": "off"}
_NGRAM = {"threads": 1, "speculative_method": "ngram", "speculative_tokens": 4}
_COUNTS = {"drafts": 10, "acceptance_length": 2.2, "acceptance_rate": 0.3, "tokens_per_pass": 1.4}


def _record(
    label: str,
    options: Mapping[str, Any],
    tpot_s: float,
    round_: int = 0,
    words: Mapping[str, str] = {},
    categories: Mapping[str, Mapping[str, float]] = {},
) -> Result:
    facts: dict[str, Any] = {"by_category": categories, "prompt_file": {}} if categories else {}
    facts |= {"answers": answers.pack(words)} if words else {}
    metrics = {"tpot_s": tpot_s}
    if options["speculative_method"] != "off":
        facts["speculation"] = {"accepted_histogram": [6, 3, 1]}
        metrics |= _COUNTS
    cell = Cell(Model("m"), Recipe("f16"), EngineSpec("llamacpp", options, label), "cpu", workload=Offline(name="code"))
    return Result(
        "d", "s", cell, round_, "ok", _CPU, facts=facts, metrics=metrics, started=f"2026-11-22T00:00:0{round_}"
    )


def test_the_speed_up_is_over_the_same_engine_without_it() -> None:
    """Of other options it is another engine; with none beside it there is no speed-up, and no word on its output."""
    other = _record("threads", {**_PLAIN, "threads": 2}, 0.001)
    table = build([other, _record("plain", _PLAIN, 0.02), _record("ngram", _NGRAM, 0.01)])
    alone = build([other, _record("ngram", _NGRAM, 0.01)])

    cells = {row.engine: row.workloads["code"] for row in table.rows}
    assert cells["ngram"].figures[GAIN].median == pytest.approx(2)
    assert GAIN not in cells["plain"].figures
    assert cells["ngram"].words[GREEDY] == "not compared"
    assert all(GAIN not in row.workloads["code"].figures for row in alone.rows)


@pytest.mark.parametrize(
    ("mine", "sentence"),
    [
        ({"1": "def f():", "2": "x"}, "same, 2 prompts"),
        ({"1": "def g():", "2": "y"}, "2 of 2 differ, first at character 0"),
        ({"1": "def f()", "2": "x"}, "1 of 2 differ, first at character 7"),
        ({}, "not compared"),
    ],
)
def test_greedy_output_is_compared_prompt_by_prompt(mine: dict[str, str], sentence: str) -> None:
    """With the answers of the same round without speculation."""
    plain = _record("plain", _PLAIN, 0.02, words={"1": "def f():", "2": "x"})
    table = build([plain, _record("ngram", _NGRAM, 0.01, words=mine)])

    (cell,) = (row.workloads["code"] for row in table.rows if row.engine == "ngram")
    assert cell.words[GREEDY] == sentence


def test_the_section_has_the_engines_own_counters_and_says_what_they_are() -> None:
    """Drafts by how many of their tokens were accepted, over all rounds."""
    records = [_record("plain", _PLAIN, 0.02), *(_record("ngram", _NGRAM, 0.01, n) for n in range(2))]
    text = render(build(records), "md")

    (line,) = (line for line in text.splitlines() if "0: 60 %" in line)
    assert [cell.strip() for cell in line.split("|")[1:-1]] == [
        "f16",
        "ngram",
        "2.20",
        "30.0",
        "1.40",
        "2.00",
        "0: 60 %, 1: 30 %, 2: 10 %",
        "not compared",
    ]
    assert "acceptance length is 1 + accepted tokens / drafts" in text


def test_categories_say_where_it_pays_and_where_it_costs() -> None:
    """By the TPOT of each category's prompts alone; a sentence names them."""
    plain = {"code": {"tpot_s": 0.02}, "chat": {"tpot_s": 0.02}}
    mine = {"code": {"tpot_s": 0.01, "tokens_per_pass": 2.5}, "chat": {"tpot_s": 0.03, "tokens_per_pass": 1.1}}
    records = [_record("plain", _PLAIN, 0.02, categories=plain), _record("ngram", _NGRAM, 0.02, categories=mine)]
    table = build(records)
    text = render(table, "md")

    (cell,) = (row.workloads["code"] for row in table.rows if row.engine == "ngram")
    assert {c.name: c.figures[GAIN].median for c in cell.categories} == pytest.approx({"chat": 2 / 3, "code": 2})
    assert "code: speculation of ngram on f16 pays for code (2.00 x); costs for chat (0.667 x)" in text
    assert any(all(word in line for word in ("ngram", "code", "2.50", "2.00")) for line in text.splitlines())


def test_rounds_that_overlap_show_no_difference() -> None:
    """Every round must be faster; between single rounds a twentieth is noise."""
    assert speculation.verdict(Spread(1.2, 0.9, 1.4, 0.1, 3)) == "makes no difference"
    assert speculation.verdict(Spread(1.2, 1.01, 1.4, 0.1, 3)) == "pays"
    assert speculation.verdict(Spread(0.8, 0.7, 0.99, 0.1, 3)) == "costs"
    assert speculation.verdict(Spread(1.04, 1.04, 1.04, float("nan"), 1)) == "makes no difference"


def test_what_gains_more_than_its_tokens_a_pass_is_no_gain() -> None:
    """A pass is no faster for what it checks: something else slowed the rounds without speculation."""
    gain = Spread(1.44, 1.44, 1.44, float("nan"), 1)

    assert speculation.verdict(gain, Spread(1.5, 1.5, 1.5, float("nan"), 1)) == "pays"
    assert speculation.verdict(gain, Spread(1.03, 1.03, 1.03, float("nan"), 1)).startswith("gains more than its tokens")
