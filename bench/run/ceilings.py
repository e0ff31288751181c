"""A device's peak bandwidth and FLOP/s: by its vendor's data sheet, and as measured here, once and while idle."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench import paths
from bench.contract import wire
from bench.contract.job import Job
from bench.contract.record import Ceiling, Hardware
from bench.envs import environment
from bench.machine import gpus, guard
from bench.process import supervisor
from bench.store import Store

OFF = "LLM_BENCH_CEILING"  # off: measure none
ENV = "hf"
_TIMEOUT_S = 300.0
_GIGA, _MIB = 1e9, 2**20


def find(hardware: Hardware, store: Store | None = None) -> Ceiling | None:
    """The ceiling that was measured on this device before."""
    file = _file(hardware)
    ceiling = wire.build(Ceiling, json.loads(file.read_text())) if file.is_file() else None
    if ceiling is None and store is not None:
        ceiling = store.ceiling(hardware)
    return ceiling if ceiling is not None and _is_of(ceiling, hardware) else None


def ensure(hardware: Hardware, store: Store, warn: Callable[[str], None]) -> Ceiling | None:
    """The measured ceiling, measured now if there is none and it can be; on disk with the records too."""
    ceiling = find(hardware, store) or _measure_if_idle(hardware, warn)
    if ceiling is not None:
        if not (file := _file(hardware)).is_file():
            wire.write(file, wire.dumps(ceiling, indent=1) + "\n")
        store.put_ceiling(hardware, ceiling)
    return ceiling


def measure(hardware: Hardware, warn: Callable[[str], None]) -> Ceiling | None:
    """The ceiling measured now, even on a busy device; None where the environment is not ready."""
    env = environment.find(ENV)
    if env is None:
        return None
    options = {"threads": hardware.physical_cores}
    job = Job("ceiling", plugin="", folder="", device=hardware.device, options=options)
    answer = supervisor.run(job, env, timeout_s=_TIMEOUT_S).answer
    if answer.error:
        warn(f"the ceilings of {hardware.name} could not be measured: {paths.scrubbed(answer.error)}")
        return None
    ceiling = wire.build(Ceiling, answer.facts)
    return replace(
        ceiling,
        device=hardware.name,
        isa=hardware.isa,
        threads=hardware.physical_cores,
        environment={**ceiling.environment, **_driver(hardware)},
    )


def facts(hardware: Hardware, measured: Ceiling | None) -> dict[str, Any]:
    """`ceiling` of a record: the vendor's and the measured one; empty where there is neither."""
    ceilings = {
        source: {"source": one.source, "bandwidth": dict(one.bandwidth), "flop_per_s": dict(one.flop_per_s)}
        for source, one in _by_source(hardware, measured).items()
    }
    return {"ceiling": ceilings} if ceilings else {}


def lines(hardware: Hardware) -> Iterator[str]:
    """The device's ceilings for a person, or how to get them measured."""
    ceilings = _by_source(hardware, find(hardware))
    yield from (f"{source}: {_line(ceiling)}" for source, ceiling in ceilings.items())
    if not ceilings:
        yield f"none: a run measures it on an idle device with the environment {ENV} (bench envs build {ENV})"


def _by_source(hardware: Hardware, measured: Ceiling | None) -> dict[str, Ceiling]:
    """That of the data sheet, of a GPU that the table knows, and the measured one; each where there is one."""
    vendor = next((gpus.peak(gpu.name, hardware.memory_bytes) for gpu in hardware.gpus), None)
    return {name: one for name, one in (("vendor", vendor), ("measured", measured)) if one is not None}


def _line(ceiling: Ceiling) -> str:
    reads = [
        f"{rate / _GIGA:,.0f} GB/s{f' of {int(size) / _MIB:g} MiB' if int(size) else ''}"
        for size, rate in sorted(ceiling.bandwidth.items(), key=lambda pair: int(pair[0]))
    ]
    rates = [f"{dtype} {rate / _GIGA:,.0f} GFLOP/s" for dtype, rate in ceiling.flop_per_s.items()]
    return "; ".join((", ".join(reads), ", ".join(rates), ceiling.source))


def _measure_if_idle(hardware: Hardware, warn: Callable[[str], None]) -> Ceiling | None:
    if os.environ.get(OFF) == "off" or environment.find(ENV) is None:
        return None
    if not (ready := guard.inspect(hardware.device)).idle:
        warn(f"the ceilings of {hardware.name} are not measured now ({ready.reason}): no MBU and MFU by them")
        return None
    return measure(hardware, warn)


def _is_of(ceiling: Ceiling, hardware: Hardware) -> bool:
    return (
        (ceiling.device, ceiling.threads) == (hardware.name, hardware.physical_cores)
        and tuple(ceiling.isa) == tuple(hardware.isa)
        and ceiling.environment.get("driver", "") == _driver(hardware).get("driver", "")
    )


def _driver(hardware: Hardware) -> dict[str, str]:
    return {"driver": hardware.gpus[0].driver} if hardware.gpus else {}


def _file(hardware: Hardware) -> Path:
    key = [hardware.name, hardware.isa, hardware.physical_cores, _driver(hardware)]
    return paths.cache_folder("ceilings") / f"{hardware.slug}-{wire.digest(key)}.json"
