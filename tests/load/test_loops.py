from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from scipy import stats

from bench.load import arrivals, client
from bench.load.connection import Exchange
from bench.load.health import Meter, in_flight
from bench.load.job import ClosedSchedule, InFlight, LoadJob, OpenSchedule
from bench.load.loops import ClosedLoop
from bench.load.pool import Pool
from bench.load.request import address, encode
from bench.measure.latency import e2el_s, latency_metrics, ttft_s
from tests.instrument.scripted_server import Scripted
from tests.load.loads import closed, endpoint, opened, requests

QUICK: dict[str, Any] = {"ttft_s": 0.01, "itl_s": 0.002}


def test_a_closed_loop_keeps_its_concurrency(server: Scripted) -> None:
    """Ramp-up is warm-up, and the drain lies behind the window: inside it the load asked is applied."""
    answer = closed(server, *[QUICK] * 80, concurrency=8, warmup=-1)

    assert len(answer.warmup) == 16
    assert len(answer.measured) == 64
    assert answer.in_flight.mean > 7.5
    assert answer.in_flight.high == 8
    assert {s.trace.window for s in answer.measured} == {0}
    assert {s.trace.window for s in answer.warmup} == {-1}
    assert answer.ended == "requests"


def test_the_window_opens_and_closes_with_a_measured_request(server: Scripted) -> None:
    """Zero is the first measured sending, the window's end the last; warm-up times are below zero."""
    answer = closed(server, *[QUICK] * 12, concurrency=2)
    sent = [s.trace.sent_s for s in answer.measured]

    assert 0 <= min(sent) < 0.002
    assert answer.window_s == pytest.approx(max(sent), abs=0.002)
    assert all(s.trace.due_s == s.trace.sent_s for s in answer.measured)
    assert all(s.trace.sent_s < 0 for s in answer.warmup)


def test_a_duration_ends_the_sending_and_waits_for_the_rest(server: Scripted) -> None:
    """No request is begun after it, none that was is lost."""
    job = LoadJob(endpoint(server), requests(*[QUICK] * 400), closed=ClosedSchedule(4, 4, duration_s=0.3))

    answer = client.run(job)

    assert answer.ended == "duration"
    assert answer.window_s == pytest.approx(0.3, abs=0.02)
    assert all(s.trace.sent_s <= answer.window_s for s in answer.measured)
    assert 8 < len(answer.measured) < 396
    assert answer.failures == {}


def test_a_closed_loop_stops_while_a_request_after_its_window_hangs(server: Scripted) -> None:
    """Every measured request is over: stopping ends the one in flight, and the window is whole."""
    to, schedule = endpoint(server), ClosedSchedule(2, 0, after=1)
    bodies = encode(to, requests(QUICK, {"ttft_s": 0.2}, {"never": True}), {})
    over: list[Exchange] = []

    async def load() -> ClosedLoop:
        pool = Pool(address(to), timeout_s=60.0)
        loop = ClosedLoop(pool, bodies, schedule, Meter(), over.append)

        def collect(exchange: Exchange) -> None:
            over.append(exchange)
            if len(over) == 2:
                asyncio.get_running_loop().call_soon(loop.stop)

        loop.collect = collect
        async with asyncio.timeout(5):
            await loop.run()
        await pool.close()
        return loop

    loop = asyncio.run(load())

    assert [exchange.failure for exchange in over] == [None, None, "cancelled"]
    assert [loop.measured(exchange) for exchange in over] == [True, True, False]
    assert loop.ended == "requests"


def test_a_ramp_spreads_the_first_requests(server: Scripted) -> None:
    """Four slots over 0.2 s begin 50 ms apart, so that they do not move in step."""
    job = LoadJob(endpoint(server), requests(*[QUICK] * 16), closed=ClosedSchedule(4, 4, ramp_s=0.2))

    first = sorted(s.trace.sent_s for s in client.run(job).warmup)

    assert first[-1] - first[0] > 0.04


def test_an_open_loop_sends_when_due(server: Scripted) -> None:
    """Whatever is in flight, each request leaves within a millisecond of its due time, and never before."""
    due = arrivals.poisson(60, 120.0, "due")
    slow = {"ttft_s": 0.2, "itl_s": 0.0}

    answer = opened(server, OpenSchedule(due, connections=4), *[slow] * 60)

    late = [s.trace.sent_s - s.trace.due_s for s in answer.measured]
    assert [s.trace.due_s for s in answer.measured] == pytest.approx(list(due))
    assert min(late) >= 0
    assert np.percentile(late, 50) < 0.001
    assert answer.in_flight.high > 10


def test_a_poisson_runs_arrivals_are_poisson(server: Scripted) -> None:
    """What was sent, not what was planned: its gaps pass a Kolmogorov-Smirnov test for the exponential."""
    answer = opened(server, OpenSchedule(arrivals.poisson(300, 100.0, "sent")), *[QUICK] * 300)

    sent = sorted(s.trace.sent_s for s in answer.measured)
    gaps = [b - a for a, b in pairwise(sent)]
    assert answer.failures == {}
    assert stats.kstest(gaps, stats.expon(scale=1 / 100).cdf).pvalue > 0.01


def test_a_conversation_sends_its_turns_in_order(server: Scripted) -> None:
    """Two at a time, three turns each: a turn leaves after the answer before it and the pause."""
    shape = ClosedSchedule(2, 6, turns=3, think_s=0.05)
    answer = client.run(LoadJob(endpoint(server), requests(*[QUICK] * 18), closed=shape))

    results = {s.trace.request: s for s in (*answer.warmup, *answer.measured)}
    assert set(range(12)) < set(results)
    assert answer.in_flight.high <= 2
    for turn in set(results) - {2, 5, 8, 11, 14, 17}:
        if turn + 1 in results:
            assert 0.048 <= results[turn + 1].trace.sent_s - results[turn].end_s < 0.15
    assert all(s.trace.sent_s <= answer.window_s for s in answer.measured)


def test_a_conversation_ends_with_a_turn_that_failed(server: Scripted) -> None:
    """Its next turn would go on from an answer that nobody had; the other conversations go on."""
    scripts = [QUICK] * 9
    scripts[3] = {"status": 500}

    answer = client.run(LoadJob(endpoint(server), requests(*scripts), closed=ClosedSchedule(1, 0, turns=3)))

    assert [s.trace.request for s in answer.measured] == [0, 1, 2, 3, 6]
    assert answer.failures == {"status": 1}


def test_a_limit_in_flight_makes_requests_wait_here(server: Scripted) -> None:
    """With two at most, four due together are taken up at once and sent in pairs; latency is from due."""
    slow = {"ttft_s": 0.1}

    answer = opened(server, OpenSchedule((0.0, 0.0, 0.0, 0.0), max_in_flight=2), *[slow] * 4)

    queued = [s.queued_s for s in answer.measured]
    sent = [s.trace.sent_s for s in answer.measured]
    assert max(queued) < 0.02
    assert sent[2] > 0.09
    assert ttft_s(answer.measured[3].trace) > 0.19


def test_what_is_due_before_and_after_the_window_is_not_measured(server: Scripted) -> None:
    """It is kept apart; zero is the opening. The load ends with the window's last answer, which takes 24 ms."""
    shape = OpenSchedule(arrivals.constant(40, 50.0), lead_s=0.1, window_end_s=0.15)

    answer = opened(server, shape, *[QUICK] * 40)

    assert [s.trace.request for s in answer.measured] == [5, 6, 7]
    others = [s.trace.request for s in answer.warmup]
    assert others[:6] == [0, 1, 2, 3, 4, 8]
    assert len(others) < 12
    assert answer.measured[0].trace.due_s == pytest.approx(0.0, abs=1e-6)
    assert answer.window_s == pytest.approx(0.05)


def test_an_open_loop_shows_a_stall_that_a_closed_loop_hides(server: Scripted) -> None:
    """The server stops for a second and a half. Users go on arriving, and p99 shows it.

    A closed loop asks nothing meanwhile: one request of 300 sees the stall, and p99 does not.
    """
    stall_s, count, at = 1.5, 300, 20
    scripts: list[dict[str, Any]] = [{"ttft_s": 0.002}] * count
    scripts[at] = {"ttft_s": 0.002, "stall_s": stall_s}

    schedule = OpenSchedule(arrivals.poisson(count, 200.0, "stall"))
    open_loop = opened(server, schedule, *scripts, tokens=1, timeout_s=20.0)
    closed_loop = closed(server, *scripts, tokens=1, timeout_s=20.0)

    open_p99 = latency_metrics([s.trace for s in open_loop.measured])["ttft_p99_s"]
    closed_p99 = latency_metrics([s.trace for s in closed_loop.measured])["ttft_p99_s"]
    assert open_p99 > 0.9 * stall_s
    assert closed_p99 < 0.1 * stall_s
    assert sum(e2el_s(s.trace) > 0.3 for s in closed_loop.measured) == 1
    assert sum(e2el_s(s.trace) > 0.3 for s in open_loop.measured) > 200


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ({}, "either"),
        ({"closed": ClosedSchedule(1), "opened": OpenSchedule((0.0,))}, "either"),
        ({"closed": ClosedSchedule(0)}, "at least 1"),
        ({"closed": ClosedSchedule(8)}, "all of them warm-up"),
        ({"opened": OpenSchedule((0.0, 1.0))}, "due times"),
        ({"opened": OpenSchedule((0.0, 2.0, 1.0))}, "ascend"),
    ],
)
def test_a_load_that_cannot_be_is_refused(server: Scripted, shape: dict[str, Any], words: str) -> None:
    """Before anything is sent, with what is wrong."""
    with pytest.raises(ValueError, match=words):
        client.run(LoadJob(endpoint(server), requests(*[QUICK] * 3), **shape))


def test_answers_over_the_bound_are_decoded_as_they_end(server: Scripted) -> None:
    """Memory is bounded, the numbers are the same, and the answer says how many were."""
    job = LoadJob(endpoint(server), requests(*[QUICK] * 6), closed=ClosedSchedule(1, 0), hold_bytes=3000)

    answer = client.run(job)

    assert 0 < answer.decoded_inside < 6
    assert [s.trace.event_tokens for s in answer.measured] == [(1,) * 8] * 6
    assert all(b >= a for s in answer.measured for a, b in pairwise(s.trace.token_s))


def test_the_client_states_its_own_health(server: Scripted) -> None:
    """CPU, wall time and timer lateness of the window are in the answer."""
    health = closed(server, *[QUICK] * 30, concurrency=2).health

    assert 0 < health.cpu_s < health.wall_s
    assert health.lag_samples > 5
    assert 0 <= health.lag_p99_s <= health.lag_max_s < 1


def test_requests_in_flight_are_counted_over_time() -> None:
    """Spans are clipped to the window; the mean is over time, low and high over moments."""
    spans = [(-1.0, 1.0), (0.0, 4.0), (2.0, 9.0), (5.0, 6.0)]

    assert in_flight(spans, 0.0, 4.0) == InFlight(mean=(1 + 4 + 2) / 4, low=1, high=2)
    assert in_flight(spans, 4.0, 4.0) == InFlight()
    assert in_flight([], 0.0, 1.0) == InFlight()
