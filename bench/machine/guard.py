"""Is the device idle, empty and cool? Checked before a cell: a busy device gives numbers that mean nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import psutil

from bench.machine import cpu, nvml

FOREIGN_CPU_LIMIT = 0.10  # of the cores we may use
DEVICE_USED_LIMIT_BYTES = 1024**3  # a display and a driver's own share stay below
UTILIZATION_LIMIT = 0.05
HOT_C = 75  # an idle GPU above this is still cooling down, or cannot


@dataclass(frozen=True)
class Readiness:
    """`reason` says in one clause what is in the way. `facts`: `before_*` keys, units in their names."""

    idle: bool
    reason: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)


def inspect(device: str, *, interval_s: float = 0.3) -> Readiness:
    """Watch the CPU for `interval_s` and the GPU of "cuda:N", which needs an idle CPU too; leaves us out."""
    facts = _cpu_load(interval_s)
    reasons: list[str] = []
    if facts["before_foreign_cpu_fraction"] > FOREIGN_CPU_LIMIT:
        top = f", most by {facts['before_top_process']}" if facts["before_top_process"] else ""
        reasons.append(f"other processes use {facts['before_foreign_cpu_fraction']:.0%} of the CPU{top}")
    with nvml.reader(nvml.cuda_id(device)) as read:
        if read is not None:
            reading = read()
            gpu_facts = {
                "before_device_used_bytes": reading.used_bytes,
                "before_gpu_processes": len(reading.processes),
                "before_temperature_c": reading.temperature_c,
            }
            facts |= {key: value for key, value in gpu_facts.items() if value is not None}
            reasons += gpu_reasons(device, reading, _own_pids())
    return Readiness(not reasons, "; ".join(reasons), facts)


def wait_until_idle(
    device: str, limit_s: float, *, poll_s: float = 1.0, check: Callable[[str], Readiness] = inspect
) -> Readiness:
    """Check until the device is idle or `limit_s` has passed; the last result either way."""
    until = time.monotonic() + limit_s
    while True:
        readiness = check(device)
        if readiness.idle or time.monotonic() + poll_s > until:
            return readiness
        time.sleep(poll_s)


def gpu_reasons(device: str, reading: nvml.Reading, own: frozenset[int]) -> Iterator[str]:
    """What keeps a GPU from being idle, empty and cool, one clause each."""
    foreign = {pid: used for pid, used in reading.processes.items() if pid not in own}
    for pid, used in foreign.items():
        yield f"{_name(pid)} holds {used / 2**20:.0f} MiB of {device}"
    if not foreign and (reading.used_bytes or 0) > DEVICE_USED_LIMIT_BYTES:
        yield f"{(reading.used_bytes or 0) / 2**20:.0f} MiB of {device} are in use by a process we cannot see"
    if (reading.utilization or 0.0) > UTILIZATION_LIMIT:
        yield f"{device} is computing ({reading.utilization:.0%})"
    if (reading.temperature_c or 0) >= HOT_C:
        yield f"{device} is at {reading.temperature_c} C"


def _cpu_load(interval_s: float) -> dict[str, Any]:
    """Whole-machine busy time less our own, which counts also what ran briefly and what a hypervisor took."""
    cores, own = cpu.affinity(), _own_pids()
    busy, spent, began = _busy_s(cores), _spent_s(), time.monotonic()
    time.sleep(interval_s)
    elapsed_s = time.monotonic() - began
    delta = {pid: used - spent.get(pid, 0.0) for pid, used in _spent_s().items()}
    foreign_s = _busy_s(cores) - busy - sum(max(0.0, delta.get(pid, 0.0)) for pid in own)
    others = {pid: used for pid, used in delta.items() if pid not in own and used > 0.0}
    top = max(others, key=others.__getitem__, default=None)
    return {
        "before_foreign_cpu_fraction": min(1.0, max(0.0, foreign_s / (elapsed_s * len(cores)))),
        "before_top_process": "" if top is None else _name(top),
        "before_available_bytes": psutil.virtual_memory().available,
    }


def _busy_s(cores: tuple[int, ...]) -> float:
    """Seconds these logical CPUs were not idle; guest time is inside user time already."""
    every, left_out = len(cores) == psutil.cpu_count(), ("idle", "iowait", "guest", "guest_nice")
    times = [t for number, t in enumerate(psutil.cpu_times(percpu=True)) if every or number in cores]
    return sum(sum(t) - sum(getattr(t, name, 0.0) for name in left_out) for t in times)


def _spent_s() -> dict[int, float]:
    """CPU seconds by pid, of every process that we may read."""
    seconds: dict[int, float] = {}
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            times = process.cpu_times()
            seconds[process.pid] = times.user + times.system
    return seconds


def _own_pids() -> frozenset[int]:
    me = psutil.Process()
    try:
        return frozenset([me.pid, *(child.pid for child in me.children(recursive=True))])
    except (psutil.Error, OSError):
        return frozenset([me.pid])


def _name(pid: int) -> str:
    """A process by its command's name, never its arguments or its owner."""
    with suppress(psutil.Error, OSError):
        return psutil.Process(pid).name()
    return f"process {pid}"
