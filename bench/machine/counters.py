"""Where the energy of a device is counted: by NVML on a GPU, by RAPL on a CPU.

RAPL counts the packages: cores, caches and memory controllers, of whatever runs on them, not the memory
chips. Since Linux 5.10 only root may read it unless the administrator has opened it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.machine import cpu, nvml
from bench.machine.nvml import Reader, Reading

POWERCAP = Path("/sys/class/powercap")
_POLL_S = 0.05  # between two samples of an idle device: counters move every 1 ms (RAPL) to 100 ms (NVML)

OpenReader = Callable[[str], AbstractContextManager[Reader | None]]


@dataclass(frozen=True)
class Sample:
    """A reading and when it was taken, on time.monotonic or from the start of a recording."""

    time_s: float
    reading: Reading


@contextmanager
def reader(device: str, root: Path = POWERCAP) -> Iterator[Reader | None]:
    """A function that reads "cuda:N" or "cpu" while the context lasts; None where nothing can be read."""
    if device.startswith("cuda"):
        with nvml.reader(nvml.cuda_id(device)) as read:
            yield read
    else:
        yield _rapl(root)


def poll(read: Reader, duration_s: float, period_s: float = _POLL_S) -> tuple[Sample, ...]:
    """Sample a device for `duration_s`, from now on."""
    samples = [Sample(time.monotonic(), read())]
    while samples[-1].time_s - samples[0].time_s < duration_s:
        time.sleep(period_s)
        samples.append(Sample(time.monotonic(), read()))
    return tuple(samples)


def source(device: str, root: Path = POWERCAP) -> str:
    """What counts the energy of a device, or "none: " and why nothing does."""
    with reader(device, root) as read:
        counted = read is not None and read().energy_j is not None
    if device.startswith("cuda"):
        return "the GPU's own counter, by NVML" if counted else "none: this GPU reports no total energy to NVML"
    zones = _zones(root)
    if counted:
        return f"RAPL of {len(zones)} CPU package{'s' if len(zones) > 1 else ''}, memory chips not included"
    if zones:
        return f"none: no NVIDIA GPU, and {zones[0] / 'energy_uj'} is not readable by this user"
    return f"none: no NVIDIA GPU, and {root} has no readable counter"


@dataclass
class _Package:
    """One counter of microjoules, continued where it wraps around at `wrap_uj`."""

    file: Path
    wrap_uj: int
    last_uj: int
    counted_uj: int = 0

    def energy_j(self) -> float | None:
        if (now := _number(self.file)) is None:
            return None
        step, self.last_uj = now - self.last_uj, now
        self.counted_uj += step + self.wrap_uj if step < 0 else step
        return self.counted_uj / 1e6


def _rapl(root: Path) -> Reader | None:
    """The sum over all packages from now on; None where one of them cannot be read."""
    packages = []
    for zone in _zones(root):
        file, wrap_uj = zone / "energy_uj", _number(zone / "max_energy_range_uj")
        if (now := _number(file)) is None:
            return None
        packages.append(_Package(file, wrap_uj or 0, now))

    def read() -> Reading:
        joules = [package.energy_j() for package in packages]
        return Reading(energy_j=None if None in joules else sum(filter(None, joules)))

    return read if packages else None


def _zones(root: Path) -> list[Path]:
    """The packages alone: the zones inside one, and the platform's, would count the same joules again."""
    return [z for z in sorted(root.glob("intel-rapl:*")) if cpu.text(z / "name").startswith("package")]


def _number(file: Path) -> int | None:
    text = cpu.text(file).strip()
    return int(text) if text.isdigit() else None
