"""The unquantized baseline: the same weights in the type the hardware computes in, written without torch.

A baseline in another floating type than the compressed models would measure the type, not the compression.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

from bench.contract import phase
from bench.contract.errors import UserError
from bench.formats import folder as model_folder
from bench.formats.folder import FLOATS, Tensor
from quantize import checkpoint

ENV = "core"
VERSION = 1
READS = frozenset({"hf"})
WRITES = "hf"

_CODES = {name: code for code, name in FLOATS.items()}
_MIB = 2**20
_CHUNK = 1 << 23  # elements converted at a time: bounds memory at a few hundred MB whatever the tensor


@dataclass(frozen=True)
class Options:
    """`auto`: the hardware's compute type (the plan settles it); without a plan, the type as stored."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"


def is_lossless(options: Options) -> bool:
    return True


def apply(folder: Path, options: Options, out: Path, device: str) -> Mapping[str, Any]:
    """Rewrite every weight file; UserError for a pickle and for a number that the type cannot hold."""
    config = model_folder.read_config(folder)
    dtype = model_folder.stored_dtype(folder) if options.dtype == "auto" else options.dtype
    types: dict[str, int] = {}
    total = 0
    files = model_folder.weight_files(folder)
    mib = math.ceil(sum(file.stat().st_size for file in files) / _MIB)
    steps = phase.Steps("{done:,} of {total:,} MiB", mib)
    steps.at(0)
    for file in files:
        total += _convert(file, out / file.name, dtype, types, steps)
    steps.at(mib)
    _write_index(folder, out, total)
    checkpoint.copy_settings(folder, out)
    if not any(config.get(key) for key in model_folder.DTYPE_KEYS):
        config["dtype"] = dtype
    checkpoint.write_config(out, checkpoint.with_dtype(config, dtype))
    return {"dtype": dtype, "source_tensor_types": types, "tensor_bytes": total}


def _convert(file: Path, out: Path, dtype: str, types: dict[str, int], steps: phase.Steps) -> int:
    """Write `file` again with every floating tensor as `dtype`; return its bytes, count types in `types`.

    `steps` are MiB of the files that are read.
    """
    header = model_folder.read_header(file)
    tensors = sorted(header.tensors.items(), key=lambda item: item[1].offset)
    with file.open("rb") as read, out.open("wb") as write:
        total = _write_header(write, tensors, header.metadata or {"format": "pt"}, dtype)
        for name, tensor in tensors:
            types[tensor.dtype] = types.get(tensor.dtype, 0) + 1
            read.seek(tensor.offset)
            for part in _converted(read, tensor.size, tensor.dtype, dtype, name):
                write.write(part)
            steps.add(tensor.size / _MIB)
    return total


def _write_header(write: BinaryIO, tensors: list[tuple[str, Tensor]], metadata: object, dtype: str) -> int:
    """A safetensors header (8-byte length, JSON, padded to a multiple of 8); return the bytes to follow."""
    header: dict[str, Any] = {"__metadata__": metadata}
    offset = 0
    for name, tensor in tensors:
        code = _CODES[dtype] if tensor.dtype in FLOATS else tensor.dtype
        length = tensor.elements * _numpy_type(FLOATS[code]).itemsize if code != tensor.dtype else tensor.size
        header[name] = {"dtype": code, "shape": tensor.shape, "data_offsets": [offset, offset + length]}
        offset += length
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    write.write(struct.pack("<Q", len(text)) + text)
    return offset


def _converted(read: BinaryIO, size: int, code: str, dtype: str, name: str) -> Iterator[bytes]:
    """The next `size` bytes, a tensor, converted part by part; other than floating types stay as they are."""
    import numpy as np

    same = code not in FLOATS or code == _CODES[dtype]
    step = _CHUNK * (1 if same else _numpy_type(FLOATS[code]).itemsize)
    for start in range(0, size, step):
        part = read.read(min(step, size - start))
        if same:
            yield part
            continue
        values = np.frombuffer(part, dtype=_numpy_type(FLOATS[code])).astype(
            np.float64 if code == "F64" else np.float32
        )
        with np.errstate(over="ignore"):
            changed = values.astype(_numpy_type(dtype))
        if not np.array_equal(np.isinf(changed.astype(np.float32)), np.isinf(values)):
            raise UserError(
                f"tensor {name} holds {np.nanmax(np.abs(values[np.isfinite(values)])):.3g}, "
                f"more than {dtype} can: use bfloat16 or float32"
            )
        yield changed.tobytes()


def _write_index(folder: Path, out: Path, total: int) -> None:
    index = folder / model_folder.INDEX
    if index.is_file():
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        text = json.dumps({"metadata": {"total_size": total}, "weight_map": weight_map}, indent=2)
        (out / model_folder.INDEX).write_text(text + "\n", encoding="utf-8")


def _numpy_type(dtype: str) -> Any:
    import numpy as np

    if dtype == "bfloat16":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(dtype)
