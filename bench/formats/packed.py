"""Checkpoints whose linear weights are packed: GPTQ, AWQ, bitsandbytes, torchao, compressed-tensors, block FP8.

torchao stores a weight in parts (`_weight_qdata`, `_weight_scale`, …) that the file's metadata describes. Values of
fewer bits may be stored one in a byte: the audit counts the byte, with a note. Floats with scales for blocks of them
are unpacked, and layers named that have weights which are no numbers.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.contract import wire
from bench.contract.record import Audit
from bench.formats import checkpoint, counting, float_blocks
from bench.formats import folder as model_folder
from bench.formats.checkpoint import Checkpoint, architecture, parameters, source
from bench.formats.counting import Linear

__all__ = ["architecture", "parameters", "source"]  # hooks that are shared

FORMATS = ("awq", "bnb", "compressed-tensors", "fp8", "gptq", "torchao")
FLOATS = "unquantized"
FILES = ("*.safetensors",)
_DATA = "_weight_qdata"
_MAX_DIMENSIONS = 8


def detect(folder: Path) -> str | None:
    method = checkpoint.quant_method(folder)
    method = "bnb" if method == "bitsandbytes" else method
    return method if method in FORMATS else None


def audit(name: str, folder: Path, reference: Mapping[str, tuple[int, int]] | None, *, zeros: bool) -> Audit:
    del zeros
    model = checkpoint.read(folder)
    weights = _torchao_weights(model.metadata)
    quantized = {
        layer: elements or model.modules[layer][_DATA].elements
        for layer, (_, elements) in weights.items()
        if _DATA in model.modules.get(layer, {})
    }
    linears = checkpoint.linears(model, {**checkpoint.packed_parameters(model), **quantized}, reference)
    notes = [
        *_wide_values(weights, linears, model),
        *([] if reference else _mixed_widths(model)),
        *counting.note("infinite or not a number", float_blocks.not_finite(model)),
    ]
    return checkpoint.audit(name, model, linears, reference, notes=notes)


def _mixed_widths(model: Checkpoint) -> list[str]:
    """A note where groups of layers have several widths: which layer is in which is not worked out."""
    groups = _mapping(model_folder.quantization(model.config).get("config_groups")).values()
    widths = {_mapping(_mapping(group).get("weights")).get("num_bits") for group in groups}
    return ["layers of several bit widths: packed ones are counted at the first group's"] if len(widths) > 1 else []


def _torchao_weights(metadata: Mapping[str, str]) -> dict[str, tuple[int, int]]:
    """Of the weights that torchao quantized, by module: the bits of their values, and how many values there are.

    0 for bits that it does not state, and for the number where the class packs no other shape than it stores.
    """
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
        weights[module] = (bits, math.prod(sizes[:_MAX_DIMENSIONS]))
    return weights


def _wide_values(weights: Mapping[str, tuple[int, int]], linears: Mapping[str, Linear], model: Checkpoint) -> list[str]:
    """Notes of values that take more room than their bits, by the bytes stored for them."""
    layers: Counter[tuple[int, float]] = Counter()
    for name, (bits, _) in weights.items():
        data = model.modules.get(name, {}).get(_DATA)
        if name in linears and linears[name].parameters and data is not None and bits:
            stored_bits = 8 * data.size / linears[name].parameters
            layers[bits, round(stored_bits, 2)] += stored_bits > bits
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
