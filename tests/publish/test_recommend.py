"""The pick among hand-made rows is the one worked out by hand, and every other says why it is not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench.contract import wire
from bench.contract.errors import UserError
from bench.measure.stats import Spread
from bench.publish.recommend import (
    Candidate,
    Wish,
    as_json,
    of_device,
    recommend,
    require_prices,
    section,
    size_bytes,
    without_quality,
    workload_of,
)
from bench.publish.tables.model import CellSummary, Point, Row

_LOAD = "closed-c8"


def row(recipe: str, rate: float, memory: float, recovery: float | None, ttft: float = 0.1, device: str = "gpu") -> Row:
    """A row with one load and, where `recovery` is given, one score."""
    values = {"output_tok_per_s": rate, "peak_memory_bytes": memory, "ttft_p95_s": ttft}
    figures = {key: Spread(value, value, value, 0.0, 3) for key, value in values.items()}
    change = {} if recovery is None else {"score_recovery_fraction": recovery}
    tasks = {"acc": CellSummary("ok" if recovery is not None else "missing", rounds=1, change=change)}
    loads = {_LOAD: CellSummary("ok", rounds=3, figures=figures)}
    return Row(device, "s", "m", recipe, "vllm", recipe == "baseline", None, tasks, loads)


ROWS = (
    row("baseline", 100, 1000, 1.0),
    row("a", 150, 500, 0.995, 0.15),
    row("b", 200, 400, 0.95),
    row("c", 150, 450, 0.995, 0.15),
    row("d", 300, 300, None),
    row("e", 90, 600, 0.99, 0.3),
)


def judged(wish: Wish) -> dict[str, Candidate]:
    return {candidate.recipe: candidate for candidate in recommend(ROWS, _LOAD, wish)}


def test_the_fastest_that_keeps_its_quality_is_picked_and_a_tie_goes_to_less_memory() -> None:
    """Both a and c make 150 tokens/s and recover 99.5 %; c takes less memory. b and d are refused."""
    result = judged(Wish(min_recovery=0.99))

    assert [name for name, c in result.items() if c.picked] == ["c"]
    assert [name for name, c in result.items() if c.feasible] == ["c", "baseline", "a", "e"]
    assert [name for name, c in result.items() if c.frontier] == ["c", "baseline"]
    assert {name: c.reason for name, c in result.items()} == {
        "c": "best output tok/s of 4 that keep the limits; as good: a",
        "baseline": "better than the pick in recovery, TTFT p95",
        "a": "dominated by c",
        "e": "dominated by c",
        "b": "recovery 95.00 < 99.00 %",
        "d": "recovery % was not measured",
    }


@pytest.mark.parametrize(
    ("wish", "pick"),
    [
        (Wish(), "d"),
        (Wish("memory", min_recovery=0.9), "b"),
        (Wish(min_recovery=0.99, ttft_p95_s=0.12), "baseline"),
        (Wish(min_recovery=0.9, memory_bytes=420), "b"),
    ],
)
def test_limits_and_objectives_change_the_pick(wish: Wish, pick: str) -> None:
    """No limit: the fastest. Least memory. A short wait. Little memory."""
    assert [name for name, c in judged(wish).items() if c.picked] == [pick]


def _at(price: float | None, row: Row, *, in_slo: float | None = None, states_slo: bool = False) -> Row:
    """The row with a price of output tokens; of a sweep with an SLO also at its best point."""
    cell = row.workloads[_LOAD]
    values = {"price_per_million_output_tokens": price, "slo_price_per_million_output_tokens": in_slo}
    figures = {key: Spread(value, value, value, 0.0, 3) for key, value in values.items() if value is not None}
    words = {} if price is None else {"price_currency": "USD"}
    curve = (Point(1.0, {"slo_kept_fraction": Spread(0.5, 0.5, 0.5, 0.0, 3)}),) if states_slo else ()
    return replace(row, workloads={_LOAD: replace(cell, figures={**cell.figures, **figures}, words=words, curve=curve)})


def test_the_price_compares_machines() -> None:
    """The cheapest that keeps the quality, on whichever machine; of a sweep by its best point within the SLO."""
    rows = [
        _at(3.0, row("a", 100, 400, 1.0)),
        _at(2.0, row("a", 50, 400, 1.0, device="cpu")),
        _at(1.0, row("b", 90, 400, 0.9, device="cpu")),
        _at(0.5, row("late", 90, 400, 1.0, device="cpu"), states_slo=True),
        _at(0.5, row("loaded", 90, 400, 1.0), in_slo=2.5, states_slo=True),
        _at(None, row("unpriced", 90, 400, 1.0, device="old")),
    ]
    wish = Wish("price", min_recovery=0.99)
    result = recommend(of_device(rows, "s", "", "price"), _LOAD, wish)
    reasons = {(c.recipe, c.machine): c.reason for c in result}

    assert [(c.recipe, c.machine) for c in result if c.feasible] == [("a", "cpu"), ("loaded", "gpu"), ("a", "gpu")]
    assert reasons["b", "cpu"] == "recovery 90.00 < 99.00 %"
    assert reasons["late", "cpu"] == "no level of the sweep keeps the SLO"
    assert reasons["unpriced", "old"] == "its machine has no price"
    assert reasons["loaded", "gpu"] == "better than the pick in output"
    assert as_json(result, _LOAD, wish)["pick"] == {"recipe": "a", "engine": "vllm", "machine": "cpu"}
    printed = section(result, _LOAD)
    assert printed.heads[:3] == ("recipe", "engine", "machine")
    assert printed.lines[0][:3] == ("a", "vllm", "cpu")
    assert "USD 2.00" in printed.lines[0]


def test_without_prices_or_in_two_currencies_nothing_is_compared() -> None:
    """One sentence that says what to give."""
    dollars = _at(1.0, row("a", 100, 400, 1.0))
    cell = dollars.workloads[_LOAD]
    euros = replace(dollars, workloads={_LOAD: replace(cell, words={"price_currency": "EUR"})})

    require_prices([dollars], "results")
    with pytest.raises(UserError, match=r"no price of a machine is given: give --price .* in results/prices\.yaml"):
        require_prices(ROWS, "results")
    with pytest.raises(UserError, match="priced in EUR and USD: give all in one currency"):
        require_prices([dollars, euros], "results")


def test_where_nothing_is_feasible_nothing_is_picked() -> None:
    """Each says which limits it breaks; the JSON's pick is null."""
    wish = Wish(min_recovery=0.99, memory_bytes=400)
    result = list(judged(wish).values())
    plain = wire.plain(as_json(result, _LOAD, wish))

    assert not any(c.feasible or c.frontier or c.picked for c in result)
    assert all(c.reason for c in result)
    assert judged(wish)["b"].reason == "recovery 95.00 < 99.00 %"
    assert plain["pick"] is None
    assert len(plain["candidates"]) == 6
    assert all(c.reason == "net J/output token was not measured" for c in judged(Wish("energy")).values())


def test_quality_that_nobody_measured_is_no_limit() -> None:
    """Dummy weights and a suite without tasks: a sentence below the table, and no --min-recovery."""
    plain = [row("baseline", 100, 1000, 1.0), row("a", 150, 500, None)]
    dummy = [replace(r, workloads={_LOAD: replace(r.workloads[_LOAD], marks=("dummy",))}, tasks={}) for r in plain]

    assert without_quality(ROWS, "s", Wish(min_recovery=0.9)) == ""
    assert without_quality(dummy, "s", Wish()).startswith("quality is not judged: s runs dummy weights")
    assert "no task of s was measured" in without_quality(plain, "s", Wish())
    for rows in (plain, dummy):
        with pytest.raises(UserError, match="leave out --min-recovery, or"):
            without_quality(rows, "s", Wish(min_recovery=0.9))


def test_the_table_has_a_line_for_each() -> None:
    """The pick first."""
    printed = section(list(judged(Wish(min_recovery=0.99)).values()), _LOAD)

    assert printed.lines[0][:2] == ("c", "vllm")
    assert [line[-2] for line in printed.lines] == ["pick", "frontier", "feasible", "feasible", "no", "no"]


def test_what_cannot_be_judged_is_one_sentence() -> None:
    """No records, two devices, no such workload, energy that nobody measured, a size that is none."""
    with pytest.raises(UserError, match="no records of the suite s"):
        of_device([], "s", "")
    with pytest.raises(UserError, match="choose one with --device, of gpu, cpu"):
        of_device([*ROWS, row("x", 1, 1, 1, device="cpu")], "s", "")
    with pytest.raises(UserError, match="choose of closed-c8"):
        workload_of(ROWS, "open", Wish())
    with pytest.raises(UserError, match="no workload measures net J/output token"):
        workload_of(ROWS, "", Wish("energy"))
    with pytest.raises(UserError, match="closed-c8 does not measure net J/output token: no workload of"):
        workload_of(ROWS, _LOAD, Wish("energy"))
    with pytest.raises(UserError, match=r"2 workloads measure output tok/s: choose one .* of a, closed-c8"):
        workload_of([replace(r, workloads={**r.workloads, "a": r.workloads[_LOAD]}) for r in ROWS], "", Wish())
    with pytest.raises(UserError, match="invalid size 'much'"):
        size_bytes("much")
    assert [size_bytes(text) for text in ("16GiB", "500 MiB", "2GB", "8e9")] == [2**34, 500 * 2**20, 2e9, 8e9]
