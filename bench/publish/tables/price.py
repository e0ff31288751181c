"""What a table's tokens and correct answers cost by prices that a user gives: figures that no record has.

A table is priced after it was built. Of a sweep with an SLO the best point that keeps it has prices of its own: the
level of the highest output at which SHARE of the requests kept each limit. A search is measured at such a point.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from bench.contract.columns import Column
from bench.contract.record import Result
from bench.contract.spec import ApiPrice, HourPrice
from bench.contract.workload import Sweep
from bench.measure.price import break_even_tok_per_s, joules_per_correct_answer, per_correct_answer, per_million
from bench.measure.slo import SHARE
from bench.measure.stats import Spread
from bench.publish.prices import Prices
from bench.publish.tables import columns
from bench.publish.tables.columns import CURRENCY, format_interval, in_currency, task_name
from bench.publish.tables.model import Category, CellSummary, Point, Row, Section, Table

KEPT = "slo_kept_fraction"  # of a point: the share of its requests that kept the limit that most broke
_ACCURACY = "accuracy_fraction"
_RATES = {"output": "output_tok_per_s", "input": "input_tok_per_s"}
_GIVEN = "given and not measured"
_SHARED = "each price bears the whole hour, so that those of output and of input tokens are not to be added"
_ANSWER = (
    "a correct answer: a request of the load, answered right as often as the task's items were; the task was measured "
    "on its own"
)
_BREAK_EVEN = (
    "break-even: the output at which the API costs as much as the machine, its input tokens paid for too; its share of "
    "the output that was measured: below it the API is cheaper, and above 100 % it always is"
)


def priced(table: Table, prices: Prices) -> Table:
    """The table with the figures that its prices give, and what a correct answer takes; sentences on what was given."""
    rows = [_row(row, prices) for row in table.rows]
    answered = any(cell.answers for row in rows for cell in row.workloads.values())
    notes = (*table.notes, *given(rows, prices), *_api_given(rows, prices), *([_ANSWER] if answered else []))
    return replace(table, rows=tuple(rows), notes=notes)


def given(rows: Sequence[Row], prices: Prices) -> list[str]:
    """A sentence for each machine's price that figures of these rows were computed with: given, and not measured."""
    pairs = [(row, prices.hour(row.device, row.suite)) for row in rows if _is_priced(row)]
    texts = (f"prices of {row.device} in {row.suite}: {hour.text}, {_GIVEN}; {_SHARED}" for row, hour in pairs if hour)
    return list(dict.fromkeys(texts))


def _api_given(rows: Sequence[Row], prices: Prices) -> list[str]:
    apis = (prices.api(row.suite) for row in rows if _is_priced(row))
    return list(dict.fromkeys(f"{_BREAK_EVEN}; {api.text}, {_GIVEN}" for api in apis if api))


def _is_priced(row: Row) -> bool:
    return any(CURRENCY in cell.words for cell in row.workloads.values())


def kept_limits(result: Result, stage: Mapping[str, Any]) -> dict[str, float]:
    """Of a level of a sweep over its load: the share of requests that kept a limit, of the limit that fewest kept."""
    load, by_limit = result.cell.workload, stage.get("kept")
    if not isinstance(load, Sweep) or load.over == "depth" or not by_limit or not stage.get("requests"):
        return {}
    return {KEPT: min(by_limit.values()) / stage["requests"]}


def answers(rows: Sequence[Row], title: str) -> list[Section]:
    """What a correct answer of each task takes at a load, a line for each."""
    lines = [(row, answer) for row in rows for answer in row.workloads[title].answers]
    shown = [c for c in columns.ANSWER if any(c.key in answer.figures for _, answer in lines)]
    heads = ("recipe", "engine", "task", *(c.heading() for c in shown))
    body = tuple(
        (
            row.recipe,
            row.engine,
            task_name(answer.name),
            *(text(c, answer.figures, row.workloads[title]) for c in shown),
        )
        for row, answer in lines
    )
    return [Section(f"{title}: a correct answer", heads, body, below=True)] if lines else []


def text(column: Column, figures: Mapping[str, Spread], cell: CellSummary) -> str:
    """A figure with its range, behind the cell's currency where it is money."""
    return in_currency(column, format_interval(column, figures), cell.words.get(CURRENCY, ""))


def has_slo(cell: CellSummary) -> bool:
    """Whether the cell is of a sweep that states limits."""
    return any(KEPT in point.figures for point in cell.curve)


def _row(row: Row, prices: Prices) -> Row:
    hour, api = prices.both(row.device, row.suite)
    accuracies = {
        title: cell.figures[_ACCURACY].median
        for title, cell in row.tasks.items()
        if cell.status == "ok" and _ACCURACY in cell.figures and cell.figures[_ACCURACY].median > 0
    }
    loads = {
        title: _cell(cell, hour, api, accuracies) if cell.status == "ok" else cell
        for title, cell in row.workloads.items()
    }
    return replace(row, workloads=loads)


def _cell(
    cell: CellSummary, hour: HourPrice | None, api: ApiPrice | None, accuracies: Mapping[str, float]
) -> CellSummary:
    its = [Category(task, dict(_answer(cell.figures, hour, accuracy))) for task, accuracy in accuracies.items()]
    cell = replace(cell, answers=tuple(answer for answer in its if answer.figures))
    if hour is None:
        return cell
    figures = dict(_tokens("", cell.figures, hour))
    if not figures:
        return cell
    if point := _best_in_slo(cell):
        level = Spread(point.level, point.level, point.level, 0.0, 1)
        figures |= {**dict(_tokens("slo_", point.figures, hour)), "slo_price_level": level}
    words = {CURRENCY: hour.currency, "price_given": hour.text}
    if api is not None:
        figures |= _break_even(cell.figures, hour, api)
        words["api_price_given"] = api.text
    return replace(cell, figures={**cell.figures, **figures}, words={**cell.words, **words})


def _tokens(prefix: str, figures: Mapping[str, Spread], hour: HourPrice) -> Iterator[tuple[str, Spread]]:
    for kind, key in _RATES.items():
        if (rate := figures.get(key)) is not None and rate.low > 0:
            yield f"{prefix}price_per_million_{kind}_tokens", _inverse(rate, per_million(hour, 1.0))


def _inverse(rate: Spread, amount: float) -> Spread:
    """What is `amount` at a rate of one, over rounds: the price of the median rate, and of the highest and lowest."""
    return Spread(amount / rate.median, amount / rate.high, amount / rate.low, rate.cv, rate.n)


def _best_in_slo(cell: CellSummary) -> Point | None:
    keeping = [p for p in cell.curve if KEPT in p.figures and p.figures[KEPT].median >= SHARE]
    keeping = [p for p in keeping if _RATES["output"] in p.figures]
    return max(keeping, key=lambda p: p.figures[_RATES["output"]].median, default=None)


def _break_even(figures: Mapping[str, Spread], hour: HourPrice, api: ApiPrice) -> dict[str, Spread]:
    output = figures[_RATES["output"]].median if _RATES["output"] in figures else 0.0
    rate_in = figures.get(_RATES["input"])
    if not output or (rate_in is None and api.input):
        return {}
    rate = break_even_tok_per_s(hour, api, rate_in.median / output if rate_in is not None else 0.0)
    return {
        name: Spread(value, value, value, 0.0, 1)
        for name, value in (("break_even_tok_per_s", rate), ("break_even_fraction", rate / output))
    }


def _answer(figures: Mapping[str, Spread], hour: HourPrice | None, accuracy: float) -> Iterator[tuple[str, Spread]]:
    requests = figures.get("request_per_s")
    if requests is None or not requests.low > 0:
        return
    if hour is not None:
        yield "price_per_correct_answer", _inverse(requests, per_correct_answer(hour, 1.0, accuracy))
    joules, output, valid = (
        figures.get(k) for k in ("energy_net_j_per_output_token", _RATES["output"], "energy_valid")
    )
    if joules is not None and output is not None and valid is not None and valid.median:
        tokens = output.median / requests.median
        low, middle, high = (
            joules_per_correct_answer(each, tokens, accuracy) for each in (joules.low, joules.median, joules.high)
        )
        yield "energy_net_j_per_correct_answer", Spread(middle, low, high, joules.cv, joules.n)
