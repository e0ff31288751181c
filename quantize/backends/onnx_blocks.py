"""ONNX Runtime's own rounding of a matrix in blocks, as its quantizer of MatMulNBits stores it (symmetric)."""

from __future__ import annotations

from typing import Any


def rounded(weight: Any, bits: int, block: int) -> Any:
    """A float32 array [out, in] as it is after rounding to 4 or 8 bits, a scale for each `block` inputs of a row."""
    import numpy as np
    from onnxruntime.capi import _pybind_state as library

    outputs, inputs = weight.shape
    blocks = -(-inputs // block)
    columns = np.zeros((blocks * block, outputs), np.float32)
    columns[:inputs] = weight.T
    packed = np.zeros((outputs, blocks, block * bits // 8), np.uint8)
    scales = np.zeros((outputs, blocks), np.float32)
    zeros = np.zeros((outputs, blocks if bits == 8 else (blocks + 1) // 2), np.uint8)
    quantize = library.quantize_matmul_8bits if bits == 8 else library.quantize_matmul_4bits
    quantize(packed, columns, scales, zeros, block, outputs, columns.shape[0], True)  # noqa: FBT003  (symmetric)
    codes = packed if bits == 8 else np.stack([packed & 15, packed >> 4], axis=-1).reshape(outputs, blocks, block)
    values = (codes.astype(np.float32) - (1 << (bits - 1))) * scales[..., None]
    return np.ascontiguousarray(values.reshape(outputs, blocks * block)[:, :inputs])
