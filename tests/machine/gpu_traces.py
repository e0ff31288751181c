"""Samples of a GPU that never was: its power is known at every moment, and so are its joules."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bench.machine import probes
from bench.machine.counters import Sample
from bench.machine.nvml import Reading

PID = 7
_COUNTER_S = 0.1  # NVML's counter moves so often


@dataclass(frozen=True)
class Gpu:
    """Power in steps of (seconds, watts), one after the other; the last goes on.

    `sensor_error_w`: what the power readings are off by; `stalls_s`: when its counter stops; `others`: processes that
    are not ours, `others_s`: from when on; `throttle`: its bits.
    """

    steps: Sequence[tuple[float, float]]
    sensor_error_w: float = 0.0
    stalls_s: float = 1e9
    others: int = 0
    others_s: float = 0.0
    throttle: int = 0

    def watts(self, at_s: float) -> float:
        for long_s, watts in self.steps:
            if at_s < long_s:
                return watts
            at_s -= long_s
        return self.steps[-1][1]

    def joules(self, until_s: float) -> float:
        """The truth: everything since the first moment."""
        total = 0.0
        for long_s, watts in self.steps[:-1]:
            passed = min(long_s, until_s)
            total, until_s = total + passed * watts, until_s - passed
        return total + until_s * self.steps[-1][1]


def sampled(gpu: Gpu, duration_s: float, *, seed: int = 0, period_s: float = 0.2) -> tuple[Sample, ...]:
    """What a probe would read: a counter of whole millijoules that moves ten times a second, 3 W of noise."""
    draw = random.Random(seed)  # noqa: S311  (reproducible, not secret)
    samples = []
    for i in range(round(duration_s / period_s) + 1):
        at_s = i * period_s + draw.uniform(0, 0.01)
        moved_s = min(at_s, gpu.stalls_s) // _COUNTER_S * _COUNTER_S
        others = {900 + n: 2**20 for n in range(gpu.others if at_s >= gpu.others_s else 0)}
        reading = Reading(
            2**30,
            {PID: 2**30, **others},
            energy_j=4e6 + round(gpu.joules(moved_s), 3),
            sm_clock_mhz=1410 + draw.randrange(-15, 16, 15),
            temperature_c=60,
            utilization=1.0,
            throttle=gpu.throttle,
            instant_w=gpu.watts(at_s) + gpu.sensor_error_w + draw.gauss(0, 3),
            power_limit_w=400.0,
            memory_clock_mhz=1593,
        )
        samples.append(Sample(at_s, reading))
    return tuple(samples)


def of_worker(samples: Sequence[Sample]) -> list[probes.Sample]:
    """The same samples as a probe takes them of a worker."""
    return [probes.Sample(s.time_s, 2**20, 2**20, s.time_s, 2**30, frozenset([PID]), s.reading) for s in samples]


def facts(samples: Sequence[Sample], start_s: float, duration_s: float, **more: Any) -> dict[str, Any]:
    """What a record has of a window in which 3000 tokens were read and 1000 written."""
    window = {"duration_s": duration_s, "asked_s": 10.0, "batches": 10, "input_tokens": 3000, "output_tokens": 1000}
    columns = probes.window_samples(of_worker(samples), start_s, duration_s)
    return {"energy_window": window, "energy_samples": columns, **more}
