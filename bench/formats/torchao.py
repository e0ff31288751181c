"""Checkpoints of torchao: weights in parts (`_weight_qdata`, `_weight_scale`, …) that the file's metadata describes.

Values of fewer bits may be stored one in a byte: the audit counts the byte, with a note.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.contract import wire
from bench.contract.record import Audit
from bench.formats import checkpoint
from bench.formats.checkpoint import Checkpoint, architecture, parameters, source
from bench.formats.counting import Linear

__all__ = ["architecture", "parameters", "source"]  # hooks that are shared

FORMATS = ("torchao",)
FLOATS = "unquantized"
FILES = ("*.safetensors",)
_DATA = "_weight_qdata"
_MAX_DIMENSIONS = 8


@dataclass(frozen=True)
class _Weight:
    """The bits of a quantized weight's values (0 where it does not say), and their number.

    `elements` is 0 where its class packs no other shape than it stores.
    """

    bits: int
    elements: int


def detect(folder: Path) -> str | None:
    method = checkpoint.quant_method(folder)
    return method if method in FORMATS else None


def audit(name: str, folder: Path, reference: Mapping[str, tuple[int, int]] | None, *, zeros: bool) -> Audit:
    del zeros
    model = checkpoint.read(folder)
    weights = _weights(model.metadata)
    quantized = {
        layer: weight.elements or model.modules[layer][_DATA].elements
        for layer, weight in weights.items()
        if _DATA in model.modules.get(layer, {})
    }
    linears = checkpoint.linears(model, {**checkpoint.packed_parameters(model), **quantized}, reference)
    return checkpoint.audit(name, model, linears, reference, notes=_wide_values(weights, linears, model))


def _weights(metadata: Mapping[str, str]) -> dict[str, _Weight]:
    """The weights that torchao quantized by their module, as the metadata of the files describes them."""
    weights = {}
    for name, text in metadata.items():
        module, _, part = name.rpartition(".")
        described = _json(text) if part == "weight" else {}
        kind = str(described.get("_type") or "Tensor")
        if kind == "Tensor":
            continue
        data = _mapping(described.get("_data"))
        target = str(_mapping(data.get("target_dtype")).get("_data") or kind).lower()
        bits = next((n for n in range(8, 0, -1) if target.startswith((f"int{n}", f"float{n}"))), 0)
        shape = data.get("shape")
        sizes = [size for size in shape if isinstance(size, int) and size > 0] if isinstance(shape, list) else [0]
        weights[module] = _Weight(bits, math.prod(sizes[:_MAX_DIMENSIONS]))
    return weights


def _wide_values(weights: Mapping[str, _Weight], linears: Mapping[str, Linear], model: Checkpoint) -> list[str]:
    """Notes of values that take more room than their bits, by the bytes stored for them."""
    layers: Counter[tuple[int, float]] = Counter()
    for name, weight in weights.items():
        data = model.modules.get(name, {}).get(_DATA)
        if name in linears and data is not None and weight.bits:
            stored_bits = 8 * data.size / linears[name].parameters
            layers[weight.bits, round(stored_bits, 2)] += stored_bits > weight.bits
    return [
        f"{bits}-bit values stored in {stored_bits:g} bits each, scales apart: {count} layers"
        for (bits, stored_bits), count in sorted(layers.items())
        if count
    ]


def _json(text: str) -> dict[str, Any]:
    try:
        return _mapping(wire.parse(text))
    except ValueError:
        return {}


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
