"""Weights as they are published: plain floats in safetensors, with the config.json of transformers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.contract.record import Audit, Parameters, Source
from bench.formats import checkpoint
from bench.formats import folder as model_folder
from bench.formats.checkpoint import Checkpoint, architecture
from bench.formats.folder import Tensor

__all__ = ["architecture"]  # hooks that are shared

FORMATS = ("hf",)
FLOATS = "all"
FILES = ("*.safetensors",)
# A float is zero when all its bits but the sign are.
_BITS = {"F64": 64, "F32": 32, "BF16": 16, "F16": 16}
_GROUP = 4
_ROWS_BYTES = 64 << 20


def detect(folder: Path) -> str | None:
    return "hf" if checkpoint.quant_method(folder) == "" else None


def source(name: str, folder: Path) -> Source:
    model = checkpoint.read(folder)
    return Source(name, checkpoint.linear_shapes(model), model.config)


def audit(name: str, folder: Path, reference: Mapping[str, tuple[int, int]] | None, *, zeros: bool) -> Audit:
    """Only weights that are plain floats can be zero, as pruning leaves them."""
    model = checkpoint.read(folder)
    linears = checkpoint.linears(model, {}, reference)
    counted = checkpoint.audit(name, model, linears, reference, quantized=False)
    fractions = _zero_fractions(model, linears) if zeros else None
    if fractions is None:
        return counted
    return replace(counted, zero_fraction=fractions[0], two_of_four_fraction=fractions[1])


def parameters(folder: Path) -> Parameters:
    model = checkpoint.read(folder)
    return checkpoint.count_parameters(model, checkpoint.linear_shapes(model))


def _zero_fractions(model: Checkpoint, layers: Iterable[str]) -> tuple[float, float] | None:
    """Of the weights of these layers the fraction that is zero, and of their groups of four that half is.

    A group is four inputs next to each other, of which sparse tensor cores skip two (2:4, NVIDIA Ampere and
    later). None where a layer has no weight that is stored as plain floats.
    """
    remaining = {f"{layer}.weight" for layer in layers}
    zeros = elements = halves = groups = 0
    for file in model_folder.weight_files(model.folder):
        for name, tensor in model_folder.read_header(file).tensors.items():
            if name not in remaining:
                continue
            if tensor.dtype not in _BITS or len(tensor.shape) != 2:
                return None
            remaining.remove(name)
            is_transposed = checkpoint.is_transposed(model, name.removesuffix(".weight"))
            for is_zero in _rows(file, tensor, transposed=is_transposed):
                zeros, elements = zeros + int(is_zero.sum()), elements + is_zero.size
                whole = is_zero[:, : is_zero.shape[1] // _GROUP * _GROUP].reshape(-1, _GROUP)
                halves, groups = halves + int((whole.sum(axis=1) >= _GROUP // 2).sum()), groups + len(whole)
    if remaining or not elements:
        return None
    return zeros / elements, halves / groups if groups else 0.0


def _rows(file: Path, tensor: Tensor, *, transposed: bool) -> Iterator[Any]:
    """Which numbers are zero: bool arrays [rows, inputs], some rows at a time."""
    import numpy as np

    bits = _BITS[tensor.dtype]
    stored = np.memmap(file, dtype=f"<u{bits // 8}", mode="r", offset=tensor.offset, shape=tensor.shape)
    stored = stored.T if transposed else stored
    step = max(1, _ROWS_BYTES * stored.shape[0] // max(tensor.size, 1))
    for start in range(0, stored.shape[0], step):
        yield (stored[start : start + step] & ((1 << (bits - 1)) - 1)) == 0
