"""How fast this device reads memory and multiplies matrices, measured: what no cell on it can exceed.

Runs in a worker that has PyTorch. Each figure is the best of several kernels and of many trials, since a
ceiling is what the device can do, not what it does on average.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from bench.contract.record import Ceiling

_MIB = 1 << 20
_CPU_SETS = (1 * _MIB, 4 * _MIB, 16 * _MIB, 64 * _MIB, 256 * _MIB)
_GPU_SETS = (8 * _MIB, 64 * _MIB, 1024 * _MIB)
_CPU_SHAPES = ((256, 768, 256), (512, 512, 512), (1024, 1024, 1024), (1024, 256, 768), (2048, 2048, 2048))
_GPU_SHAPES = ((4096, 4096, 4096), (8192, 8192, 8192))
_SECONDS, _LEAST = 0.25, 3  # of trials for each kernel, and how many at the least
_COLUMNS = 1024
_WARM = 2

Kernel = Callable[[], Any]
Kernels = Callable[[int, int, int], list[Kernel]]  # of rows, inner size and columns


def measure(device: str, threads: int) -> Ceiling:
    """The bandwidth for each working set, and operations a second by dtype; about ten seconds on a CPU.

    `threads`: one per physical core. The caller fills in which device that was.
    """
    import torch

    on_gpu = device.startswith("cuda")
    if not on_gpu:
        torch.set_num_threads(threads)
    started = datetime.now(UTC).isoformat(timespec="seconds")
    sets = [size for size in (_GPU_SETS if on_gpu else _CPU_SETS) if _fits(size, device)]
    read = {size: max(_rates(size, device)) for size in sets}
    falling = {size: max(rate for other, rate in read.items() if other >= size) for size in sets}
    return Ceiling(
        "measured here",
        {str(size): rate for size, rate in falling.items()},
        _products(device),
        threads=threads,
        environment={"torch": torch.__version__},
        started=started,
    )


def _fits(size: int, device: str) -> bool:
    import torch

    return not device.startswith("cuda") or 3 * size < torch.cuda.mem_get_info(device)[0]


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
    for dtype, kernels in _dtypes(device).items():
        with suppress(RuntimeError):  # this PyTorch has no such product here: the type has no figure
            rates[dtype] = max(_products_per_s(kernels, device))
    return rates


def _products_per_s(kernels: Kernels, device: str) -> Iterator[float]:
    for rows, inner, columns in _GPU_SHAPES if device.startswith("cuda") else _CPU_SHAPES:
        for kernel in kernels(rows, inner, columns):
            yield 2 * rows * inner * columns / _best_s(kernel, device)


def _dtypes(device: str) -> dict[str, Kernels]:
    import torch

    if not device.startswith("cuda"):
        native = {"bfloat16": _plain(torch.bfloat16, device)} if _has_bfloat16() else {}
        return {"float32": _float32_cpu, **native}
    major, minor = torch.cuda.get_device_capability(device)
    dtypes = {"float32": _plain(torch.float32, device), "float16": _plain(torch.float16, device)}
    if (major, minor) >= (7, 5):
        dtypes["int8"] = _int8
    if major >= 8:
        dtypes |= {"bfloat16": _plain(torch.bfloat16, device), "tf32": _tf32}
    if (major, minor) >= (8, 9):
        dtypes["fp8"] = _fp8
    return dtypes


def _has_bfloat16() -> bool:
    """Whether PyTorch multiplies in bfloat16 by the CPU's own instructions rather than by emulation."""
    import torch

    return bool(torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported())  # noqa: SLF001


def _plain(dtype: Any, device: str) -> Kernels:
    import torch

    def kernels(rows: int, inner: int, columns: int) -> list[Kernel]:
        left = torch.randn(rows, inner, device=device).to(dtype)
        right = torch.randn(inner, columns, device=device).to(dtype)
        out = torch.empty(rows, columns, device=device, dtype=dtype)
        return [lambda: torch.mm(left, right, out=out)]

    return kernels


def _float32_cpu(rows: int, inner: int, columns: int) -> list[Kernel]:
    """By the two libraries that PyTorch has for it: which is the faster depends on the CPU's maker."""
    import torch

    left, right = torch.randn(rows, inner), torch.randn(columns, inner)
    kernels: list[Kernel] = [lambda: torch.mm(left, right.t())]
    if torch.backends.mkldnn.is_available():
        packed, weight = left.to_mkldnn(), right.to_mkldnn()
        kernels.append(lambda: torch._C._nn.mkldnn_linear(packed, weight))  # noqa: SLF001
    return kernels


def _tf32(rows: int, inner: int, columns: int) -> list[Kernel]:
    import torch

    (product,) = _plain(torch.float32, "cuda")(rows, inner, columns)

    def kernel() -> None:
        torch.backends.cuda.matmul.allow_tf32 = True
        product()
        torch.backends.cuda.matmul.allow_tf32 = False

    return [kernel]


def _int8(rows: int, inner: int, columns: int) -> list[Kernel]:
    import torch

    left = torch.randint(-8, 8, (rows, inner), dtype=torch.int8, device="cuda")
    right = torch.randint(-8, 8, (columns, inner), dtype=torch.int8, device="cuda")
    return [lambda: torch._int_mm(left, right.t())]  # noqa: SLF001


def _fp8(rows: int, inner: int, columns: int) -> list[Kernel]:
    import torch

    one = torch.ones((), device="cuda")
    left = torch.randn(rows, inner, device="cuda").to(torch.float8_e4m3fn)
    right = torch.randn(columns, inner, device="cuda").to(torch.float8_e4m3fn)
    return [lambda: torch._scaled_mm(left, right.t(), one, one, out_dtype=torch.bfloat16)]  # noqa: SLF001


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
