"""What speculation gained, from counters and traces."""

from __future__ import annotations

import pytest

from bench.contract.record import Hardware, RequestTrace, Result
from bench.contract.spec import Cell, EngineSpec, Model, Recipe
from bench.contract.workload import Offline
from bench.measure import speculation

_CPU = Hardware("cpu", "cpu-x", "x", 2**34, "x", 2, 2**34, (), "float32", "Linux")


def test_acceptance_is_by_draft_and_gain_by_pass() -> None:
    """Ten drafts of three, twelve tokens accepted; the measured request had eight tokens in three passes."""
    counts = {"drafts": 10, "draft_tokens": 30, "accepted_tokens": 12, "generated_tokens": 40}
    trace = RequestTrace(0, 0, 5, 0, 0, (1.0, 2.0, 3.0), (1, 3, 4))
    metrics = speculation.speculation_metrics([trace], {"speculation": counts})

    assert metrics == pytest.approx(
        {"drafts": 10, "acceptance_length": 2.2, "acceptance_rate": 0.4, "tokens_per_pass": 8 / 3}
    )


def test_what_was_not_counted_has_no_figure() -> None:
    """No drafts, no acceptance; no counters, nothing."""
    trace = RequestTrace(0, 0, 5, 0, 0, (1.0, 2.0), (1, 1))
    assert speculation.speculation_metrics([trace], {}) == {}
    none = {"drafts": 0, "draft_tokens": 0, "accepted_tokens": 0, "generated_tokens": 40}
    assert speculation.speculation_metrics([trace], {"speculation": none}) == {"drafts": 0, "tokens_per_pass": 1}


def test_passes_are_events_or_what_was_not_accepted() -> None:
    """Events that bore tokens; where each token is an event, tokens less those that the server says it accepted."""
    in_events = RequestTrace(0, 0, 5, 0, 0, (1.0, 2.0, 3.0), (1, 3, 4))
    by_timings = RequestTrace(1, 0, 5, 0, 0, (1.0, 2.0, 2.0, 3.0), (1,) * 4, accepted_tokens=1)
    failed = RequestTrace(2, 0, 5, 0, 0, (), (), error="no")

    assert [speculation.passes(trace) for trace in (in_events, by_timings)] == [3, 3]
    assert speculation.per_pass([in_events, by_timings, failed]) == {"tokens_per_pass": 2}
    assert speculation.per_pass([failed]) == {}


@pytest.mark.parametrize(
    ("method", "metrics", "sentences"),
    [
        ("ngram", {}, ["speculation was asked for, and the engine counted none of it"]),
        ("draft", {"drafts": 0}, ["speculation by draft was asked for, and the engine drafted nothing"]),
        (
            "draft",
            {"drafts": 2, "acceptance_rate": 1.5},
            ["more tokens were accepted than were drafted, or fewer than none"],
        ),
        ("ngram", {"drafts": 0, "tokens_per_pass": 1}, []),
        ("draft", {"drafts": 2, "acceptance_rate": 1, "acceptance_length": 5}, []),
        ("off", {}, []),
    ],
)
def test_speculation_that_did_not_take_place_is_no_figure(
    method: str, metrics: dict[str, float], sentences: list[str]
) -> None:
    """An engine that goes on without it must not be compared as one with it; n-grams may find nothing."""
    engine = EngineSpec("e", {"speculative_method": method})
    cell = Cell(Model("m"), Recipe("r"), engine, "cpu", workload=Offline())
    record = Result("d", "s", cell, 0, "ok", _CPU, metrics=metrics)

    assert list(speculation.faults(record)) == sentences


def test_a_distribution_is_shown_in_percent() -> None:
    """By the number of accepted tokens."""
    assert speculation.distribution([6, 3, 0, 1]) == "0: 60 %, 1: 30 %, 2: 0 %, 3: 10 %"
    assert speculation.distribution([]) == ""
