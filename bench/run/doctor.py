"""`bench doctor`: the machine, the environments and the cache as they are now."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from bench import paths
from bench.contract import wire
from bench.contract.errors import UserError
from bench.envs import disk, environment, source_build
from bench.machine import counters, guard, hardware, nvml
from bench.machine.visible import GpuReport, visible_devices
from bench.process import server
from bench.run import ceilings


def lines() -> Iterator[str]:
    """What a person should know before a run, problems named."""
    for subject, text in findings():
        yield f"{subject:<12} {text}"


def as_json() -> dict[str, Any]:
    """The same as JSON: the devices as records describe them, the environments, and the lines by subject."""
    texts: dict[str, list[str]] = {}
    for subject, text in findings():
        texts.setdefault(subject, []).append(text)
    return {
        "devices": wire.plain(hardware.devices(("auto",))),
        "environments": [wire.plain(state) for state in states()],
        "said": texts,
    }


def findings() -> Iterator[tuple[str, str]]:
    """(subject, text), several of some subjects."""
    devices = hardware.devices(("auto",))
    for device in devices:
        yield "device", f"{device.name} ({device.device}), results go to results/{device.slug}"
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


def gpus(reports: Sequence[GpuReport], setting: str | None, no_driver: str, *, nvcc: bool) -> Iterator[str]:
    """A line for each GPU and slice, and for each thing that a run on a GPU lacks.

    `setting` is CUDA_VISIBLE_DEVICES, `no_driver` why there is none, `nvcc` whether CUDA can be compiled.
    """
    usable = visible_devices(tuple(reports), setting)
    for number, device in enumerate(usable):
        gpu, part = device.gpu, isinstance(device.cuda_id, str)
        memory = f"{gpu.memory_bytes / 2**30:.1f} GiB" if gpu.memory_bytes else "the machine's memory"
        mig = f"a MIG slice of GPU {gpu.index}" if part else "MIG off"
        yield (
            f"cuda:{number}: {gpu.name}, {memory}, compute capability {gpu.compute_capability}, "
            f"driver {gpu.driver}, {mig}"
        )
    visible = {device.gpu.index for device in usable}
    for report in reports:
        if report.mig and not report.slices:
            yield f"not usable: {report.name} (GPU {report.index}) is in MIG mode and has no slice"
        elif report.index not in visible:
            yield f"not usable: {report.name} (GPU {report.index}) is not among CUDA_VISIBLE_DEVICES={setting}"
    if not reports:
        yield f"none: {no_driver or 'the driver knows of no GPU'}"
    if not nvcc:
        yield "missing for llama.cpp on a GPU: nvcc, of NVIDIA's CUDA toolkit (it is compiled here)"
    if not usable:
        builds = ", ".join(name for name in environment.names() if environment.spec(name).varies)
        yield f"also missing: builds for GPUs, which are made where there is one ({builds})"


@dataclass(frozen=True)
class EnvironmentState:
    """`reason` says what is wrong with one that is unusable."""

    name: str
    state: Literal["ready", "not built", "unusable"]
    reason: str = ""
    python: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    size_bytes: int = 0  # on disk, what others link to included; 0 of an interpreter of the user's, or not looked at


def states(*, sizes: bool = False) -> Iterator[EnvironmentState]:
    """Each environment as it is now; with its size, which takes seconds."""
    for name in environment.names():
        try:
            env = environment.find(name)
        except UserError as error:
            yield EnvironmentState(name, "unusable", str(error))
        else:
            if env is None:
                yield EnvironmentState(name, "not built")
                continue
            folder = environment.spec(name).folder
            built = sizes and Path(env.python).is_relative_to(folder)
            size = disk.size_bytes(folder) if built else 0
            yield EnvironmentState(name, "ready", "", env.python, env.versions, size)


def environments(*, sizes: bool = False) -> Iterator[str]:
    """One line per environment: its state, and its versions when it is ready; then what all of them take."""
    for env in states(sizes=sizes):
        versions = ", ".join(f"{k} {v}" for k, v in env.versions.items())
        text = {
            "ready": f"ready{f', {disk.shown(env.size_bytes)}' if env.size_bytes else ''}, {env.python} ({versions})",
            "not built": f"not built (python -m bench envs build {env.name}; a run builds it when it needs it)",
            "unusable": env.reason,
        }
        yield f"{env.name}: {text[env.state]}"
    folders = [paths.cache() / name for name in ("envs", "built", "uv")]
    if sizes and any(folder.is_dir() for folder in folders):
        yield (
            f"together {disk.shown(disk.size_bytes(*folders))} on disk in {paths.cache()}, a file that several share "
            "once, with older builds and downloads (python -m bench envs prune removes what no suite needs)"
        )
