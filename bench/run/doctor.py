"""`bench doctor`: the machine, the environments and the cache as they are now."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from bench import paths
from bench.contract import wire
from bench.contract.errors import UserError
from bench.envs import environment, source_build
from bench.machine import counters, guard, hardware, nvml
from bench.machine.visible import GpuReport, visible_devices
from bench.process import server
from bench.run import ceilings


def lines() -> Iterator[str]:
    """What a person should know before a run, problems named."""
    for about, said in found():
        yield f"{about:<12} {said}"


def as_json() -> dict[str, Any]:
    """The same for a program: the devices as records describe them, the environments, and what was said."""
    said: dict[str, list[str]] = {}
    for about, text in found():
        said.setdefault(about, []).append(text)
    return {
        "devices": wire.plain(hardware.devices(("auto",))),
        "environments": [wire.plain(state) for state in states()],
        "said": said,
    }


def found() -> Iterator[tuple[str, str]]:
    """What there is to say, by subject: several things about some."""
    devices = hardware.devices(("auto",))
    for each in devices:
        yield "device", f"{each.name} ({each.device}), results go to results/{each.slug}"
    first = devices[0]
    ram = f"{first.ram_bytes / 2**30:.0f} GiB"
    yield "CPU", f"{first.cpu}, {first.physical_cores} cores, {ram}; computes in {first.compute_dtype}"
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    for line in gpus(nvml.query_gpus(), hidden, nvml.unavailable_reason(), nvcc=source_build.compiles_cuda()):
        yield "GPU", line
    yield "energy", counters.source(first.device)
    for line in ceilings.lines(first):
        yield "ceiling", line
    ready = guard.inspect(first.device)
    yield "idle", "yes" if ready.idle else f"no: {ready.reason}; figures taken now will be marked"
    yield "Python", f"{platform.python_version()} at {sys.executable}"
    folder = paths.cache_folder()
    free = f"{shutil.disk_usage(folder).free / 2**30:.0f} GiB free"
    yield "cache", f"{folder}, {free} (LLM_BENCH_CACHE moves it)"
    yield "compiler", shutil.which("g++") or "no g++: gptqmodel cannot compile its faster kernels"
    for line in environments():
        yield "environment", line
    for orphan in server.orphans():
        yield ("left behind", f"{orphan.name} server of a run that is gone, process {orphan.pid}; a run ends it")


def gpus(told: Sequence[GpuReport], setting: str | None, absent: str, *, nvcc: bool) -> Iterator[str]:
    """A line for each GPU and slice, and for each thing that a run on a GPU lacks.

    `setting` is CUDA_VISIBLE_DEVICES, `absent` why there is no driver, `nvcc` whether CUDA can be compiled.
    """
    usable = visible_devices(tuple(told), setting)
    for number, device in enumerate(usable):
        gpu, part = device.gpu, isinstance(device.cuda_id, str)
        memory = f"{gpu.memory_bytes / 2**30:.1f} GiB" if gpu.memory_bytes else "the machine's memory"
        mig = f"a MIG slice of GPU {gpu.index}" if part else "MIG off"
        yield (
            f"cuda:{number}: {gpu.name}, {memory}, compute capability {gpu.compute_capability}, "
            f"driver {gpu.driver}, {mig}"
        )
    seen = {device.gpu.index for device in usable}
    for one in told:
        if one.mig and not one.slices:
            yield f"not usable: {one.name} (GPU {one.index}) is in MIG mode and has no slice"
        elif one.index not in seen:
            yield f"not usable: {one.name} (GPU {one.index}) is not among CUDA_VISIBLE_DEVICES={setting}"
    if not told:
        yield f"none: {absent or 'the driver knows of no GPU'}"
    if not nvcc:
        yield "missing for llama.cpp on a GPU: nvcc, of NVIDIA's CUDA toolkit (it is compiled here)"
    if not usable:
        builds = ", ".join(name for name in environment.names() if environment.spec(name).varies)
        yield f"missing besides: builds for GPUs, which are made where there is one ({builds})"


@dataclass(frozen=True)
class EnvironmentState:
    """`reason` says what is wrong with one that is unusable."""

    name: str
    state: Literal["ready", "not built", "unusable"]
    reason: str = ""
    python: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)


def states() -> Iterator[EnvironmentState]:
    """Each environment as it is now."""
    for name in environment.names():
        try:
            ready = environment.find(name)
        except UserError as error:
            yield EnvironmentState(name, "unusable", str(error))
            continue
        if ready is None:
            yield EnvironmentState(name, "not built")
        else:
            yield EnvironmentState(name, "ready", "", ready.python, ready.versions)


def environments() -> Iterator[str]:
    """One line per environment: its state, and its versions when it is ready."""
    for each in states():
        name, versions = each.name, ", ".join(f"{k} {v}" for k, v in each.versions.items())
        build = f"not built (python -m bench envs build {name}; a run builds it when it needs it)"
        said = {"ready": f"ready, {each.python} ({versions})", "not built": build, "unusable": each.reason}
        yield f"{name}: {said[each.state]}"
