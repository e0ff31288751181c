"""Weights stored as floats of 4 and 8 bits with a scale for each block, unpacked as compressed-tensors does.

NVFP4: e2m1, 16 in a block, whose scale is an e4m3 divided by a float32 of the whole tensor (the global scale).
MXFP4, MXFP8: e2m1 or e4m3, 32 in a block, whose scale is a power of two (OCP Microscaling Formats 1.0). FP8: e4m3, a
scale for each block of rows and columns, row or tensor. compressed-tensors 0.19 unpacks the first three to bfloat16,
whatever the model computes in; FP8 here in float32, which it does where the scales have been cast to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import ceil
from pathlib import Path
from typing import Any

from bench.formats import folder as model_folder
from bench.formats.checkpoint import Checkpoint
from bench.formats.folder import Tensor

_E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
_POWERS = ("U8", "F8_E8M0")  # how exponents of powers of two are stored
_SCALES = ("weight_scale", "weight_scale_inv")  # of compressed-tensors, of block FP8 as DeepSeek publishes it
_TYPES = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}
_BLOCK = (128, 128)
_LARGEST_BLOCK = 1 << 20
_ROWS_BYTES = 64 << 20

Stored = Mapping[str, tuple[Path, Tensor]]  # the parts of one layer by name, each with the file that has it


@dataclass(frozen=True)
class Layer:
    """A linear layer [outputs, inputs] of the format `name`, with a scale for each `block` [outputs, inputs]."""

    name: str
    shape: tuple[int, int]
    block: tuple[int, int]
    values: str  # the part that has the values
    scales: str

    @property
    def bits(self) -> int:
        return 4 if self.name.endswith("fp4") else 8


def layer(parts: Mapping[str, Tensor], block: tuple[int, int] = _BLOCK) -> Layer | None:
    """What the parts of a module are, by their types and shapes; None where they are no floats with scales.

    `block`: of FP8 alone, whose last blocks in a row and column may be smaller, so that shapes do not tell.
    """
    scales = next((name for name in _SCALES if name in parts), "")
    values = "weight_packed" if "weight_packed" in parts else "weight"
    if not scales or values not in parts:
        return None
    stored, scale = parts[values], parts[scales]
    if len(stored.shape) != 2 or not stored.elements or not scale.elements or len(scale.shape) > 2:
        return None
    outputs, inputs = stored.shape
    if values == "weight_packed":
        global_scale = parts.get("weight_global_scale")
        has_global_scale = global_scale is not None and global_scale.elements > 0
        name = _packed_name(stored.dtype, scale.dtype, has_global_scale=has_global_scale)
        return _in_groups(name, (outputs, 2 * inputs), values, scales, scale.shape)
    if stored.dtype != "F8_E4M3":
        return None
    if scale.dtype in _POWERS:
        return _in_groups("mxfp8", stored.shape, values, scales, scale.shape)
    return _in_blocks(stored.shape, scales, scale.shape, block) if scale.dtype in _TYPES else None


def _packed_name(dtype: str, scale_type: str, *, has_global_scale: bool) -> str:
    """The format of floats packed two in a byte; "" for other packed values, as integers."""
    if dtype != "U8":
        return ""
    if scale_type == "F8_E4M3":
        return "nvfp4" if has_global_scale else ""
    return "mxfp4" if scale_type in _POWERS else ""


def _in_groups(
    name: str, shape: tuple[int, ...], values: str, scales: str, scale_shape: tuple[int, ...]
) -> Layer | None:
    """Of a layer whose scales are for groups of inputs of one output."""
    outputs, inputs = shape
    if not name or len(scale_shape) != 2 or scale_shape[0] != outputs or inputs % scale_shape[1]:
        return None
    return Layer(name, (outputs, inputs), (1, inputs // scale_shape[1]), values, scales)


def _in_blocks(
    shape: tuple[int, ...], scales: str, scale_shape: tuple[int, ...], block: tuple[int, int]
) -> Layer | None:
    """Of an FP8 layer: one scale, one for each output, or one for each block."""
    outputs, inputs = shape
    count = (*scale_shape, *((1,) * (2 - len(scale_shape))))
    for size in ((outputs, inputs), (1, inputs), block):
        if count == (ceil(outputs / size[0]), ceil(inputs / size[1])):
            return Layer("fp8", (outputs, inputs), size, "weight", scales)
    return None


def block_size(quantization: Mapping[str, Any]) -> tuple[int, int]:
    """The block of FP8 that the settings state, as (outputs, inputs); 128 x 128 where they state none."""
    groups = quantization.get("config_groups")
    schemes = groups.values() if isinstance(groups, Mapping) else ()
    arguments = [scheme.get("weights") for scheme in schemes if isinstance(scheme, Mapping)]
    stated = [each.get("block_structure") for each in arguments if isinstance(each, Mapping)]
    for size in (*stated, quantization.get("weight_block_size")):
        if isinstance(size, list) and len(size) == 2 and all(_is_size(each) for each in size):
            return size[0], size[1]
    return _BLOCK


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= _LARGEST_BLOCK


def layers(model: Checkpoint) -> dict[str, Layer]:
    """The layers of a checkpoint that are floats with scales, by name."""
    block = block_size(model_folder.quantization(model.config))
    read = {name: layer(parts, block) for name, parts in model.modules.items()}
    return {name: each for name, each in read.items() if each is not None}


def weights(model: Checkpoint, name: str) -> Any:
    """The weights of one of `layers`, float32 [outputs, inputs]."""
    import numpy as np

    stored = _stored(model, [name])[name]
    return np.concatenate(list(_rows(layers(model)[name], stored)))


def not_finite(model: Checkpoint) -> list[str]:
    """The names of `layers` with a weight that is infinite or no number: by its own bits, or by a scale's."""
    import numpy as np

    described = layers(model)
    stored = _stored(model, list(described))
    return sorted(
        name
        for name, parts in stored.items()
        if not all(np.isfinite(rows).all() for rows in _rows(described[name], parts))
    )


def _stored(model: Checkpoint, names: Sequence[str]) -> dict[str, dict[str, tuple[Path, Tensor]]]:
    parts: dict[str, dict[str, tuple[Path, Tensor]]] = {name: {} for name in names}
    for file in model_folder.weight_files(model.folder):
        for tensor, entry in model_folder.read_header(file).tensors.items():
            module, _, part = tensor.rpartition(".")
            if module in parts:
                parts[module][part] = (file, entry)
    return parts


def _rows(described: Layer, stored: Stored) -> Iterator[Any]:
    """The weights some outputs at a time, float32 [rows, inputs]."""
    import numpy as np

    scales, values = _scales(described, stored), _codes(*stored[described.values])
    outputs, inputs = described.shape
    height, width = described.block
    step = max(1, _ROWS_BYTES // (4 * inputs))
    for start in range(0, outputs, step):
        codes = values[start : start + step]
        numbers = (_pairs()[codes] if described.bits == 4 else _e4m3()[codes]).reshape(len(codes), inputs)
        rows = np.arange(start, start + len(codes)) // height
        with np.errstate(invalid="ignore", over="ignore"):
            product = numbers * np.repeat(scales[rows], width, axis=1)[:, :inputs]
            yield product if described.name == "fp8" else _to_bfloat16(product)


def _scales(described: Layer, stored: Stored) -> Any:
    """A multiplier for each block, float32 [rows of blocks, columns of blocks]."""
    import numpy as np

    file, scale = stored[described.scales]
    rows = scale.shape[0] if len(scale.shape) == 2 else scale.elements
    codes = _codes(file, scale).reshape(rows, -1)
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        if described.name == "nvfp4":
            global_file, global_scale = stored["weight_global_scale"]
            divisor = _floats(_codes(global_file, global_scale), global_scale.dtype).reshape(-1)[:1]
            return _e4m3()[codes] / divisor
        if scale.dtype in _POWERS:
            return np.ldexp(np.float32(1), codes.astype(np.int32) - 127)
    return _floats(codes, scale.dtype)


def _codes(file: Path, tensor: Tensor) -> Any:
    """The bytes, or numbers of 16 and 32 bits, of a stored tensor."""
    import numpy as np

    dtype = _TYPES.get(tensor.dtype, "u1")
    return np.memmap(file, dtype=dtype, mode="r", offset=tensor.offset, shape=tensor.shape or (1,))


def _floats(codes: Any, dtype: str) -> Any:
    """The float32 of numbers that are stored in 16 or 32 bits."""
    import numpy as np

    if dtype == "BF16":
        return (codes.astype(np.uint32) << 16).view(np.float32)
    return codes.astype(np.float32)


@cache
def _pairs() -> Any:
    """The two floats of 4 bits in each byte, the lower bits first: float32 [256, 2]."""
    import numpy as np

    numbers = np.array([*_E2M1, *(-each for each in _E2M1)], np.float32)
    codes = np.arange(256)
    return np.stack([numbers[codes & 15], numbers[codes >> 4]], axis=1)


@cache
def _e4m3() -> Any:
    """The number of each byte as OCP's e4m3: four bits of exponent, bias 7, no infinity; float32 [256]."""
    import numpy as np

    codes = np.arange(256)
    exponent, mantissa = codes >> 3 & 15, codes & 7
    normal = np.ldexp(1 + mantissa / 8, exponent - 7)
    numbers = np.where(exponent == 0, np.ldexp(mantissa / 8, -6), normal)
    numbers = np.where(codes & 127 == 127, np.nan, numbers)
    return np.where(codes < 128, numbers, -numbers).astype(np.float32)


def _to_bfloat16(numbers: Any) -> Any:
    """Rounded to bfloat16, ties to even, still in float32."""
    import numpy as np

    bits = numbers.view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)
    return np.where(np.isnan(numbers), numbers, rounded.view(np.float32))
