"""How fast this device reads memory and multiplies matrices in PyTorch: the best of several kernels and trials."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from bench.contract.record import Ceiling

_MIB = 1 << 20
_CPU_SETS = (1 * _MIB, 4 * _MIB, 16 * _MIB, 64 * _MIB, 256 * _MIB)
_GPU_SETS: tuple[int, ...] = (8 * _MIB, 64 * _MIB, 1024 * _MIB)
_CPU_SHAPES = ((256, 768, 256), (512, 512, 512), (1024, 1024, 1024), (1024, 256, 768), (2048, 2048, 2048))
_GPU_SHAPES = ((4096, 4096, 4096), (8192, 8192, 8192))
_GPU_DTYPES = {  # and the compute capability from which a GPU multiplies in it
    "float32": (0, 0),
    "float16": (0, 0),
    "int8": (7, 5),
    "bfloat16": (8, 0),
    "tf32": (8, 0),
    "fp8": (8, 9),
}
_SECONDS, _LEAST = 0.25, 3  # of trials for each kernel, and how many at the least
_COLUMNS = 1024
_WARM = 2

Kernel = Callable[[], Any]


def measure(device: str, threads: int) -> Ceiling:
    """The bandwidth for each working set, and operations a second by dtype; about ten seconds on a CPU.

    `threads`: one per physical core. The caller fills in which device that was.
    """
    import torch

    if device.startswith("cuda"):
        free_bytes, sets = torch.cuda.mem_get_info(device)[0], _GPU_SETS
    else:
        free_bytes, sets = math.inf, _CPU_SETS
        torch.set_num_threads(threads)
    started = datetime.now(UTC).isoformat(timespec="seconds")
    read = {size: max(_rates(size, device)) for size in sets if 3 * size < free_bytes}
    falling = {str(size): max(rate for other, rate in read.items() if other >= size) for size in read}
    versions = {"torch": torch.__version__}
    products = _products(device)
    return Ceiling("measured here", falling, products, threads=threads, environment=versions, started=started)


def _rates(size: int, device: str) -> Iterator[float]:
    """Bytes a second of each kernel over a set of `size` bytes; a copy reads half of it into the other."""
    import torch

    numbers = torch.ones(size // 4, device=device)
    half, rows = numbers.numel() // 2, numbers.view(-1, _COLUMNS)
    vector, left, right = torch.ones(_COLUMNS, device=device), numbers[:half], numbers[half:]
    kernels: tuple[Kernel, ...] = (
        lambda: torch.mv(rows, vector),
        numbers.sum,
        lambda: torch.dot(left, right),
        lambda: left.copy_(right),
    )
    for kernel in kernels:
        yield size / _best_s(kernel, device)


def _products(device: str) -> dict[str, float]:
    """Operations a second by dtype, for those that this device multiplies matrices in by itself."""
    rates = {}
    for dtype in _dtypes(device):
        with suppress(RuntimeError):  # this PyTorch has no such product here: the type has no figure
            rates[dtype] = max(
                2 * rows * inner * columns / _best_s(kernel, device)
                for rows, inner, columns in (_GPU_SHAPES if device.startswith("cuda") else _CPU_SHAPES)
                for kernel in _kernels(dtype, device, rows, inner, columns)
            )
    return rates


def _dtypes(device: str) -> list[str]:
    """On a CPU bfloat16 only where PyTorch multiplies in it by the CPU's own instructions."""
    import torch

    if device.startswith("cuda"):
        capability = torch.cuda.get_device_capability(device)
        return [dtype for dtype, least in _GPU_DTYPES.items() if capability >= least]
    native = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()  # noqa: SLF001
    return ["float32", "bfloat16"] if native else ["float32"]


def _kernels(dtype: str, device: str, rows: int, inner: int, columns: int) -> list[Kernel]:
    """The product of two matrices of this type, by each library that PyTorch has for it."""
    import torch

    if dtype == "int8":
        left, right = (torch.randint(-8, 8, (n, inner), dtype=torch.int8, device=device) for n in (rows, columns))
        return [lambda: torch._int_mm(left, right.t())]  # noqa: SLF001
    if dtype == "fp8":
        one = torch.ones((), device=device)
        left, right = (torch.randn(n, inner, device=device).to(torch.float8_e4m3fn) for n in (rows, columns))
        return [lambda: torch._scaled_mm(left, right.t(), one, one, out_dtype=torch.bfloat16)]  # noqa: SLF001
    if (dtype, device) == ("float32", "cpu"):  # which of the two is the faster depends on the CPU's maker
        left, right = torch.randn(rows, inner), torch.randn(columns, inner)
        kernels: list[Kernel] = [lambda: torch.mm(left, right.t())]
        if torch.backends.mkldnn.is_available():
            packed, weight = left.to_mkldnn(), right.to_mkldnn()
            kernels.append(lambda: torch._C._nn.mkldnn_linear(packed, weight))  # noqa: SLF001
        return kernels
    number = torch.float32 if dtype == "tf32" else getattr(torch, dtype)
    left, right = (torch.randn(*shape, device=device).to(number) for shape in ((rows, inner), (inner, columns)))
    out = torch.empty(rows, columns, device=device, dtype=number)

    def in_tf32() -> None:
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.mm(left, right, out=out)
        torch.backends.cuda.matmul.allow_tf32 = False

    return [in_tf32 if dtype == "tf32" else lambda: torch.mm(left, right, out=out)]


def _best_s(kernel: Kernel, device: str) -> float:
    """The shortest of the trials; on a GPU its own events time it, without what the launch costs."""
    trial = _on_gpu if device.startswith("cuda") else _on_cpu
    for _ in range(_WARM):
        kernel()
    times, until = [trial(kernel)], time.perf_counter() + _SECONDS
    while len(times) < _LEAST or time.perf_counter() < until:
        times.append(trial(kernel))
    return min(times)


def _on_cpu(kernel: Kernel) -> float:
    began = time.perf_counter()
    kernel()
    return time.perf_counter() - began


def _on_gpu(kernel: Kernel) -> float:
    import torch

    before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    before.record()
    kernel()
    after.record()
    after.synchronize()
    return float(before.elapsed_time(after)) / 1e3
