"""How many of a model's linear weights are zero, counted in the stored numbers themselves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from bench.formats import folder as model_folder
from bench.formats.folder import Tensor

# A float is zero when all its bits but the sign are.
_BITS = {"F64": 64, "F32": 32, "BF16": 16, "F16": 16}
_GROUP = 4
_ROWS_BYTES = 64 << 20


def count(folder: Path, layers: Iterable[str]) -> tuple[float, float] | None:
    """Of the weights of these layers the fraction that is zero, and of their groups of four that half is.

    A group is four inputs next to each other, of which sparse tensor cores skip two (2:4, NVIDIA Ampere and
    later). None where a layer has no weight that is stored as plain floats.
    """
    remaining = {f"{layer}.weight" for layer in layers}
    zeros = elements = halves = groups = 0
    for file in model_folder.weight_files(folder):
        for name, tensor in model_folder.read_header(file).tensors.items():
            if name not in remaining:
                continue
            if tensor.dtype not in _BITS or len(tensor.shape) != 2:
                return None
            remaining.remove(name)
            for is_zero in _rows(file, tensor):
                zeros, elements = zeros + int(is_zero.sum()), elements + is_zero.size
                whole = is_zero[:, : is_zero.shape[1] // _GROUP * _GROUP].reshape(-1, _GROUP)
                halves, groups = halves + int((whole.sum(axis=1) >= _GROUP // 2).sum()), groups + len(whole)
    if remaining or not elements:
        return None
    return zeros / elements, halves / groups if groups else 0.0


def _rows(file: Path, tensor: Tensor) -> Iterator[Any]:
    """Which numbers are zero: bool arrays [rows, inputs], some rows at a time."""
    import numpy as np

    bits = _BITS[tensor.dtype]
    stored = np.memmap(file, dtype=f"<u{bits // 8}", mode="r", offset=tensor.offset, shape=tensor.shape)
    step = max(1, _ROWS_BYTES * tensor.shape[0] // max(tensor.size, 1))
    for start in range(0, tensor.shape[0], step):
        yield (stored[start : start + step] & ((1 << (bits - 1)) - 1)) == 0
