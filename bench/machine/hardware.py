"""Which device a cell runs on, named so that alike machines share a results folder and no host is told."""

from __future__ import annotations

import math
import platform
import re

from bench.contract.errors import UserError
from bench.contract.record import Gpu, Hardware
from bench.machine import cpu, nvml

_GIB = 1024**3


def detect(device: str) -> Hardware:
    """The machine as seen from "cpu", "cuda:N" ("cuda" is "cuda:0") or "auto": the first GPU, else the CPU.

    UserError for a device that is not there or a word that is none; it says what there is.
    """
    gpus = nvml.gpus() if device != "cpu" else ()
    found = resolve(device, gpus)
    return _cpu() if found == "cpu" else _gpu(found, gpus)


def resolve(device: str, gpus: tuple[Gpu, ...]) -> str:
    """The device that "auto" and "cuda" mean; UserError for what these GPUs cannot give."""
    if device == "auto":
        return "cuda:0" if gpus else "cpu"
    if device == "cpu":
        return device
    match = re.fullmatch(r"cuda(?::(\d+))?", device)
    there = ", ".join(["cpu", *(f"cuda:{i} ({gpu.name})" for i, gpu in enumerate(gpus))])
    if match is None:
        raise UserError(f"unknown device '{device}': say auto, cpu or cuda:N (here: {there})")
    number = int(match[1] or 0)
    if number >= len(gpus):
        raise UserError(f"there is no {device} on this machine (here: {there})")
    return f"cuda:{number}"


def cpu_dtype(isa: tuple[str, ...]) -> str:
    """bfloat16 with AMX, else float32.

    PyTorch emulates bfloat16 without AVX512_BF16 or AMX: measured 25 times slower than float32 in training a
    5.8M model with AVX2. AVX512_BF16 alone stays at float32: it has a dot product, not the kernels that make
    it pay.
    """
    return "bfloat16" if "amx_bf16" in isa else "float32"


def cuda_dtype(compute_capability: str) -> str:
    """bfloat16 from compute capability 8.0 (Ampere) on, float16 before: older cores only emulate bfloat16."""
    return "bfloat16" if float(compute_capability) >= 8.0 else "float16"


def slug_of(name: str) -> str:
    """A device's name as part of a folder name: "Intel(R) Xeon(R) CPU @ 2.20GHz" is "intel-xeon"."""
    name = re.sub(r"\((?:r|tm|c)\)", " ", name, flags=re.IGNORECASE)
    name = re.sub(
        r"@.*|\b\d+-core\b|\bwith .* graphics\b|\b(?:cpu|processor)\b", " ", name, flags=re.IGNORECASE
    )
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:48].rstrip("-") or "unknown"


def _cpu() -> Hardware:
    name, cores, ram, isa = cpu.name(), cpu.physical_cores(), cpu.ram_bytes(), cpu.isa()
    return Hardware(
        device="cpu",
        slug=f"cpu-{slug_of(name)}-{cores}c-{round(ram / _GIB)}gib",
        name=name,
        memory_bytes=ram,
        cpu=name,
        physical_cores=cores,
        ram_bytes=ram,
        isa=isa,
        compute_dtype=cpu_dtype(isa),
        system=_system(),
    )


def _gpu(device: str, gpus: tuple[Gpu, ...]) -> Hardware:
    gpu = gpus[int(device.partition(":")[2])]
    memory = (
        gpu.memory_bytes or cpu.ram_bytes()
    )  # a GPU that shares the machine's memory reports none of its own
    return Hardware(
        device=device,
        slug=f"{slug_of(gpu.name)}-{math.ceil(memory / _GIB)}gib-x1",
        name=gpu.name,
        memory_bytes=memory,
        cpu=cpu.name(),
        physical_cores=cpu.physical_cores(),
        ram_bytes=cpu.ram_bytes(),
        isa=cpu.isa(),
        compute_dtype=cuda_dtype(gpu.compute_capability),
        system=_system(),
        gpus=(gpu,),
    )


def _system() -> str:
    """Kernel and architecture; platform.node(), the host's name, stays out."""
    return f"{platform.system()} {platform.release()} {platform.machine()}"
