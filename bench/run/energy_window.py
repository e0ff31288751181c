"""A round beside the counter of its device's energy: idle power before it, a window after its figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from bench.contract.job import Job
from bench.envs.environment import Environment
from bench.load.sweep import StageResult
from bench.machine import counters, probes
from bench.measure import energy, online_load
from bench.process import supervisor

IDLE_S = 3.0


def run(
    job: Job,
    env: Environment,
    window_s: float,
    *,
    timeout_s: float,
    memory_limit_bytes: int = 0,
    report: Callable[[str], None] = lambda _: None,
    open_reader: counters.OpenReader = counters.reader,
) -> supervisor.Outcome:
    """`launch.run`; an offline job on a device that counts its energy gets a window of `window_s` for it.

    What the probe saw from that window on is in no other fact but `probe_cpu_s`, its own time. Without a
    counter nothing is waited for.
    """
    report("starting")
    idle = idle_facts(job.device, open_reader, report) if job.kind == "offline" and window_s > 0 else {}
    outcome = supervisor.run(
        replace(job, energy_window_s=window_s if idle else 0.0),
        env,
        timeout_s=timeout_s,
        memory_limit_bytes=memory_limit_bytes,
        report=report,
        open_reader=open_reader,
    )
    if "energy_window" not in outcome.answer.facts:
        return outcome
    start_s = outcome.answer.facts["energy_window"]["start_s"]
    first = next((i for i, s in enumerate(outcome.probe.seen) if s.time_s >= start_s), None)
    seen = probes.observe(outcome.probe.seen[: None if first is None else first + 1], outcome.probe.cpu_s)
    facts = with_window(outcome.answer.facts, idle, outcome.probe)
    return replace(outcome, answer=replace(outcome.answer, facts=facts), seen=seen.facts())


def idle_facts(
    device: str, open_reader: counters.OpenReader, report: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Watch the device do nothing; empty where nothing counts its energy, without a wait."""
    with open_reader(device) as read:
        if read is None or read().energy_j is None:
            return {}
        report("idle power")
        looks = counters.looks(read, IDLE_S)
    power_w = energy.counted_w([(look.time_s, look.reading.energy_j) for look in looks])
    known = {} if power_w is None else {"idle_power_w": power_w}
    return {"idle_s": looks[-1].time_s - looks[0].time_s, **known}


def loaded(facts: Mapping[str, Any], load: StageResult, idle: Mapping[str, Any], probe: probes.Probe) -> dict[str, Any]:
    """The facts of a load over HTTP with its window as one of energy, however long the load made it.

    On a CPU the joules of the load's own process are in it: it runs on the same packages.
    """
    answer = load.answer
    if answer.window_s <= 0:
        return dict(facts)
    read, written = online_load.tokens(load.traces, answer.window_s)
    window = {
        "start_s": answer.zero_s,
        "duration_s": answer.window_s,
        "asked_s": 0.0,
        "input_tokens": read,
        "output_tokens": written,
    }
    return with_window({**facts, "energy_window": window}, idle, probe)


def with_window(facts: Mapping[str, Any], idle: Mapping[str, Any], probe: probes.Probe) -> dict[str, Any]:
    """The facts with what was counted in their window, and with what speaks against it.

    The window's start on this machine's clock is left out: it means nothing to a reader of the record.
    """
    window = dict(facts["energy_window"])
    samples = probes.excerpt(probe.seen, window.pop("start_s"), window["duration_s"])
    found = {**facts, **idle, "energy_window": window, "energy_samples": samples}
    wrong = energy.faults(found)
    return {**found, "energy_faults": wrong} if wrong else found
