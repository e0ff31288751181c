"""What tokens and correct answers cost, in tables, CSV, page and documents: as worked out by hand."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.contract.errors import UserError
from bench.contract.record import Result
from bench.contract.slo import Slo
from bench.contract.spec import ApiPrice, HourPrice
from bench.contract.workload import Offline, Sweep, Workload
from bench.publish.document import document
from bench.publish.page import tables as page_tables
from bench.publish.prices import Prices
from bench.publish.records import gather
from bench.publish.tables.build import build
from bench.publish.tables.model import CellSummary, Table
from bench.publish.tables.price import priced
from bench.publish.tables.render import render
from tests.publish.tables.test_build import served
from tests.publish.tables.test_scores import TASK, _answered, _answers

_LOAD = Offline(name="load", prompt_tokens=100, new_tokens=50)
_SWEEP = Sweep(name="sweep", prompt_tokens=100, new_tokens=50, slo=Slo(ttft_s=0.2))
HOUR = HourPrice(1.8, "USD", "one | machine")  # 0.0005 USD a second
API = ApiPrice(0.5, 2.0, "USD", "an API")
PRICES = Prices(given=HOUR)
_OUTPUT, _INPUT = "price_per_million_output_tokens", "price_per_million_input_tokens"


def _measured(
    recipe: str, rates: Sequence[float], what: Workload = _LOAD, metrics: Mapping[str, float] = {}
) -> list[Result]:
    """A round for each rate of output tokens, of requests with 100 tokens in and 50 out."""
    return [
        replace(
            served(recipe, 0.1, round_, what=what),
            metrics={"output_tok_per_s": rate, "request_per_s": rate / 50, **metrics},
        )
        for round_, rate in enumerate(rates)
    ]


def _swept(levels: Mapping[float, tuple[float, int]], what: Workload = _SWEEP) -> Result:
    """A sweep: by level the output, and how many of 100 requests kept the limit; measured at the first."""
    stages = [
        {
            "level": level,
            "requests": 100,
            "kept": {"ttft_s": kept},
            "metrics": {"output_tok_per_s": rate, "request_per_s": rate / 50},
        }
        for level, (rate, kept) in levels.items()
    ]
    (result,) = _measured("baseline", [next(iter(levels.values()))[0]], what)
    return replace(result, facts={"stages": stages, "chosen": 0})


def _cell(table: Table, title: str = "load") -> CellSummary:
    return table.rows[0].workloads[title]


def _medians(cell: CellSummary) -> dict[str, float]:
    return {key: figure.median for key, figure in cell.figures.items()}


def test_a_million_tokens_cost_what_the_hour_costs_while_they_are_made() -> None:
    """At 200 tokens/s a million take 5,000 s of 0.0005 USD: 2.5 USD; twice as many input tokens, half of it."""
    cell = _cell(priced(build(_measured("baseline", [200.0, 100.0, 250.0])), PRICES))
    output = cell.figures[_OUTPUT]

    assert (output.low, output.median, output.high) == pytest.approx((2.0, 2.5, 5.0))
    assert cell.figures[_INPUT].median == pytest.approx(1.25)
    assert "slo_price_per_million_output_tokens" not in cell.figures


def test_the_price_of_a_recorded_input_rate_is_of_that() -> None:
    cell = _cell(priced(build(_measured("baseline", [200.0], metrics={"input_tok_per_s": 1000.0})), PRICES))

    assert cell.figures[_INPUT].median == pytest.approx(0.5)


def test_the_best_point_of_a_sweep_is_the_fastest_that_keeps_the_slo() -> None:
    """95 of 100 are enough and 94 are not: 500 tokens/s at level 4 cost 1 USD a million, 800 do not count."""
    table = priced(build([_swept({1: (200.0, 100), 2: (300.0, 99), 4: (500.0, 95), 8: (800.0, 94)})]), PRICES)
    figures = _medians(_cell(table, "sweep"))

    assert figures[_OUTPUT] == pytest.approx(2.5)
    assert figures["slo_price_per_million_output_tokens"] == pytest.approx(1.0)
    assert figures["slo_price_per_million_input_tokens"] == pytest.approx(0.5)
    assert figures["slo_price_level"] == 4


def test_a_sweep_that_never_keeps_its_slo_has_no_price_within_it() -> None:
    """Nor has one over the depth, whose levels are other loads."""
    late = priced(build([_swept({1: (200.0, 94)})]), PRICES)
    depths = replace(_SWEEP, over="depth", depth_tokens=1, most=2)
    deep = priced(build([_swept({1: (200.0, 100)}, depths)]), PRICES)

    for table in (late, deep):
        assert not [key for key in _cell(table, "sweep").figures if key.startswith("slo_price")]


def test_break_even_is_where_the_api_costs_as_much() -> None:
    """An output token and its two input tokens cost 3 USD a million there: 0.0005 USD buy 166.7 a second."""
    table = priced(build(_measured("baseline", [200.0])), replace(PRICES, api_given=API))
    figures = _medians(_cell(table))

    assert figures["break_even_tok_per_s"] == pytest.approx(0.0005 / 3e-6)
    assert figures["break_even_fraction"] == pytest.approx(0.0005 / 3e-6 / 200)


def test_of_unknown_input_only_an_api_that_charges_none_breaks_even() -> None:
    """A file's prompts have lengths of their own, which an older record does not tell."""
    load = Offline(name="load", prompts="questions.jsonl", new_tokens=50)
    table = build(_measured("baseline", [200.0], load))

    assert "break_even_tok_per_s" not in _cell(priced(table, replace(PRICES, api_given=API))).figures
    free = priced(table, replace(PRICES, api_given=ApiPrice(0.0, 2.0, "USD", "an API")))
    assert _cell(free).figures["break_even_tok_per_s"].median == pytest.approx(250.0)
    assert _INPUT not in _cell(free).figures


def test_a_correct_answer_costs_its_request_over_the_accuracy() -> None:
    """Four requests a second of 0.0005 USD, 60 % right: 0.000208 USD; 2 J a token, 50 tokens: 167 J."""
    energy = {"energy_net_j_per_output_token": 2.0, "energy_valid": 1.0}
    records = [*_measured("baseline", [200.0], metrics=energy), _answered("baseline", _answers(600))]
    (answer,) = _cell(priced(build(records), PRICES)).answers

    assert answer.name == TASK.title
    assert answer.figures["price_per_correct_answer"].median == pytest.approx(0.0005 / 4 / 0.6)
    assert answer.figures["energy_net_j_per_correct_answer"].median == pytest.approx(100 / 0.6)


@pytest.mark.parametrize("energy", [{}, {"energy_net_j_per_output_token": 2.0, "energy_valid": 0.0}])
def test_joules_of_a_correct_answer_are_absent_where_energy_is(energy: dict[str, float]) -> None:
    """As where they were counted and are not valid; without a price too there is nothing."""
    table = build([*_measured("baseline", [200.0], metrics=energy), _answered("baseline", _answers(600))])

    assert [list(answer.figures) for answer in _cell(priced(table, PRICES)).answers] == [["price_per_correct_answer"]]
    assert _cell(priced(table, Prices())).answers == ()
    assert "correct answer" not in render(priced(table, Prices()), "md")


def test_nothing_right_has_no_price() -> None:
    """No answer was right: neither a price nor an infinity."""
    records = [*_measured("baseline", [200.0]), _answered("baseline", _answers(0))]

    assert _cell(priced(build(records), PRICES)).answers == ()


def test_a_missing_price_is_a_blank_and_never_a_zero() -> None:
    """No column, no note and no field anywhere; of two machines only the priced one's cell has a value."""
    table = build(_measured("baseline", [200.0]))
    assert priced(table, Prices()) == table
    for form in ("md", "csv", "json"):
        assert "price" not in render(priced(table, Prices()), form)

    other = [replace(r, hardware=replace(r.hardware, slug="other-device")) for r in _measured("baseline", [200.0])]
    both = priced(build([*_measured("baseline", [200.0]), *other]), Prices(devices={"cpu-x-2c-8gib": HOUR}))
    lines = list(csv.DictReader(io.StringIO(render(both, "csv"))))
    assert {line["device"]: line[f"load/{_OUTPUT}"] for line in lines} == {"cpu-x-2c-8gib": "2.5", "other-device": ""}


def test_tables_show_prices_in_their_currency_as_given() -> None:
    """A section below the load, the notes with what was given, escaped; the sheet has them as stored."""
    records = [*_measured("baseline", [200.0, 100.0, 250.0]), _answered("baseline", _answers(600))]
    table = priced(build(records), replace(PRICES, api_given=API))
    page, terminal = render(table, "md"), render(table, "terminal", 160)
    line = next(csv.DictReader(io.StringIO(render(table, "csv"))))

    assert "| output price per M tokens ↓ | input price per M tokens ↓ | break-even output tok/s ↓ |" in page
    assert "| USD 2.50 (2.00\N{EN DASH}5.00) | USD 1.25 (1.00\N{EN DASH}2.50) | 167 | 83.3 |" in page
    assert "| baseline | hf | some\\_task | USD 0.208" in page
    assert "1.8 USD an hour for one \\| machine, given and not measured" in page
    assert "0.5 and 2 USD a million input and output tokens of an API, given and not measured" in page
    assert "USD 2.50" in terminal
    assert line[f"load/{_OUTPUT}"] == "2.5"
    assert line["load/price_currency"] == "USD"
    assert line["load/price_given"] == "1.8 USD an hour for one | machine"
    assert float(line[f"load/{TASK.title}/price_per_correct_answer"]) == pytest.approx(0.0005 / 4 / 0.6)
    assert json.loads(render(table, "json"))["rows"][0]["workloads"]["load"]["figures"][_OUTPUT]["median"] == 2.5


def test_the_page_has_the_same() -> None:
    """Of loads a column each, sorted by value; of answers one for each task."""
    records = [*_measured("baseline", [200.0]), _answered("baseline", _answers(600))]
    shown = page_tables.speed(priced(build(records), PRICES).rows)
    plain = page_tables.speed(build(records).rows)

    assert shown["heads"][_OUTPUT] == "output price per M tokens ↓"
    assert shown["lines"][0]["cells"][_OUTPUT] == ("USD 2.50", 2.5)
    answer = f"price_per_correct_answer|{TASK.title}"
    assert shown["heads"][answer] == "price per 1000 correct answers ↓ · some_task"
    assert shown["lines"][0]["cells"][answer][0] == "USD 0.208"
    assert not [key for key in plain["heads"] if "price" in key]


def _document(tmp_path: Path, text: str, prices: Prices, records: Sequence[Result]) -> str:
    path = tmp_path / "REPORT.md"
    path.write_text(text)
    return document.filled(path, gather(records, prices))


def test_documents_quote_prices_and_picks(tmp_path: Path) -> None:
    """A number with its currency, a claim, a table, and the pick by price."""
    records = [*_measured("baseline", [100.0, 100.0]), *_measured("gptq-4", [200.0, 200.0])]
    text = (
        f"<!-- bench: holds demo/gptq-4/hf/load {_OUTPUT} < demo/baseline/hf/load {_OUTPUT} -->Cheaper<!-- /bench -->: "
        f"<!-- bench: value demo/gptq-4/hf/load {_OUTPUT} -->?<!-- /bench -->, "
        f"<!-- bench: value ratio demo/baseline/hf/load demo/gptq-4/hf/load {_OUTPUT} -->?<!-- /bench --> times.\n"
        f"<!-- bench: table demo/*/hf {_OUTPUT}@load -->\n<!-- /bench -->\n"
        "<!-- bench: pick demo load objective=price -->\n<!-- /bench -->\n"
    )
    written = _document(tmp_path, text, PRICES, records)

    assert "-->USD 2.50 per M tokens<!--" in written
    assert "-->2.00<!-- /bench --> times" in written
    assert "| baseline | hf | USD 5.00 |" in written
    assert "| gptq-4 | hf | 200 | USD 2.50 | pick |" in written
    with pytest.raises(UserError, match=r"no price of the machine is given: name its device in prices\.yaml"):
        _document(tmp_path, text, Prices(), records)


def test_a_price_with_the_command_is_of_one_machine() -> None:
    records: list[Any] = _measured("baseline", [200.0])
    records += [replace(r, hardware=replace(r.hardware, slug="other-device")) for r in records]

    with pytest.raises(UserError, match="--price is of one machine, and these are cpu-x-2c-8gib, other-device"):
        gather(records, PRICES)
