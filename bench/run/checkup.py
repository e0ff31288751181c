"""`bench doctor`: the machine, the environments and the cache as they are now."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Iterator, Sequence

from bench.contract.errors import UserError
from bench.machine import counters, guard, hardware, nvml
from bench.machine.visible import Told, places
from bench.run import ceilings, envs, paths, serving, sources


def lines() -> Iterator[str]:
    """What a person should know before a run, problems named."""
    devices = hardware.devices(("auto",))
    for each in devices:
        yield f"device       {each.name} ({each.device}), results go to results/{each.slug}"
    found = devices[0]
    ram = f"{found.ram_bytes / 2**30:.0f} GiB"
    yield f"CPU          {found.cpu}, {found.physical_cores} cores, {ram}; computes in {found.compute_dtype}"
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    for line in gpus(nvml.told(), hidden, nvml.absent(), nvcc=sources.compiles_cuda()):
        yield f"GPU          {line}"
    yield f"energy       {counters.source(found.device)}"
    for line in ceilings.lines(found):
        yield f"ceiling      {line}"
    ready = guard.inspect(found.device)
    yield f"idle         {'yes' if ready.idle else f'no: {ready.reason}; figures taken now will be marked'}"
    yield f"Python       {platform.python_version()} at {sys.executable}"
    folder = paths.cache_folder()
    free = f"{shutil.disk_usage(folder).free / 2**30:.0f} GiB free"
    yield f"cache        {folder}, {free} (LLM_BENCH_CACHE moves it)"
    yield f"compiler     {shutil.which('g++') or 'no g++: gptqmodel cannot compile its faster kernels'}"
    for line in environments():
        yield f"environment  {line}"
    for orphan in serving.orphans():
        yield f"left behind  {orphan.name} server of a run that is gone, process {orphan.pid}; a run ends it"


def gpus(told: Sequence[Told], setting: str | None, absent: str, *, nvcc: bool) -> Iterator[str]:
    """A line for each GPU and slice, and for each thing that a run on a GPU lacks.

    `setting` is CUDA_VISIBLE_DEVICES, `absent` why there is no driver, `nvcc` whether CUDA can be compiled.
    """
    usable = places(tuple(told), setting)
    for number, place in enumerate(usable):
        gpu, part = place.gpu, isinstance(place.word, str)
        memory = f"{gpu.memory_bytes / 2**30:.1f} GiB" if gpu.memory_bytes else "the machine's memory"
        mig = f"a MIG slice of GPU {gpu.index}" if part else "MIG off"
        yield (
            f"cuda:{number}: {gpu.name}, {memory}, compute capability {gpu.compute_capability}, "
            f"driver {gpu.driver}, {mig}"
        )
    seen = {place.gpu.index for place in usable}
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
        builds = ", ".join(name for name in envs.names() if envs.spec(name).varies)
        yield f"missing besides: builds for GPUs, which are made where there is one ({builds})"


def environments() -> Iterator[str]:
    """One line per environment: its state, and its versions when it is ready."""
    for name in envs.names():
        try:
            ready = envs.find(name)
        except UserError as error:
            yield f"{name}: {error}"
            continue
        if ready is None:
            yield f"{name}: not built (python -m bench envs build {name}; a run builds it when it needs it)"
            continue
        versions = ", ".join(f"{k} {v}" for k, v in ready.versions.items())
        yield f"{name}: ready, {ready.python} ({versions})"
