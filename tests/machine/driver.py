"""A recorded NVIDIA driver in place of pynvml: what was not recorded is refused, as by a GPU that does not support it.

Stands in for the library, not for anything of ours: `bench.machine.nvml` asks it as it asks the real one.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, TypeVar

import pynvml

from bench.machine.visible import GpuReport, Slice

T = TypeVar("T")


@dataclass(frozen=True)
class Driver:
    """`gpus` by index; None is a GPU that the driver cannot open."""

    gpus: tuple[GpuReport | None, ...]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("nvmlDevice"):
            return _refuse
        return getattr(pynvml, name)

    def nvmlInit(self) -> None:  # noqa: N802  (the library's names)
        pass

    def nvmlShutdown(self) -> None:  # noqa: N802
        pass

    def nvmlSystemGetDriverVersion(self) -> str:  # noqa: N802
        return next((gpu.driver for gpu in self.gpus if gpu), "")

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> GpuReport:  # noqa: N802
        return _answer(self.gpus[index])

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> Slice:  # noqa: N802
        matches = [part for gpu in self.gpus if gpu for part in gpu.slices if part.uuid == uuid]
        return _answer(matches[0] if matches else None)

    def nvmlDeviceGetUUID(self, handle: GpuReport | Slice) -> str:  # noqa: N802
        return handle.uuid

    def nvmlDeviceGetName(self, handle: GpuReport | Slice) -> str:  # noqa: N802
        return _answer(handle.name)

    def nvmlDeviceGetMemoryInfo(self, handle: GpuReport | Slice, version: int = 1) -> Any:  # noqa: N802
        del version
        return SimpleNamespace(total=_answer(handle.memory_bytes), used=0)

    def nvmlDeviceGetCudaComputeCapability(self, handle: GpuReport) -> tuple[int, int]:  # noqa: N802
        return _answer(handle.capability)

    def nvmlDeviceGetMigMode(self, handle: GpuReport) -> list[int]:  # noqa: N802
        return [int(handle.mig), int(handle.mig)]

    def nvmlDeviceGetMaxMigDeviceCount(self, handle: GpuReport) -> int:  # noqa: N802
        del handle
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: GpuReport, index: int) -> Slice:  # noqa: N802
        return _answer(dict(enumerate(handle.slices)).get(index))


def _refuse(*arguments: Any) -> Any:
    del arguments
    raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)


def _answer(value: T | None) -> T:
    return _refuse() if value is None else value
