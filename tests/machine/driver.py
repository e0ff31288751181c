"""A recorded NVIDIA driver in place of pynvml: what it was not told it answers as a GPU that does not know.

Stands in for the library, not for anything of ours: `bench.machine.nvml` asks it as it asks the real one.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, TypeVar

import pynvml

from bench.machine.visible import Slice, Told

T = TypeVar("T")


@dataclass(frozen=True)
class Driver:
    """`gpus` by index; None is a GPU that the driver cannot open."""

    gpus: tuple[Told | None, ...]

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

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Told:  # noqa: N802
        return _answer(self.gpus[index])

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> Slice:  # noqa: N802
        found = [part for gpu in self.gpus if gpu for part in gpu.slices if part.uuid == uuid]
        return _answer(found[0] if found else None)

    def nvmlDeviceGetUUID(self, handle: Told | Slice) -> str:  # noqa: N802
        return handle.uuid

    def nvmlDeviceGetName(self, handle: Told | Slice) -> str:  # noqa: N802
        return _answer(handle.name)

    def nvmlDeviceGetMemoryInfo(self, handle: Told | Slice, version: int = 1) -> Any:  # noqa: N802
        del version
        return SimpleNamespace(total=_answer(handle.memory_bytes), used=0)

    def nvmlDeviceGetCudaComputeCapability(self, handle: Told) -> tuple[int, int]:  # noqa: N802
        return _answer(handle.capability)

    def nvmlDeviceGetMigMode(self, handle: Told) -> list[int]:  # noqa: N802
        return [int(handle.mig), int(handle.mig)]

    def nvmlDeviceGetMaxMigDeviceCount(self, handle: Told) -> int:  # noqa: N802
        del handle
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: Told, index: int) -> Slice:  # noqa: N802
        return _answer(dict(enumerate(handle.slices)).get(index))


def _refuse(*arguments: Any) -> Any:
    del arguments
    raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)


def _answer(said: T | None) -> T:
    if said is None:
        _refuse()
    assert said is not None
    return said
