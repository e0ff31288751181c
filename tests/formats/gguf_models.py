"""GGUF files for tests, written by the package that defines the format."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf.constants import GGMLQuantizationType as Type
from gguf.quants import quantize

VOCABULARY, CONTEXT, WIDTH, INNER = 64, 128, 256, 192
SHAPES = {
    "blk.0.attn_q": (WIDTH, WIDTH),
    "blk.0.attn_output": (WIDTH, WIDTH),
    "blk.0.ffn_up": (INNER, WIDTH),
    "blk.0.ffn_down": (WIDTH, INNER),
}
"""The linear layers of the model that `write` writes, as (out, in)."""


def write(
    file: Path,
    types: Mapping[str, Type] | Type = Type.F16,
    *,
    file_type: int | None = None,
    shapes: Mapping[str, tuple[int, ...]] = SHAPES,
    architecture: str = "llama",
    **numbers: int,
) -> Path:
    """A one-block model, a llama, whose linear layers have these types, one for all or by name (the rest f16).

    What the package cannot quantize gets zero bytes of the right number. `numbers` are more metadata, with
    two underscores for each dot.
    """
    writer = gguf.GGUFWriter(file, architecture)
    writer.add_name("tiny")
    writer.add_context_length(CONTEXT)
    writer.add_vocab_size(VOCABULARY)
    if file_type is not None:
        writer.add_file_type(file_type)
    for key, number in numbers.items():
        writer.add_uint32(key.replace("__", "."), number)
    writer.add_token_list([f"word{i}" for i in range(VOCABULARY)])
    writer.add_token_scores([0.0] * VOCABULARY)
    _add(writer, "token_embd.weight", (VOCABULARY, WIDTH), Type.F16)
    _add(writer, "output_norm.weight", (WIDTH,), Type.F32)
    for name, shape in shapes.items():
        kind = types if isinstance(types, Type) else types.get(name, Type.F16)
        _add(writer, f"{name}.weight", shape, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def _add(writer: Any, name: str, shape: tuple[int, ...], kind: Type) -> None:
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    try:
        writer.add_tensor(name, quantize(values, kind), raw_dtype=kind)
    except NotImplementedError:
        block, stored = gguf.GGML_QUANT_SIZES[kind]
        zeros = np.zeros((*shape[:-1], shape[-1] // block * stored), np.uint8)
        writer.add_tensor(name, zeros, raw_dtype=kind)
