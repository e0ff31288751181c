"""Which device a cell runs on, named so that equal machines share a results folder and no host is named."""

from __future__ import annotations

import math
import platform
import re
from collections.abc import Sequence
from dataclasses import replace

from bench.contract.errors import UserError
from bench.contract.record import Gpu, Hardware
from bench.machine import cpu, nvml

_GIB = 1024**3


def devices(names: Sequence[str]) -> tuple[Hardware, ...]:
    """The machine as each device that the names stand for has it, each once and in their order.

    Equal devices would share a results folder: the first keeps the plain slug, the others add their number.
    """
    return describe(names, nvml.gpus() if any(name != "cpu" for name in names) else ())


def describe(names: Sequence[str], gpus: tuple[Gpu, ...]) -> tuple[Hardware, ...]:
    """`devices` on a machine with these GPUs."""
    machines: list[Hardware] = []
    for device in dict.fromkeys(device for name in names for device in resolve(name, gpus)):
        machine = _hardware(device, gpus)
        if any(machine.slug == other.slug for other in machines):
            machine = replace(machine, slug=f"{machine.slug}-gpu{device.partition(':')[2]}")
        machines.append(machine)
    return tuple(machines)


def detect(device: str) -> Hardware:
    """The machine with one device: the first that the name stands for."""
    return devices((device,))[0]


def resolve(device: str, gpus: tuple[Gpu, ...]) -> tuple[str, ...]:
    """The devices that a name stands for; UserError for one that is not here, with what is.

    "auto": the first GPU of each name, memory and MIG profile, "all": every GPU, the CPU where there is none;
    "cpu"; "cuda:N", "cuda" being "cuda:0".
    """
    numbered = {f"cuda:{number}": gpu for number, gpu in enumerate(gpus)}
    if device == "all":
        return tuple(numbered) or ("cpu",)
    if device == "auto":
        first = {(gpu.name, gpu.memory_bytes): name for name, gpu in reversed(numbered.items())}
        return tuple(name for name in numbered if name in first.values()) or ("cpu",)
    if device == "cpu":
        return (device,)
    match = re.fullmatch(r"cuda(?::(\d+))?", device)
    available = ", ".join(["cpu", *(f"{name} ({gpu.name})" for name, gpu in numbered.items())])
    if match is None:
        raise UserError(f"unknown device '{device}': expected auto, all, cpu or cuda:N (available: {available})")
    if (name := f"cuda:{int(match[1] or 0)}") not in numbered:
        raise UserError(f"no device '{device}' on this machine (available: {available})")
    return (name,)


def cpu_dtype(isa: tuple[str, ...]) -> str:
    """bfloat16 with AMX, else float32.

    PyTorch emulates bfloat16 without AVX512_BF16 or AMX: measured 25 times slower than float32 in training a 5.8M model
    with AVX2. AVX512_BF16 alone stays at float32: it has a dot product, not the kernels that make it pay.
    """
    return "bfloat16" if "amx_bf16" in isa else "float32"


def cuda_dtype(compute_capability: str) -> str:
    """bfloat16 from compute capability 8.0 (Ampere) on, float16 before: older cores only emulate bfloat16."""
    return "bfloat16" if float(compute_capability) >= 8.0 else "float16"


def slug_of(name: str) -> str:
    """For folder names: "Intel(R) Xeon(R) CPU @ 2.20GHz" is "intel-xeon". A MIG profile is never cut off."""
    name, mig, profile = name.partition(" MIG")
    name = re.sub(r"\((?:r|tm|c)\)", " ", name, flags=re.IGNORECASE)
    name = re.sub(r"@.*|\b\d+-core\b|\bwith .* graphics\b|\b(?:cpu|processor)\b", " ", name, flags=re.IGNORECASE)
    return (_slug(name)[:48].rstrip("-") or "unknown") + (f"-{_slug(mig + profile)}" if mig else "")


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _hardware(device: str, gpus: tuple[Gpu, ...]) -> Hardware:
    name, cores, ram, isa = cpu.name(), cpu.physical_cores(), cpu.ram_bytes(), cpu.isa()
    machine = Hardware(
        device="cpu",
        slug=f"cpu-{slug_of(name)}-{cores}c-{round(ram / _GIB)}gib",
        name=name,
        memory_bytes=ram,
        cpu=name,
        physical_cores=cores,
        ram_bytes=ram,
        isa=isa,
        compute_dtype=cpu_dtype(isa),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",  # without the host's name
    )
    if device == "cpu":
        return machine
    gpu = gpus[int(device.partition(":")[2])]
    memory = gpu.memory_bytes or ram  # a GPU that shares the machine's memory reports none of its own
    return replace(
        machine,
        device=device,
        slug=f"{slug_of(gpu.name)}-{math.ceil(memory / _GIB)}gib-x1",
        name=gpu.name,
        memory_bytes=memory,
        compute_dtype=cuda_dtype(gpu.compute_capability),
        gpus=(gpu,),
    )
