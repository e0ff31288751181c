"""Tables of loads over HTTP: the columns of a server, curves, searches, notes, and narrow terminals."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from typing import Any

from bench.contract.record import Result
from bench.contract.slo import Slo
from bench.contract.workload import Closed, Search, Sweep, Trace, Workload
from bench.publish.tables.build import build
from bench.publish.tables.render import render
from tests.publish.tables.test_build import served

SIZES: dict[str, Any] = {"prompt_tokens": 8, "new_tokens": 8}
SWEEP = Sweep(**SIZES)
SEARCH = Search(rate_per_s=1.0, slo=Slo(ttft_s=0.5), **SIZES)
TRACE = Trace(path="conv.csv", requests=500)


def _online(what: Workload, round_: int, metrics: dict[str, float], **facts: Any) -> Result:
    base = served("baseline", 0.02 + 0.001 * round_, round_, what=what)
    result = {
        "ttft_s": 0.02 + 0.001 * round_,
        "ttft_p95_s": 0.0512 + 0.001 * round_,
        "tpot_s": 0.004321,
        "tpot_p95_s": 0.005,
        "itl_p99_s": 0.0123,
        "ttft_p99_s": 0.0601,
        "output_tok_per_s": 812.5 + round_,
        "request_per_s": 12.7 + 0.1 * round_,
        "concurrency": 4.0,
        "failed_requests": 0.0,
    }
    return replace(base, metrics={**result, **metrics}, facts={"window_s": 12.0, **facts})


def _stage(level: float, output: float) -> dict[str, Any]:
    return {"level": level, "metrics": {"ttft_s": 0.01 * level, "output_tok_per_s": output, "tpot_s": 0.004}}


def test_a_sweep_has_its_curve() -> None:
    """A line for each level, its figures over the rounds that came there; the best is in the main table."""
    results = [
        _online(SWEEP, 0, {}, stages=[_stage(1, 100.0), _stage(2, 190.0)]),
        _online(SWEEP, 1, {}, stages=[_stage(1, 110.0), _stage(2, 210.0), _stage(4, 205.0)]),
    ]
    page = render(build(results), "md")
    lines = [line for line in page.splitlines() if line.startswith("| baseline | hf | ")]

    assert "**sweep-concurrency-p8-n8: the curve**" in page
    assert [line.split(" | ")[2] for line in lines[-3:]] == ["1", "2", "4"]
    assert "105 (100–110)" in lines[-3]  # noqa: RUF001  (as shown)
    assert lines[-1].endswith("| 205 |")


def test_a_search_shows_both_ends_of_its_bracket() -> None:
    """The rate that kept the limits, and the lowest that was not shown to."""
    page = render(build([_online(SEARCH, 0, {"slo_rate_per_s": 7.25, "slo_rate_high_per_s": 7.58})]), "md")

    assert "| rate in SLO /s ↑ | not shown at /s |" in page
    assert "| 7.25 | 7.58 |" in page


def test_what_was_cut_of_a_trace_is_said() -> None:
    """How many of its requests were longer than the model's context."""
    page = render(build([_online(TRACE, 0, {}, capped=137)]), "md")

    assert "trace-conv-x1-r500: 137 of 500 requests cut to a context of 16" in page


def test_prompts_that_are_about_as_long_are_said() -> None:
    """Where a server takes text and nobody has its tokenizer, a length is a wish."""
    closed = Closed()

    assert "not exactly" in render(build([_online(closed, 0, {}, prompts="words")]), "md")
    assert "not exactly" not in render(build([_online(closed, 0, {}, prompts="ids")]), "md")


def test_a_late_client_at_any_level_is_marked() -> None:
    """The next level was chosen by it; so is a request that failed there."""
    late = {**_stage(1, 100.0), "client_lag_p99_s": 0.02}
    failed = {"level": 2, "metrics": {"failed_requests": 1.0}}
    entry = build([_online(SWEEP, 0, {}, stages=[late, failed])]).rows[0].workloads[SWEEP.title]

    assert entry.marks == ("client", "errors")


def test_goodput_has_a_column_where_a_limit_was_given() -> None:
    """And none elsewhere; csv has the tails that a page has no room for."""
    with_slo = build([_online(Closed(), 0, {"goodput_per_s": 11.0})])
    without = build([_online(Closed(), 0, {})])
    heads = next(csv.reader(io.StringIO(render(without, "csv"))))

    assert "goodput /s ↑" in render(with_slo, "md")
    assert "goodput" not in render(without, "md")
    assert "closed-c1-p128-n64/ttft_p99_s" in heads


def test_a_narrow_terminal_shows_medians_whole() -> None:
    """No figure is broken over lines; what is left out is said, and a wide terminal has it."""
    table = build([_online(Closed(), i, {}) for i in range(3)])
    narrow, wide = render(table, "terminal", 100), render(table, "terminal", 220)

    assert "(20.0–22.0)" not in narrow  # noqa: RUF001
    assert "is left out where the terminal is too narrow" in narrow
    assert max(map(len, narrow.splitlines())) <= 100
    assert "21.0 (20.0–22.0)" in wide  # noqa: RUF001
    assert "left out" not in wide
