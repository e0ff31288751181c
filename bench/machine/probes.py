"""What a worker does to the machine, sampled from outside: memory, CPU time and the GPU's own counters.

A sample costs 0.5 ms of CPU without a GPU, 0.9 ms for a worker of 100 threads: 0.25 to 0.5 % of one core at
5 Hz (measured on two cores of a 2.6 GHz EPYC; `probe_cpu_s` records it for every run). Sampling misses what
comes and goes between samples, so the kernel's high-water mark of the main process is recorded too.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Any

import psutil

from bench.contract import wire
from bench.machine import counters, nvml, resident

_RESCAN_EVERY = 5  # samples between two scans for new child processes


@dataclass(frozen=True)
class Sample:
    """`time_s` on time.monotonic; `cpu_s`: used by every process that the tree has had so far."""

    time_s: float
    tree_rss_bytes: int
    hwm_bytes: int | None
    cpu_s: float
    available_bytes: int
    pids: frozenset[int] = frozenset()
    gpu: nvml.Reading | None = None  # or what the CPU's own counters say


def observe(samples: Sequence[Sample], probe_cpu_s: float = 0.0) -> dict[str, Any]:
    """What the samples add up to, as facts of a record; what is unknown is absent.

    `peak_rss_bytes` sums RSS over the tree, so pages shared between processes count in each. `energy_j` is
    the whole device's, idle power included. `throttle_reasons` are those of any sample, `power_limit_w`
    is the lowest. Clocks count only while the GPU computes.
    """
    if not samples:
        return {"watched_s": 0.0, "samples": 0, "probe_cpu_s": probe_cpu_s}
    facts = {
        "watched_s": samples[-1].time_s - samples[0].time_s,
        "samples": len(samples),
        "probe_cpu_s": probe_cpu_s,
        "peak_rss_bytes": _most(s.tree_rss_bytes for s in samples) or None,
        "hwm_bytes": _most(s.hwm_bytes for s in samples),
        "worker_cpu_s": samples[-1].cpu_s or None,
        "available_min_bytes": min(s.available_bytes for s in samples),
        **_gpu([(s.gpu, s.pids) for s in samples if s.gpu is not None]),
    }
    return {name: value for name, value in facts.items() if value is not None}


@dataclass
class Probe:
    """The live end: `tree_rss_bytes` is the last sample's; `facts()` is whole once the watch has ended."""

    samples: list[Sample] = field(default_factory=list)
    cpu_s: float = 0.0

    @property
    def tree_rss_bytes(self) -> int:
        return self.samples[-1].tree_rss_bytes if self.samples else 0

    def facts(self) -> dict[str, Any]:
        return observe(self.samples, self.cpu_s)


@contextmanager
def watch(
    pid: int, device: str, *, period_s: float = 0.2, open_reader: counters.OpenReader = counters.reader
) -> Iterator[Probe]:
    """Sample process `pid` and its descendants, and the counters of "cuda:N" or "cpu", until the block ends.

    Nothing raises: the process may end, or belong to another user. A last sample is taken on leaving.
    """
    with open_reader(device) as read:
        probe, tree, stop = Probe(), _Tree(pid), threading.Event()

        def sample() -> None:
            began = time.thread_time()
            probe.samples.append(tree.sample(read))
            probe.cpu_s += time.thread_time() - began

        def loop() -> None:
            while not stop.wait(period_s):
                sample()

        sample()
        thread = threading.Thread(target=loop, name="probe", daemon=True)
        thread.start()
        try:
            yield probe
        finally:
            stop.set()
            thread.join()
            sample()


class _Tree:
    """The processes under one root, scanned every second; one that left its parent is still followed."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._processes: dict[int, psutil.Process] = {}
        self._cpu_s: dict[int, float] = {}
        self._sampled = 0

    def sample(self, read: nvml.Reader | None) -> Sample:
        if self._sampled % _RESCAN_EVERY == 0:
            self._rescan()
        self._sampled += 1
        rss = sum(self._rss(process) for process in list(self._processes.values()))
        return Sample(
            time_s=time.monotonic(),
            tree_rss_bytes=rss,
            hwm_bytes=resident.hwm_bytes(self._root),
            cpu_s=sum(self._cpu_s.values()),
            available_bytes=psutil.virtual_memory().available,
            pids=frozenset(self._processes),
            gpu=None if read is None else read(),
        )

    def _rescan(self) -> None:
        pending = [self._root, *self._processes]
        checked: set[int] = set()
        while pending:
            if (pid := pending.pop()) in checked:
                continue
            checked.add(pid)
            with suppress(psutil.Error, OSError):
                if pid not in self._processes:
                    self._processes[pid] = psutil.Process(pid)
                pending += children(pid)

    def _rss(self, process: psutil.Process) -> int:
        """Resident bytes; 0 and forgotten once it is gone, 0 where it is not ours to read."""
        try:
            with process.oneshot():
                times = process.cpu_times()
                self._cpu_s[process.pid] = times.user + times.system
                return process.memory_info().rss
        except (psutil.ZombieProcess, psutil.AccessDenied, OSError):
            return 0
        except psutil.NoSuchProcess:
            self._processes.pop(process.pid, None)
            return 0


def children(pid: int) -> list[int]:
    """Direct children; from the kernel's own list where there is one, which saves a walk over all."""
    try:
        lists = [f.read_text() for f in Path(f"/proc/{pid}/task").glob("*/children")]
    except OSError:
        lists = []
    if lists:
        return [int(child) for text in lists for child in text.split()]
    return [child.pid for child in psutil.Process(pid).children()]


def window_samples(samples: Sequence[Sample], start_s: float, duration_s: float) -> dict[str, list[float | None]]:
    """The device's counters in a window and at the samples next to it, as columns.

    `time_s` is from the window's start, `energy_j` from the first sample. `power_w` is of the moment,
    `throttle` has NVML's bits for slower than requested, `foreign` counts processes on the device that are not
    the worker's. What is unknown is None. Numbers have the six digits that records keep.
    """
    read = [(s.time_s - start_s, s.gpu, s.pids) for s in samples if s.gpu is not None]
    before = [i for i, (at, _, _) in enumerate(read) if at <= 0]
    after = [i for i, (at, _, _) in enumerate(read) if at >= duration_s]
    window = read[before[-1] if before else 0 : after[0] + 1 if after else None]
    zero_j = next((r.energy_j for _, r, _ in window if r.energy_j is not None), 0.0)
    matched = _matched([(reading, pids) for _, reading, pids in read])
    columns: dict[str, list[float | None]] = {
        "time_s": [at for at, _, _ in window],
        "energy_j": [None if r.energy_j is None else r.energy_j - zero_j for _, r, _ in window],
        "power_w": [r.instant_w for _, r, _ in window],
        "sm_clock_mhz": [r.sm_clock_mhz for _, r, _ in window],
        "temperature_c": [r.temperature_c for _, r, _ in window],
        "throttle": [nvml.throttling(r.throttle) for _, r, _ in window],
        "foreign": [_foreign(r, pids) if matched else None for _, r, pids in window],
    }
    return {name: [wire.rounded(value) for value in values] for name, values in columns.items()}


def _matched(readings: Iterable[tuple[nvml.Reading, frozenset[int]]]) -> bool:
    """Whether the driver calls any process by the id we know it by, which it does not in a container."""
    return any(pid in pids for reading, pids in readings for pid in reading.processes)


def _foreign(reading: nvml.Reading, pids: frozenset[int]) -> int:
    return sum(pid not in pids for pid in reading.processes)


def _gpu(samples: Sequence[tuple[nvml.Reading, frozenset[int]]]) -> Mapping[str, Any]:
    if not samples:
        return {}
    readings = [reading for reading, _ in samples]
    ours = [sum(b for p, b in r.processes.items() if p in pids) for r, pids in samples]
    foreign = max(_foreign(r, pids) for r, pids in samples) if _matched(samples) else 0
    energy = [r.energy_j for r in readings if r.energy_j is not None]
    busy = [r for r in readings if (r.utilization or 0) > 0]
    return {
        "nvml_process_peak_bytes": max(ours) or None,
        "device_used_peak_bytes": _most(r.used_bytes for r in readings),
        "foreign_gpu_processes": foreign or None,
        "energy_j": energy[-1] - energy[0] if len(energy) > 1 else None,
        "power_max_w": _most(r.power_w for r in readings),
        "power_limit_w": _least(r.power_limit_w for r in readings),
        "sm_clock_min_mhz": _least(r.sm_clock_mhz for r in busy),
        "sm_clock_max_mhz": _most(r.sm_clock_mhz for r in busy),
        "memory_clock_min_mhz": _least(r.memory_clock_mhz for r in busy),
        "memory_clock_max_mhz": _most(r.memory_clock_mhz for r in busy),
        "temperature_max_c": _most(r.temperature_c for r in readings),
        "throttle_reasons": nvml.throttle_names(reduce(or_, (r.throttle for r in readings))) or None,
    }


def _least(values: Iterable[Any]) -> Any:
    return min((v for v in values if v is not None), default=None)


def _most(values: Iterable[Any]) -> Any:
    return max((v for v in values if v is not None), default=None)
