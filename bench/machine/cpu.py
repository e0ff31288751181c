"""What the CPU is called, what it can do and how much of it is ours; Linux reports most of it, macOS some."""

from __future__ import annotations

import math
import os
import platform
import subprocess
from pathlib import Path

import psutil

ISA = (
    *("avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
    *("amx_tile", "amx_int8", "amx_bf16", "asimd", "asimddp", "i8mm", "bf16", "sve", "sve2"),
)
_INFO = Path("/proc/cpuinfo")
_TOPOLOGY = Path("/sys/devices/system/cpu")
_CGROUP = Path("/sys/fs/cgroup")


def text(path: Path) -> str:
    """A small kernel file, or nothing where it is missing or closed to us."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def name() -> str:
    """The model name as /proc/cpuinfo or sysctl gives it; the architecture where neither does."""
    if platform.system() == "Darwin":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        try:
            out = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False).stdout.strip()
        except (OSError, subprocess.SubprocessError):
            out = ""
        return out or platform.machine()
    info = fields(text(_INFO))
    return info.get("model name") or info.get("hardware") or platform.processor() or platform.machine()


def isa() -> tuple[str, ...]:
    """The instruction sets that decide which kernels run, by Linux's names; Arm's asimd is called neon."""
    info = fields(text(_INFO))
    flags = set((info.get("flags") or info.get("features") or "").split())
    if platform.machine() in {"arm64", "aarch64"}:
        flags.add("asimd")
    return tuple("neon" if flag == "asimd" else flag for flag in ISA if flag in flags)


def fields(info: str) -> dict[str, str]:
    """The first processor's entry of /proc/cpuinfo, keys in lower case."""
    pairs = (line.split(":", 1) for line in info.splitlines() if ":" in line)
    return {key.strip().lower(): value.strip() for key, value in reversed(list(pairs))}


def physical_cores() -> int:
    """Cores this process may run on, hyperthreads counted once, no more than a cgroup's CPU quota allows."""
    usable = affinity()
    siblings = {text(_TOPOLOGY / f"cpu{i}/topology/thread_siblings_list").strip() for i in usable}
    cores = len(siblings) if siblings and "" not in siblings else psutil.cpu_count(logical=False)
    cores = min(cores or len(usable), len(usable))
    quota = text(_CGROUP / "cpu.max").split()
    if len(quota) == 2 and quota[0].isdigit():
        cores = min(cores, math.ceil(int(quota[0]) / int(quota[1])))
    return max(1, cores)


def affinity() -> tuple[int, ...]:
    """Logical CPUs this process may run on; all of them where the system has no affinity."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(psutil.cpu_count() or 1))


def ram_bytes() -> int:
    """Memory this process may use: what is installed, or less if a cgroup says so."""
    limit = text(_CGROUP / "memory.max").strip()
    total = psutil.virtual_memory().total
    return min(total, int(limit)) if limit.isdigit() else total
