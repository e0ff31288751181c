"""Magnitude pruning: the smallest weights become zero, whatever they are multiplied with.

By torch.nn.utils.prune (Han et al., 2015, arXiv:1506.02626); the 2:4 pattern as NVIDIA's ASP picks it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bench.contract import phase
from bench.contract.record import Hardware, Source
from quantize import pruning, transformer

ENV = "hf"
VERSION = 1
READS = frozenset({"hf"})
WRITES = "hf"


@dataclass(frozen=True)
class Options(pruning.Options):
    """`sparsity` of each layer by `scope` layer, of all together by global: some then lose more."""

    scope: Literal["layer", "global"] = "layer"


def unsupported(options: Options, source: Source, hardware: Hardware) -> str | None:
    if options.scope == "global" and options.pattern != "unstructured":
        return f"pattern {options.pattern} applies within each layer: leave scope at layer"
    return pruning.unsupported_reason(source, options)


def apply(folder: Path, options: Options, out: Path, device: str) -> Mapping[str, Any]:
    """Prune the linear layers of the transformer; the head and the embedding stay as they are."""
    import torch
    from torch.nn.utils import prune

    model = transformer.load(folder, device)
    layers = list(transformer.linears(transformer.blocks(model)[1]).values())
    pruning.require_layers(len(layers))
    if options.scope == "global":
        pairs = [(layer, "weight") for layer in layers]
        phase.begin("ranking all weights")
        prune.global_unstructured(pairs, pruning_method=prune.L1Unstructured, amount=options.sparsity)
    for layer in phase.each(layers, "linear layer {n} of {total}"):
        if options.scope == "layer" and options.pattern == "unstructured":
            prune.l1_unstructured(layer, "weight", amount=options.sparsity)
        elif options.scope == "layer":
            zeros = pruning.smallest(layer.weight.detach().abs(), options.sparsity, options.pattern)
            prune.custom_from_mask(layer, "weight", torch.logical_not(zeros))
        prune.remove(layer, "weight")
    least = min(pruning.sparsities(model).values())
    transformer.save(model, folder, out, options.dtype)
    return {"modules_pruned": len(layers), "least_layer_sparsity": least}
