"""What a step of llama.cpp reads and multiplies: the llamacpp engine's share of the roofline."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

_FLOAT = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}


class _GgufInitParams(ctypes.Structure):
    """`struct gguf_init_params`: without a context the tensors' data stay in the file."""

    _fields_ = (("no_alloc", ctypes.c_bool), ("context", ctypes.c_void_p))


def unread_bytes(lib: Any, model: Any, file: Path, memory: Mapping[str, int], *, on_gpu: bool) -> dict[str, int]:
    """Of the weights in memory, those that a step does not read; {} where the file does not tell.

    On a CPU: what is in two buffers, as stored and repacked, and an input embedding that is not the head as well.
    """
    if on_gpu:
        return {"unread_bytes": 0}
    sizes = _tensor_sizes(lib, file)
    if "token_embd.weight" not in sizes:
        return {}
    looked_up = sizes["token_embd.weight"] if "output.weight" in sizes else 0
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


def _tensor_sizes(lib: Any, file: Path) -> dict[str, int]:
    """Bytes of the embedding and of the head in the file, by ggml's own reader."""
    native = lib._lib  # noqa: SLF001  (the binding lacks these)
    native.gguf_init_from_file.restype = ctypes.c_void_p
    native.gguf_init_from_file.argtypes = (ctypes.c_char_p, _GgufInitParams)
    native.gguf_find_tensor.restype = ctypes.c_int64
    native.gguf_find_tensor.argtypes = (ctypes.c_void_p, ctypes.c_char_p)
    native.gguf_get_tensor_size.restype = ctypes.c_size_t
    native.gguf_get_tensor_size.argtypes = (ctypes.c_void_p, ctypes.c_int64)
    native.gguf_free.argtypes = (ctypes.c_void_p,)
    header = native.gguf_init_from_file(str(file).encode(), _GgufInitParams(no_alloc=True, context=None))
    if not header:
        return {}
    indices = {name: native.gguf_find_tensor(header, name.encode()) for name in ("token_embd.weight", "output.weight")}
    sizes = {name: int(native.gguf_get_tensor_size(header, i)) for name, i in indices.items() if i >= 0}
    native.gguf_free(header)
    return sizes
