"""ggml's own rounding of a matrix, by the library below llama.cpp: what llama-quantize would store of it."""

from __future__ import annotations

import ctypes
from typing import Any


def rounded(weight: Any, kind: str) -> Any:
    """A float32 array [out, in] as it is after rounding to 16 bits, as which a model is converted, and to that type.

    Rows are rounded by themselves, without an importance matrix: in which order a converter puts them does not matter.
    """
    import numpy as np
    from gguf import GGMLQuantizationType, quants
    from gguf.constants import GGML_QUANT_SIZES

    half = np.ascontiguousarray(weight.astype(np.float16).astype(np.float32))
    if kind == "f16":
        return half
    stored = GGMLQuantizationType[kind.upper()]
    block, size = GGML_QUANT_SIZES[stored]
    rows, inputs = half.shape
    packed = np.empty((rows, inputs // block * size), np.uint8)
    source, target = (array.ctypes.data_as(ctypes.c_void_p) for array in (half, packed))
    written = _quantize()(stored.value, source, target, 0, rows, inputs, None)
    if written != packed.nbytes:
        raise RuntimeError(f"ggml wrote {written} bytes of {kind} where {packed.nbytes} were expected")
    return quants.dequantize(packed, stored)


def _quantize() -> Any:
    """ggml_quantize_chunk(type, src, dst, start, nrows, n_per_row, imatrix), which returns the bytes written."""
    import llama_cpp.llama_cpp as lib

    function = lib._lib.ggml_quantize_chunk  # noqa: SLF001  (reached through the library that depends on it)
    integer = ctypes.c_int64
    function.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, integer, integer, integer, ctypes.c_void_p]
    function.restype = ctypes.c_size_t
    return function
