"""Rounds of the real pipeline on the fake engine, beside a recorded device whose power rises all the time."""

from __future__ import annotations

import csv
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from bench.contract.columns import Group
from bench.contract.record import Result
from bench.contract.spec import Suite
from bench.machine import counters, hardware, replay
from bench.machine.counters import Sample
from bench.measure import energy, sanity
from bench.publish.tables import build, columns, render
from bench.run import doctor, energy_window, plan, records
from bench.store import Store
from tests.machine.gpu_traces import Gpu, sampled
from tests.run import fake_runs

_WATTS_PER_S = 10.0
_IDLE_S, _WINDOW_S = 1.0, 5.0  # shorter than a user's, which are 3 and 10 s
_LOAD = {"batch": 2, "prompt_tokens": 16, "new_tokens": 8, "repeats": 3}

_suite = partial(fake_runs.suite, workloads=[_LOAD], rounds=1)


def _run(store: Store, suite: Suite, reader: counters.OpenReader = counters.reader) -> Result:
    (result,) = fake_runs.run(suite, store, reader)
    assert result.status == "ok", result.reason
    return result


def _rising(throttled_s: float) -> Sequence[Sample]:
    """40 W and 10 W more each second, for a minute; slowed for its power from `throttled_s` on."""
    samples = sampled(Gpu([(0.1, 40 + _WATTS_PER_S * i / 10) for i in range(600)]), 60.0, period_s=0.05)
    throttled = (replace(s, reading=replace(s.reading, throttle=0x4 * (s.time_s >= throttled_s))) for s in samples)
    return tuple(throttled)


@pytest.fixture(autouse=True)
def _short_idle_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(energy_window, "IDLE_S", _IDLE_S)


@pytest.mark.slow
@pytest.mark.usefixtures("cache")
@pytest.mark.clock
def test_a_round_beside_a_counter_has_joules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Idle power before, seconds of the same shape after, joules per token; no other figure moves."""
    monkeypatch.setattr(energy, "LEAST_S", _WINDOW_S)
    store = Store(tmp_path / "results")
    suite = _suite(energy_window_s=_WINDOW_S)
    result = _run(store, suite, replay.open_reader(_rising(_IDLE_S + _WINDOW_S - 0.3), time.monotonic()))
    facts, metrics, window = result.facts, result.metrics, result.facts["energy_window"]

    assert "energy_faults" not in facts
    assert metrics["energy_valid"] == 1.0
    assert window["duration_s"] >= window["asked_s"] == _WINDOW_S
    assert _suite().energy_window_s == 10.0
    assert facts["idle_s"] >= energy_window.IDLE_S
    written = window["batches"] * _LOAD["batch"] * _LOAD["new_tokens"]
    assert (window["output_tokens"], window["input_tokens"]) == (written, 2 * written)
    assert metrics["energy_gross_j_per_output_token"] == pytest.approx(metrics["energy_gross_j"] / written, rel=1e-5)
    between_s = (facts["idle_s"] + window["duration_s"]) / 2  # at the least, from one middle to the other
    assert metrics["power_mean_w"] > facts["idle_power_w"] + 0.9 * _WATTS_PER_S * between_s
    assert metrics["energy_throttled_fraction"] > 0
    assert "throttle_reasons" not in facts  # of the rounds' own figures, which were taken before
    assert facts["watched_s"] < window["duration_s"]
    assert result.marks in ((), (sanity.BUSY,))
    _shown(result)
    planned = plan.plan(_suite(energy_window_s=0), fetch=False)
    assert records.pending(planned, store) == []  # the window is no part of what a record is


def _shown(result: Result) -> None:
    """A section of its own below the workload's, and every metric in the CSV."""
    table = build.build([result])
    page = render.render(table, "md")
    assert "offline-b2-p16-n8: energy" in page
    assert "gross J/output token" in page
    heads = next(csv.reader(render.render(table, "csv").splitlines()))
    energy = {column.key for column in columns.group(Group.ENERGY, csv=True)}
    assert {f"offline-b2-p16-n8/{key}" for key in energy} <= set(heads)
    assert {key for key in result.metrics if key.startswith("energy_")} <= energy


@pytest.mark.usefixtures("cache")
def test_a_short_window_is_kept_and_marked(tmp_path: Path) -> None:
    """One second, as asked: the joules are there, the record says why they fail, the table marks it."""
    suite = _suite(energy_window_s=1)
    result = _run(Store(tmp_path / "results"), suite, replay.open_reader(_rising(60.0), time.monotonic()))

    assert result.metrics["energy_gross_j"] > 0
    assert result.metrics["energy_valid"] == 0.0
    assert any("10 s are needed" in clause for clause in result.facts["energy_faults"])
    page = render.render(build.build([result]), "md")
    assert "energy: the joules of a round do not hold" in page


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("counted", [True, False])
def test_nothing_is_waited_for_that_cannot_be_had(tmp_path: Path, *, counted: bool) -> None:
    """Without a counter, and with one where zero seconds are asked: no idle sample, no window, no fact."""
    nothing = partial(counters.reader, root=tmp_path / "no such folder")
    began = time.monotonic()
    assert energy_window.idle_facts("cpu", nothing) == {}
    assert time.monotonic() - began < energy_window.IDLE_S / 2
    reader = replay.open_reader(_rising(60.0), began) if counted else nothing
    result = _run(Store(tmp_path / "results"), _suite(energy_window_s=0 if counted else 10), reader)

    assert result.duration_s < energy_window.IDLE_S + 10
    assert not [key for key in (*result.facts, *result.metrics) if key.startswith(("energy_w", "idle_"))]


@pytest.mark.usefixtures("cache")
def test_a_load_has_the_joules_of_its_own_window(tmp_path: Path) -> None:
    """The server is watched and the client knows its window: joules over the tokens that came in it."""
    load = {"kind": "closed", "concurrency": 4, "prompt_tokens": 16, "new_tokens": 8, "requests": 100}
    reader = replay.open_reader(_rising(60.0), time.monotonic())
    result = _run(Store(tmp_path / "results"), _suite(workloads=[load]), reader)
    window, metrics = result.facts["energy_window"], result.metrics

    assert window["duration_s"] == result.facts["window_s"] < 10
    assert any("10 s are needed" in clause for clause in result.facts["energy_faults"])
    assert metrics["energy_valid"] == 0.0
    assert window["output_tokens"] == pytest.approx(100 * 8, rel=0.1)
    assert window["input_tokens"] == pytest.approx(100 * 16, rel=0.1)
    rate = window["output_tokens"] / window["duration_s"]
    assert metrics["output_tok_per_s"] == pytest.approx(rate, rel=1e-4)
    assert metrics["energy_gross_j"] / window["duration_s"] == pytest.approx(metrics["power_mean_w"], rel=1e-4)
    assert metrics["power_mean_w"] > result.facts["idle_power_w"] + _WATTS_PER_S * energy_window.IDLE_S / 2


@pytest.mark.usefixtures("cache")
def test_doctor_says_where_energy_comes_from() -> None:
    """One line: what counts, or "none" and why."""
    (line,) = [line for line in doctor.lines() if line.startswith("energy ")]
    assert line.split(maxsplit=1)[1] == counters.source(hardware.detect("auto").device)
