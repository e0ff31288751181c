"""What is placed where and when, without a cluster."""

from __future__ import annotations

import random
import time
from collections import defaultdict

import pytest

from bench.fleet.place import Board, Key, Place, Work, schedule

_L4, _T4 = frozenset({"l4"}), frozenset({"t4"})


def _round(
    name: str, *needs: Key, kinds: frozenset[str] = _L4, is_timed: bool = False, expected_s: float = 1.0
) -> Work:
    return Work(("round", name), kinds, is_timed, expected_s=expected_s, needs=needs)


def _build(name: str, *after: Key, kinds: frozenset[str] = _L4) -> Work:
    return Work(("artifacts", name), kinds, is_build=True, after=after)


def _place(node: str, kind: str = "l4", number: int = 0, *, is_home: bool = False) -> Place:
    return Place(f"{node}/{number}", node, kind, is_home)


def test_what_is_timed_stays_on_one_device_of_its_kind_in_its_order() -> None:
    """However many others there are, and whatever is longest."""
    timed = [_round(str(n), is_timed=True, expected_s=1.0 + n) for n in range(6)]
    places = [_place("a"), _place("b", is_home=True), _place("c", "t4", is_home=True)]
    slots = schedule(timed, places)

    assert {slots[work.key].place for work in timed} == {"b/0"}
    begins = [slots[work.key].begin_s for work in timed]
    assert begins == sorted(begins)


def test_what_no_clock_reads_spreads_over_all_that_can_do_it() -> None:
    """Rounds over the devices of their kind, a build over those of any kind that has it in its plan."""
    rounds = [_round(str(n)) for n in range(4)]
    builds = [_build(str(n), kinds=_L4 | _T4) for n in range(3)]
    slots = schedule([*rounds, *builds], [_place("a"), _place("b"), _place("c", "t4")])

    assert {slots[work.key].place for work in builds} == {"a/0", "b/0", "c/0"}
    assert {slots[work.key].place for work in rounds} == {"a/0", "b/0"}


def test_a_node_that_times_does_nothing_else() -> None:
    """Neither on its other devices: they share its CPU. What others can do goes on there meanwhile."""
    timed = [_round(f"t{n}", is_timed=True) for n in range(3)]
    scored = [_round(f"s{n}") for n in range(9)]
    places = [_place("a", is_home=True), _place("a", number=1), _place("b")]
    slots = schedule([*scored, *timed], places)

    on_a = [slots[work.key] for work in scored if slots[work.key].place.startswith("a/")]
    for work in timed:
        its = slots[work.key]
        assert its.place == "a/0"
        assert all(other.end_s <= its.begin_s or other.begin_s >= its.end_s for other in on_a)
    assert any(slots[work.key].place == "b/0" for work in scored)


def test_on_a_single_node_what_is_timed_comes_last() -> None:
    """As on one machine without a cluster."""
    works = [_round("t", is_timed=True), _round("s0"), _round("s1"), _build("x")]
    slots = schedule(works, [_place("a", is_home=True), _place("a", number=1)])

    assert slots["round", "t"].begin_s >= max(slot.end_s for key, slot in slots.items() if key != ("round", "t"))


def test_a_round_waits_for_its_builds_and_timing_for_all_of_them() -> None:
    """Timed rounds interleave recipes, so the first of them waits for the last artifact."""
    builds = [_build("x"), _build("y", ("artifacts", "x"))]
    works = [
        *builds,
        _round("s", ("artifacts", "y")),
        _round("t", ("artifacts", "x"), is_timed=True),
        _round("u", ("artifacts", "y"), is_timed=True),
    ]
    slots = schedule(works, [_place("a", is_home=True), _place("b")])

    assert slots["artifacts", "y"].begin_s >= slots["artifacts", "x"].end_s
    assert all(slots["round", name].begin_s >= slots["artifacts", "y"].end_s for name in "stu")


def test_what_needs_a_failed_build_is_named_and_the_rest_goes_on() -> None:
    """Of those that came after it for its steps alone, none is dropped."""
    works = [
        _build("x"),
        _build("y", ("artifacts", "x")),
        _round("of-x", ("artifacts", "x")),
        _round("of-y", ("artifacts", "y")),
    ]
    board = Board(works, [_place("a")])
    first = board.take(_place("a"))

    assert first is not None
    assert [work.key for work in board.fail(first.key)] == [("round", "of-x")]
    second = board.take(_place("a"))
    assert second is not None
    assert second.key == ("artifacts", "y")
    board.end(second.key)
    third = board.take(_place("a"))
    assert third is not None
    board.end(third.key)
    assert board.is_done


def test_what_a_lost_device_did_is_placed_again() -> None:
    """And what no device here can do any more is told."""
    board = Board([_round("s"), _round("t", kinds=_T4)], [_place("a"), _place("c", "t4")])
    for place in (_place("a"), _place("c", "t4")):
        assert board.take(place) is not None
    board.put_back(("round", "s"))
    board.put_back(("round", "t"))
    board.set_places([_place("b")])

    again = board.take(_place("b"))
    assert again is not None
    assert again.key == ("round", "s")
    assert [work.key for work in board.without_place()] == [("round", "t")]


@pytest.mark.slow
def test_a_thousand_devices_end_within_5_percent_of_the_lower_bound() -> None:
    """50,000 cells of ten kinds, of 10 s to 10 min, after 2,000 builds: planned in seconds."""
    draw = random.Random(0)  # noqa: S311  (reproducible, not secret)
    kinds = [f"kind{number}" for number in range(10)]
    places = [_place(f"node{number}", kinds[number % 10]) for number in range(1000)]
    works = [Work(("artifacts", str(n)), frozenset(kinds), is_build=True, expected_s=60.0) for n in range(2000)]
    for number in range(50_000):
        needs = (("artifacts", str(draw.randrange(2000))),)
        works.append(
            _round(str(number), *needs, kinds=frozenset({draw.choice(kinds)}), expected_s=draw.uniform(10, 600))
        )

    began = time.process_time()
    slots = schedule(works, places)
    planned_s = time.process_time() - began

    load_s: dict[str, float] = defaultdict(float)
    for work in works[2000:]:
        load_s[min(work.kinds)] += work.expected_s
    bound_s = max((load_s[kind] + 2000 * 60.0 / 10) / 100 for kind in kinds)
    assert len(slots) == len(works)
    assert max(slot.end_s for slot in slots.values()) <= 1.05 * bound_s
    assert planned_s < 10.0
