"""Which GPUs this process may use, by what the driver reports: pure, so that recorded reports can stand in."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain, takewhile

from bench.contract.record import Gpu


@dataclass(frozen=True)
class Slice:
    """A MIG device as the driver reports it; the name ends in its profile, as "MIG 1g.10gb"."""

    uuid: str
    name: str | None
    memory_bytes: int | None


@dataclass(frozen=True)
class GpuReport:
    """What the driver reports of one GPU; None for what it does not support. `index` is NVML's."""

    index: int
    uuid: str
    name: str | None
    memory_bytes: int | None
    capability: tuple[int, int] | None
    driver: str = ""
    mig: bool = False
    slices: tuple[Slice, ...] = ()


@dataclass(frozen=True)
class VisibleDevice:
    """A GPU or a slice of one; `cuda_id` is its NVML index or MIG UUID, as CUDA_VISIBLE_DEVICES takes it.

    A UUID identifies a machine, so no record has it.
    """

    gpu: Gpu
    cuda_id: int | str


def visible_devices(reports: tuple[GpuReport, ...], setting: str | None) -> tuple[VisibleDevice, ...]:
    """In the order in which `cuda:N` counts them, by CUDA's own rule for CUDA_VISIBLE_DEVICES.

    Entries count in order, each an index or the beginning of a UUID; the list ends at the first that names
    none or several. A GPU in MIG mode stands for all its slices.
    """
    if setting is None:
        return tuple(device for report in reports for device in _devices(report))
    by_entry = (_by_entry(reports, entry.strip()) for entry in setting.split(","))
    return tuple(chain.from_iterable(takewhile(bool, by_entry)))


def _by_entry(reports: tuple[GpuReport, ...], entry: str) -> tuple[VisibleDevice, ...]:
    if entry.startswith("MIG-"):
        slices = [d for report in reports for d in _devices(report) if str(d.cuda_id).startswith(entry)]
        return tuple(slices) if len(slices) == 1 else ()
    matches = [r for r in reports if entry == str(r.index) or (entry.startswith("GPU-") and r.uuid.startswith(entry))]
    return _devices(matches[0]) if len(matches) == 1 else ()


def _devices(report: GpuReport) -> tuple[VisibleDevice, ...]:
    """The GPU itself, or its slices."""
    name = report.name or "NVIDIA GPU"
    capability = "{}.{}".format(*report.capability) if report.capability else "0.0"

    def device(name: str, memory_bytes: int | None, cuda_id: int | str) -> VisibleDevice:
        return VisibleDevice(Gpu(report.index, name, memory_bytes or 0, capability, report.driver), cuda_id)

    if not report.mig:
        return (device(name, report.memory_bytes, report.index),)
    return tuple(device(part.name or f"{name} MIG", part.memory_bytes, part.uuid) for part in report.slices)
