"""Joules against a GPU whose power is known, the doubts about them, and a record that is its own replay."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from bench.contract import wire
from bench.measure import energy, sanity
from tests.machine.gpu_traces import Gpu, facts, sampled
from tests.measure.test_sanity import result

# 4 s idle, 3 s of a load's start, then a load whose power changes within the window from 6 to 18 s.
_STEPS = [(4, 60.0), (3, 250.0), (5, 300.0), (4, 200.0), (10, 60.0)]
_GPU = Gpu(_STEPS)
_START_S, _LONG_S = 6.03, 10.4


def _facts(gpu: Gpu = _GPU, start_s: float = _START_S, long_s: float = _LONG_S, **more: object) -> dict[str, object]:
    return facts(sampled(gpu, 20.0), start_s, long_s, **{"idle_power_w": 60.0, **more})


@pytest.mark.parametrize("seed", range(5))
def test_the_joules_of_a_window_are_the_truth_within_a_percent(seed: int) -> None:
    """Counter moving every 100 ms, read five times a second: gross, net and the mean power come out."""
    metrics = energy.energy_metrics(facts(sampled(_GPU, 20.0, seed=seed), _START_S, _LONG_S, idle_power_w=60.0))
    truth = _GPU.joules(_START_S + _LONG_S) - _GPU.joules(_START_S)

    assert metrics["energy_valid"] == 1.0
    assert metrics["energy_gross_j"] == pytest.approx(truth, rel=0.01)
    assert metrics["energy_net_j"] == pytest.approx(truth - 60.0 * _LONG_S, rel=0.015)
    assert metrics["power_mean_w"] == pytest.approx(truth / _LONG_S, rel=0.01)


def test_joules_are_shared_among_three_kinds_of_tokens() -> None:
    """3000 read and 1000 written: the same joules over 3000, 1000 and 4000, gross and net."""
    metrics = energy.energy_metrics(_facts())
    for kind in ("gross", "net"):
        joules = metrics[f"energy_{kind}_j"]
        shares = [metrics[f"energy_{kind}_j_per_{of}_token"] for of in ("input", "output", "total")]
        assert shares == pytest.approx([joules / 3000, joules / 1000, joules / 4000])


def test_the_state_of_the_device_in_the_window_is_told() -> None:
    """Clocks, heat and the share of samples that have it slowed; only slowing bits count as throttling."""
    capped = energy.energy_metrics(_facts(replace(_GPU, throttle=0x4)))
    idle_bit = energy.energy_metrics(_facts(replace(_GPU, throttle=0x1)))

    assert capped["energy_throttled_fraction"] == 1.0
    assert capped["energy_valid"] == 1.0  # those joules were used all the same
    assert idle_bit["energy_throttled_fraction"] == 0.0
    assert (capped["energy_sm_clock_min_mhz"], capped["energy_sm_clock_max_mhz"]) == (1395, 1425)
    assert capped["energy_sm_clock_mean_mhz"] == pytest.approx(1410, abs=5)
    assert capped["energy_temperature_max_c"] == 60


@pytest.mark.parametrize(
    ("gpu", "fault"),
    [
        (replace(_GPU, others=2, others_s=12.0), "2 other processes held the device"),
        (replace(_GPU, stalls_s=9.0), "the counter stood still for"),
        (replace(_GPU, sensor_error_w=25.0), "J where power adds up to"),
        (Gpu([(20, 59.0)]), "the device drew no more than the 60 W it drew idle"),
    ],
)
def test_what_speaks_against_the_joules_is_named(gpu: Gpu, fault: str) -> None:
    """A stranger, a stalled counter, power that disagrees by a tenth, no load at all: kept, and not valid."""
    recorded = _facts(gpu)
    assert any(fault in clause for clause in energy.faults(recorded)), energy.faults(recorded)
    metrics = energy.energy_metrics(recorded)
    assert metrics["energy_valid"] == 0.0
    assert "energy_gross_j" in metrics


def test_power_that_disagrees_by_less_than_a_twentieth_passes() -> None:
    """Readings 3 % above the counter are a sensor's own error."""
    assert energy.faults(_facts(replace(_GPU, sensor_error_w=7.0))) == []


def test_a_stranger_outside_the_window_does_not_matter() -> None:
    """One that comes when the window is over held nothing while it was counted."""
    assert energy.faults(_facts(replace(_GPU, others=1, others_s=18.0))) == []


def test_a_short_window_does_not_hold() -> None:
    """Below ten seconds, or below what was asked, the ends of the counter weigh too much."""
    assert energy.faults(_facts(long_s=9.0)) == ["the window was 9 s long, and 10 s are needed"]
    longer = _facts()
    longer["energy_window"] = {**longer["energy_window"], "asked_s": 15.0}  # type: ignore[dict-item]
    assert energy.faults(longer) == ["the window was 10.4 s long, and 15 s are needed"]


def test_a_counter_seen_too_seldom_or_going_backwards() -> None:
    """Samples every second are too few; a step back is named; without both ends there are no joules at all."""
    seldom = facts(sampled(_GPU, 20.0, period_s=1.0), _START_S, _LONG_S)
    assert any("the counter was read 10 times" in clause for clause in energy.faults(seldom))
    samples = list(sampled(_GPU, 20.0))
    samples[50] = replace(samples[50], reading=replace(samples[50].reading, energy_j=1.0))
    assert "the counter went backwards" in energy.faults(facts(samples, _START_S, _LONG_S))
    cut = facts(sampled(_GPU, 12.0), _START_S, _LONG_S)
    assert any("not read at both ends" in clause for clause in energy.faults(cut))
    assert "energy_gross_j" not in energy.energy_metrics(cut)
    assert energy.energy_metrics(cut)["energy_valid"] == 0.0


def test_a_counter_alone_is_enough() -> None:
    """A CPU tells joules and nothing else: no power to compare, no clocks, and the figure stands."""
    bare = [
        replace(sample, reading=type(sample.reading)(energy_j=sample.reading.energy_j))
        for sample in sampled(_GPU, 20.0)
    ]
    metrics = energy.energy_metrics(facts(bare, _START_S, _LONG_S))
    assert metrics["energy_valid"] == 1.0
    assert "energy_net_j" not in metrics  # no idle power is known
    assert not [key for key in metrics if "clock" in key]


def test_idle_power_comes_from_when_the_counter_moved() -> None:
    """60 W by a counter that moves every 100 ms, over three seconds: within 2 %, and None if it stands."""
    samples = sampled(Gpu([(9, 60.0)]), 3.0, period_s=0.05)
    assert energy.mean_w([(s.time_s, s.reading.energy_j) for s in samples]) == pytest.approx(60.0, rel=0.02)
    assert energy.mean_w([(0.0, 5.0), (1.0, 5.0), (2.0, None)]) is None


def test_a_record_is_its_own_recording() -> None:
    """The metrics of facts that went to disk and back are those of the run."""
    first = _facts(power_limit_w=400.0)
    again = json.loads(wire.dumps(wire.rounded(wire.plain(first))))
    assert energy.energy_metrics(again) == pytest.approx(energy.energy_metrics(first), rel=1e-5)
    assert energy.faults(again) == energy.faults(first) == []


def test_without_a_window_there_is_nothing() -> None:
    """A record of a machine without a counter has no energy metric, no fault and no mark."""
    assert energy.energy_metrics({}) == {}
    assert energy.faults({}) == []
    assert sanity.marks([result({})]) == ()


def test_doubtful_joules_are_marked_and_impossible_ones_refused() -> None:
    """Not valid: the mark. Called valid and not positive, or net above gross: no record is made of it."""
    assert sanity.marks([result({"energy_valid": 0.0}), result({"energy_valid": 1.0})]) == (sanity.ENERGY,)
    doubtful = {"energy_valid": 0.0, "energy_gross_j": 500.0, "energy_net_j": -3.0}
    assert sanity.check(result(doubtful), [], None) == []
    assert sanity.check(result({**doubtful, "energy_valid": 1.0}), [], None) == [
        "energy_net_j is marked as valid, but is -3: it must be positive"
    ]
    assert sanity.check(result({"energy_gross_j": 5.0, "energy_net_j": 6.0}), [], None) == [
        "the net energy of 6 J is more than the gross 5 J"
    ]
