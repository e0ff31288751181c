"""`bench doctor`: the machine, the environments and the cache as they are now."""

from __future__ import annotations

import platform
import shutil
import sys
from collections.abc import Iterator

from bench.contract.errors import UserError
from bench.machine import guard, hardware
from bench.run import ceilings, envs, paths, serving


def lines() -> Iterator[str]:
    """What a person should know before a run, problems named."""
    found = hardware.detect("auto")
    yield f"device       {found.name} ({found.device}), results go to results/{found.slug}"
    ram = f"{found.ram_bytes / 2**30:.0f} GiB"
    yield f"CPU          {found.cpu}, {found.physical_cores} cores, {ram}; computes in {found.compute_dtype}"
    yield f"GPUs         {', '.join(g.name for g in found.gpus) or 'none found by NVML'}"
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
