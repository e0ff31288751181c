"""Loads at a depth: what they are called, how long they get, and what of them older records know."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from bench.contract import wire
from bench.contract.workload import Closed, Offline, Sweep, flat

_SIZES: dict[str, Any] = {"prompt_tokens": 128, "new_tokens": 64}


def test_a_depth_is_part_of_the_title_and_of_the_longest_context() -> None:
    """Of a sweep over it the first depth is in the title, and the last decides what must fit."""
    sweep = Sweep(over="depth", depth_tokens=512, most=7936, **_SIZES)

    assert Offline(depth_tokens=512, **_SIZES).title == "offline-b1-d512-p128-n64"
    assert Closed(concurrency=2, depth_tokens=512, **_SIZES).title == "closed-c2-d512-p128-n64"
    assert sweep.title == "sweep-depth-d512-p128-n64"
    assert (Offline(depth_tokens=512, **_SIZES).longest, sweep.longest) == (704, 8128)
    assert sweep.at(2048, 10) == Closed(depth_tokens=2048, requests=10, **_SIZES)


def test_a_load_without_depth_is_what_it_was_before_there_were_depths() -> None:
    """Neither its JSON, from which digests are, nor the fields that fingerprints hold have a new one."""
    old = {"batch": 1, "kind": "offline", "name": "", "repeats": 5, **_SIZES}

    assert wire.plain(Offline()) == old
    assert wire.plain(Offline(depth_tokens=8)) == {**old, "depth_tokens": 8}
    assert "depth_tokens" not in {field.name for field in fields(flat(Closed()))}
    assert flat(Closed(depth_tokens=8)).depth_tokens == 8


@pytest.mark.parametrize(
    ("kind", "changes", "sentence"),
    [
        (Offline, {"depth_tokens": -1}, "depth_tokens cannot be below zero"),
        (Closed, {"depth_tokens": 8, "turns": 2}, "single requests of fixed lengths"),
        (Sweep, {"over": "depth"}, "goes from depth_tokens above zero to most"),
        (Sweep, {"over": "depth", "depth_tokens": 512}, "goes from depth_tokens above zero to most"),
        (Sweep, {"over": "rate", "rate_per_s": 1, "depth_tokens": 8}, "sweep over the concurrency or the depth"),
        (Sweep, {"depth_tokens": 8, "lengths": "uniform", "spread": 0.5}, "depth_tokens is for fixed lengths"),
    ],
)
def test_a_depth_that_means_nothing_is_one_sentence(kind: Any, changes: dict[str, Any], sentence: str) -> None:
    """With what to write instead."""
    with pytest.raises(ValueError, match=sentence):
        kind(**_SIZES, **changes)
