"""The only module that queries NVIDIA's driver. The rest works on its readings, so recorded ones can stand in.

A machine without driver or GPU is an ordinary machine: nothing here raises, what is unknown is None or absent.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pynvml

from bench.contract.record import Gpu
from bench.machine.visible import GpuReport, Slice, VisibleDevice, visible_devices

T = TypeVar("T")

# nvmlClocksEventReason*: those that mean slower than requested, which idle and application clocks do not.
THROTTLE_REASONS = {
    0x04: "sw_power_cap",
    0x08: "hw_slowdown",
    0x20: "sw_thermal",
    0x40: "hw_thermal",
    0x80: "hw_power_brake",
}


@dataclass(frozen=True)
class Reading:
    """One reading of one GPU. `processes`: bytes by pid of compute processes, in the driver's pid namespace.

    `energy_j` counts from driver load (Volta and newer, updated about every 100 ms); `utilization` is 0..1
    over the driver's last sampling period; `throttle` is nvmlClocksEventReasons as a bit mask. `power_w` is
    an average over a second from Ampere on, `instant_w` is of the moment. A CPU has `energy_j` alone.
    """

    used_bytes: int | None = None
    processes: Mapping[int, int] = field(default_factory=dict)
    power_w: float | None = None
    energy_j: float | None = None
    sm_clock_mhz: int | None = None
    temperature_c: int | None = None
    utilization: float | None = None
    throttle: int = 0
    instant_w: float | None = None
    power_limit_w: float | None = None
    memory_clock_mhz: int | None = None


Reader = Callable[[], Reading]


def gpus() -> tuple[Gpu, ...]:
    """The GPUs and MIG slices as `cuda:N` counts them, by CUDA_VISIBLE_DEVICES, whose numbers are NVML indices."""
    return tuple(device.gpu for device in _visible())


def cuda_id(device: str) -> int | str | None:
    """What NVML and CUDA_VISIBLE_DEVICES call "cuda:N": its NVML index, or a MIG slice's UUID; None for a CPU."""
    if not device.startswith("cuda"):
        return None
    number = int(device.partition(":")[2] or 0)
    devices = _visible()
    return devices[number].cuda_id if number < len(devices) else None


def unavailable_reason() -> str:
    """Why there is no driver to query, in one clause; empty where it answers."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError_LibraryNotFound:
        return "libnvidia-ml.so.1, which comes with NVIDIA's driver, is not installed"
    except pynvml.NVMLError_DriverNotLoaded:
        return "NVIDIA's driver is installed but not loaded: there is no GPU, or this container has no access to one"
    except (pynvml.NVMLError, OSError) as error:
        return f"NVIDIA's driver does not answer ({error})"
    _query(pynvml.nvmlShutdown)
    return ""


def query_gpus() -> tuple[GpuReport, ...]:
    """What the driver reports of every GPU of the host, whoever may use it; one it cannot open is left out."""
    with _driver() as ready:
        if not ready:
            return ()
        indices = range(_query(pynvml.nvmlDeviceGetCount) or 0)
        handles = ((i, _query(pynvml.nvmlDeviceGetHandleByIndex, i)) for i in indices)
        return tuple(_report(i, handle) for i, handle in handles if handle is not None)


@contextmanager
def reader(index: int | str | None) -> Iterator[Reader | None]:
    """What reads a GPU by NVML index or a MIG slice by UUID (no power, energy, clocks); None where there is none."""
    with _driver() as ready:
        by_uuid, by_index = pynvml.nvmlDeviceGetHandleByUUID, pynvml.nvmlDeviceGetHandleByIndex
        handle = _query(by_uuid if isinstance(index, str) else by_index, index) if ready and index is not None else None
        yield None if handle is None else lambda: _read(handle)


def throttling(mask: int) -> int:
    """The bits of a throttle mask that mean slower than requested."""
    return mask & sum(THROTTLE_REASONS)


def throttle_names(mask: int) -> tuple[str, ...]:
    return tuple(name for bit, name in THROTTLE_REASONS.items() if mask & bit)


@contextmanager
def _driver() -> Iterator[bool]:
    try:
        pynvml.nvmlInit()
    except (pynvml.NVMLError, OSError):
        yield False
        return
    try:
        yield True
    finally:
        _query(pynvml.nvmlShutdown)


def _query(function: Callable[..., T], *arguments: Any) -> T | None:
    """The driver's answer; None for what this GPU or this user may not know."""
    try:
        return function(*arguments)
    except (pynvml.NVMLError, OSError, UnicodeDecodeError):
        return None


def _memory(handle: Any) -> Any:
    """Version 2 leaves what the driver reserves out of `used`; older drivers know only version 1."""
    second = _query(pynvml.nvmlDeviceGetMemoryInfo, handle, pynvml.nvmlMemory_v2)
    return second if second is not None else _query(pynvml.nvmlDeviceGetMemoryInfo, handle)


def _visible() -> tuple[VisibleDevice, ...]:
    return visible_devices(query_gpus(), os.environ.get("CUDA_VISIBLE_DEVICES"))


def _report(index: int, handle: Any) -> GpuReport:
    mode = _query(pynvml.nvmlDeviceGetMigMode, handle)  # [now, after the next reset]
    return GpuReport(
        index=index,
        uuid=_query(pynvml.nvmlDeviceGetUUID, handle) or "",
        name=_query(pynvml.nvmlDeviceGetName, handle),
        memory_bytes=_total(handle),
        capability=_query(pynvml.nvmlDeviceGetCudaComputeCapability, handle),
        driver=_query(pynvml.nvmlSystemGetDriverVersion) or "",
        mig=mode is not None and mode[0] == pynvml.NVML_DEVICE_MIG_ENABLE,
        slices=tuple(_slices(handle)),
    )


def _slices(handle: Any) -> Iterator[Slice]:
    """The MIG devices of a GPU; the driver refuses the numbers that are not in use one by one."""
    for i in range(_query(pynvml.nvmlDeviceGetMaxMigDeviceCount, handle) or 0):
        part = _query(pynvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, i)
        uuid = None if part is None else _query(pynvml.nvmlDeviceGetUUID, part)
        if uuid:
            yield Slice(uuid, _query(pynvml.nvmlDeviceGetName, part), _total(part))


def _total(handle: Any) -> int | None:
    memory = _memory(handle)
    return None if memory is None else int(memory.total)


def _read(handle: Any) -> Reading:
    memory = _memory(handle)
    power_mw = _query(pynvml.nvmlDeviceGetPowerUsage, handle)
    energy_mj = _query(pynvml.nvmlDeviceGetTotalEnergyConsumption, handle)
    limit_mw = _query(pynvml.nvmlDeviceGetEnforcedPowerLimit, handle)
    rates = _query(pynvml.nvmlDeviceGetUtilizationRates, handle)
    processes = _query(pynvml.nvmlDeviceGetComputeRunningProcesses, handle) or []
    return Reading(
        used_bytes=None if memory is None else int(memory.used),
        processes={int(p.pid): int(p.usedGpuMemory or 0) for p in processes},
        power_w=None if power_mw is None else power_mw / 1e3,
        energy_j=None if energy_mj is None else energy_mj / 1e3,
        sm_clock_mhz=_query(pynvml.nvmlDeviceGetClockInfo, handle, pynvml.NVML_CLOCK_SM),
        temperature_c=_query(pynvml.nvmlDeviceGetTemperature, handle, pynvml.NVML_TEMPERATURE_GPU),
        utilization=None if rates is None else rates.gpu / 100,
        throttle=_query(pynvml.nvmlDeviceGetCurrentClocksThrottleReasons, handle) or 0,
        instant_w=_instant_w(handle),
        power_limit_w=None if limit_mw is None else limit_mw / 1e3,
        memory_clock_mhz=_query(pynvml.nvmlDeviceGetClockInfo, handle, pynvml.NVML_CLOCK_MEM),
    )


def _instant_w(handle: Any) -> float | None:
    """Drivers before 530 do not know this field; a board may not have it."""
    values = _query(pynvml.nvmlDeviceGetFieldValues, handle, [pynvml.NVML_FI_DEV_POWER_INSTANT])
    if values is None or values[0].nvmlReturn != pynvml.NVML_SUCCESS:
        return None
    return int(values[0].value.uiVal) / 1e3
