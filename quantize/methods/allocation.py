"""A type for each layer: of least predicted loss within a size, by what `sensitivity` measured before.

The weights stay as they are; the next step stores them so. A step of recipes with `mixed`, which add it by themselves.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.contract import phase
from bench.contract.errors import UserError
from bench.contract.record import Hardware, Source
from eval.stats import paired
from quantize import allocation, mixed

ENV = "core"  # which has SciPy
VERSION = 1
READS = frozenset({"hf"})
WRITES = "hf"


@dataclass(frozen=True)
class Options:
    """`bits_per_weight`: at most so many over all linear layers, with scales and zeros."""

    bits_per_weight: float = 4.5


def unsupported(options: Options, source: Source, hardware: Hardware) -> str | None:
    bits = options.bits_per_weight
    return None if 0 < bits < math.inf else f"bits_per_weight {bits:g} is no size: name a number above 0"


def is_lossless(options: Options) -> bool:
    return True


def apply(folder: Path, options: Options, out: Path, device: str) -> Mapping[str, Any]:
    """Choose, and write the types beside the weights; UserError for a budget that cannot be met."""
    measured = mixed.read_losses(folder)
    layers, tokens = measured["layers"], measured["window_tokens"]
    kinds = [list(its["window_kl"]) for its in layers.values()]
    weights = sum(math.prod(its["shape"]) for its in layers.values())
    sizes = [
        [mixed.size(measured["format"], kind, tuple(its["shape"]), measured["block"]) for kind in its["window_kl"]]
        for its in layers.values()
    ]
    losses = [[math.fsum(sums) / sum(tokens) for sums in its["window_kl"].values()] for its in layers.values()]
    phase.begin("choosing a type for each layer")
    try:
        picks = allocation.least_loss(losses, sizes, math.floor(options.bits_per_weight * weights / 8))
    except UserError as error:
        raise UserError(f"{options.bits_per_weight:g} bits per weight cannot be met: {error}") from None
    types = {name: its[pick] for name, its, pick in zip(layers, kinds, picks, strict=True)}
    by_window = [layers[name]["window_kl"][kind] for name, kind in types.items()]
    total = [math.fsum(column) for column in zip(*by_window, strict=True)]
    value, half = paired.per_token(total, tokens)
    chosen = mixed.Allotment(types, (value, max(0.0, value - half), value + half))
    mixed.link(folder, out, without=mixed.LOSSES)
    mixed.write_types(out, chosen)
    chosen_bytes = sum(row[pick] for row, pick in zip(sizes, picks, strict=True))
    return {**chosen.facts(), "bits_per_weight_of_choice": 8 * chosen_bytes / weights}
