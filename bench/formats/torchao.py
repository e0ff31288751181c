"""What torchao writes into safetensors: which weights are its own, and how many bits their values have.

A weight of its own is stored in parts (`_weight_qdata`, `_weight_scale`, …) that the file's metadata puts
together. Values of fewer bits may be stored one in a byte: the audit counts the byte, and says so here.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bench.formats.folder import Tensor

_DATA = "_weight_qdata"


@dataclass(frozen=True)
class Kind:
    """The class of a stored weight, the bits of its values (0 where it does not say), and their number.

    `elements` is 0 where the class packs no other shape than it stores.
    """

    name: str
    bits: int
    elements: int


def kinds(metadata: Mapping[str, str]) -> dict[str, Kind]:
    """Module -> the kind of its weight, of those that torchao quantized, by the metadata of the files."""
    found = {}
    for name, text in metadata.items():
        module, _, leaf = name.rpartition(".")
        described = _parsed(text) if leaf == "weight" else {}
        kind = str(described.get("_type") or "Tensor")
        if kind == "Tensor":
            continue
        data = described.get("_data") or {}
        target = str((data.get("target_dtype") or {}).get("_data") or kind).lower()
        elements = 1
        for side in data.get("shape") or (0,):
            elements *= int(side)
        bits = next((n for n in range(8, 0, -1) if target.startswith((f"int{n}", f"float{n}"))), 0)
        found[module] = Kind(kind, bits, elements)
    return found


def shapes(found: Mapping[str, Kind], layers: Mapping[str, Mapping[str, Tensor]]) -> dict[str, tuple[int, int]]:
    """Those layers as name -> (1, parameters)."""
    return {
        name: (1, kind.elements or layers[name][_DATA].elements)
        for name, kind in found.items()
        if _DATA in layers.get(name, {})
    }


def notes(
    found: Mapping[str, Kind], linears: Mapping[str, int], layers: Mapping[str, Mapping[str, Tensor]]
) -> tuple[str, ...]:
    """Where values take more room than their bits: by the bytes stored for them."""
    wide: Counter[tuple[int, float]] = Counter()
    for name, kind in found.items():
        data = layers.get(name, {}).get(_DATA)
        if name in linears and data is not None and kind.bits:
            each = 8 * data.size / linears[name]
            wide[kind.bits, round(each, 2)] += each > kind.bits
    return tuple(
        f"{bits}-bit values stored in {each:g} bits each, scales apart: {n} layers"
        for (bits, each), n in sorted(wide.items())
        if n
    )


def _parsed(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
