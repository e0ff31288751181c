"""Hit rates asked for and counted, cold and warm TTFT, and when the two rates are not the same."""

from __future__ import annotations

from typing import Any

import pytest

from bench.contract.record import RequestTrace
from bench.measure import prefix


def _facts(**fields: Any) -> dict[str, Any]:
    """1,000 tokens of prompts, 900 of which began an earlier one, in a cache of blocks of a token."""
    shared = {"prompt_tokens": 1000, "asked_tokens": 900, "asked_block_tokens": 900, "cached_tokens": 900}
    return {"prefix": {"caching": True, "block_tokens": 0, "counted_by": "usage", **shared, **fields}}


def _trace(number: int, category: str, ttft_s: float, **fields: Any) -> RequestTrace:
    return RequestTrace(number, 0, 100, 1.0, 1.0, (1.0 + ttft_s,), (1,), category=category, **fields)


def test_cold_and_warm_requests_have_medians_of_their_own() -> None:
    """A failed request is in neither."""
    times = [("cold", 0.4), ("cold", 0.6), ("warm", 0.1), ("warm", 0.2), ("warm", 0.3)]
    traces = [_trace(i, *each) for i, each in enumerate(times)] + [_trace(9, "cold", 9.0, error="reset")]

    assert prefix.prefix_metrics(traces, _facts(cached_tokens=890)) == {
        "prefix_asked_fraction": pytest.approx(0.9),
        "prefix_hit_fraction": pytest.approx(0.89),
        "ttft_cold_s": pytest.approx(0.5),
        "ttft_warm_s": pytest.approx(0.2),
    }
    assert prefix.prefix_metrics(traces, {}) == {}
    assert "prefix_hit_fraction" not in prefix.prefix_metrics(traces, _facts(cached_tokens=None))


@pytest.mark.parametrize("cached", [881, 900, 919])
def test_two_points_are_within_what_was_asked(cached: int) -> None:
    """Either way."""
    assert prefix.fault(_facts(cached_tokens=cached)) == ""


@pytest.mark.parametrize("cached", [870, 930, 0])
def test_a_rate_that_was_not_asked_is_a_fault_with_both_numbers(cached: int) -> None:
    """In one sentence."""
    sentence = prefix.fault(_facts(cached_tokens=cached))

    assert f"hit rate of {cached / 10:.1f}% where 90.0% was asked for" in sentence
    assert "\n" not in sentence


def test_whole_blocks_may_be_less_than_a_prefix() -> None:
    """What a cache of blocks can keep of it is what was asked, and the number is told where it was not kept."""
    facts = {"asked_block_tokens": 768, "block_tokens": 256}

    assert prefix.fault(_facts(**facts, cached_tokens=768)) == ""
    assert "90.0% was asked for, 76.8% in whole blocks of 256 tokens" in prefix.fault(
        _facts(**facts, cached_tokens=512)
    )


def test_with_caching_off_nothing_may_be_cached() -> None:
    """Whatever the prompts share."""
    assert prefix.fault(_facts(caching=False, cached_tokens=0)) == ""
    assert "where 0.0% was asked for, with prefix caching off" in prefix.fault(_facts(caching=False, cached_tokens=900))


def test_a_server_that_counts_nothing_cannot_be_held_to_a_rate() -> None:
    """That is said where a rate was asked for, and no fault where none was."""
    assert "the server counts none" in prefix.fault(_facts(cached_tokens=None))
    assert prefix.fault(_facts(cached_tokens=None, caching=False)) == ""
    assert prefix.fault(_facts(cached_tokens=None, asked_tokens=0, asked_block_tokens=0)) == ""
    assert prefix.fault({}) == ""
