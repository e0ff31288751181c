"""What a step of llama.cpp reads and multiplies: the llamacpp engine's share of the roofline."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bench.formats import gguf_reader

_FLOAT = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}


def unread_bytes(lib: Any, model: Any, file: Path, memory: Mapping[str, int], *, on_gpu: bool) -> dict[str, int]:
    """Of the weights in memory, those that a step does not read; {} where the file does not tell.

    On a CPU: what is in two buffers, as stored and repacked, and an input embedding that is not the head as well.
    """
    if on_gpu:
        return {"unread_bytes": 0}
    tensors = gguf_reader.read(file).tensors
    if "token_embd.weight" not in tensors:
        return {}
    looked_up = tensors["token_embd.weight"].size if "output.weight" in tensors else 0
    return {"unread_bytes": max(0, memory["weights_bytes"] - int(lib.llama_model_size(model)) + looked_up)}


def product_dtype(types: Iterable[str], system: str, *, on_gpu: bool) -> str:
    """What matrices are multiplied in, by the types of their tensors.

    Quantized ones with activations that are rounded to int8 on the way; on a GPU cuBLAS is asked for TF32,
    and for sums in float16.
    """
    kinds = set(types)
    if kinds - set(_FLOAT):
        return "int8"
    if "bf16" in kinds:
        return "bfloat16"
    if on_gpu:
        return "float16_acc16" if "f16" in kinds else "tf32"
    return "float16" if "f16" in kinds and "FP16_VA = 1" in system else "float32"
