"""The energy of a round by the device's counter: idle power before it, and the joules of one window."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from bench.load.sweep import StageResult
from bench.machine import counters, probes
from bench.measure import energy, online_load

IDLE_S = 3.0


def idle_facts(
    device: str, open_reader: counters.OpenReader, report: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Idle power over `IDLE_S`; empty, without a wait, where no counter counts the device's energy."""
    with open_reader(device) as read:
        if read is None or read().energy_j is None:
            return {}
        report("idle power")
        samples = counters.poll(read, IDLE_S)
    power_w = energy.mean_w([(sample.time_s, sample.reading.energy_j) for sample in samples])
    power = {} if power_w is None else {"idle_power_w": power_w}
    return {"idle_s": samples[-1].time_s - samples[0].time_s, **power}


def of_load(
    facts: Mapping[str, Any], load: StageResult, idle: Mapping[str, Any], probe: probes.Probe
) -> dict[str, Any]:
    """The facts of a load over HTTP with its window as one of energy, however long the load made it.

    On a CPU the joules of the load's own process are in it: it runs on the same packages.
    """
    answer = load.answer
    if answer.window_s <= 0:
        return dict(facts)
    input_tokens, output_tokens = online_load.tokens(load.traces, answer.window_s)
    window = {
        "start_s": answer.zero_s,
        "duration_s": answer.window_s,
        "asked_s": 0.0,
        "input_tokens": input_tokens,
        "output_tokens": output_tokens,
    }
    return with_window({**facts, "energy_window": window}, idle, probe)


def with_window(facts: Mapping[str, Any], idle: Mapping[str, Any], probe: probes.Probe) -> dict[str, Any]:
    """The facts with the energy samples of their window and the faults of these; without its local start time."""
    window = dict(facts["energy_window"])
    samples = probes.window_samples(probe.samples, window.pop("start_s"), window["duration_s"])
    counted = {**facts, **idle, "energy_window": window, "energy_samples": samples}
    faults = energy.faults(counted)
    return {**counted, "energy_faults": faults} if faults else counted
