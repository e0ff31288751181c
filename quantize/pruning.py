"""What the unstructured pruning methods share: which weights of a layer go, and the pass that decides it.

A zero that no kernel skips buys nothing at run time: every engine here multiplies by it. Sparse tensor cores
(NVIDIA Ampere and later) skip two of four neighbours, and only where the engine has that kernel. Zeros make
files smaller only when something compresses them.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from bench.contract.record import Source
from quantize import calibration, transformer

Pattern = Literal["unstructured", "2:4", "4:8"]
_PATTERN = re.compile(r"(\d+):(\d+)")


def unfit(source: Source, sparsity: float, pattern: Pattern) -> str | None:
    """Why no such share of the linear weights can go."""
    if not 0 < sparsity < 1:
        return f"sparsity {sparsity:g} is the share of weights that become zero: more than 0 and less than 1"
    if pattern == "unstructured":
        return None
    zeros, of = pair(pattern)
    if sparsity != zeros / of:
        return f"pattern {pattern} makes a sparsity of {zeros / of:g}, not {sparsity:g}: set that"
    for name, (_, inputs) in source.linears.items():
        if inputs % of:
            return f"pattern {pattern} goes by {of} inputs, and {name} has {inputs}"
    return None


def pair(pattern: str) -> tuple[int, int]:
    """How many are zero, and of how many neighbours."""
    found = _PATTERN.fullmatch(pattern)
    assert found is not None  # noqa: S101  (Pattern allows no other)
    return int(found[1]), int(found[2])


def smallest(score: Any, sparsity: float, pattern: Pattern) -> Any:
    """A mask of what goes: in each row of `score` [out, in] the share of the smallest, or by the pattern."""
    import torch

    if pattern != "unstructured":
        zeros, of = pair(pattern)
        grouped = score.reshape(score.shape[0], -1, of)
        mask = torch.zeros_like(grouped, dtype=torch.bool)
        return mask.scatter_(2, grouped.argsort(dim=2)[..., :zeros], value=True).reshape(score.shape)
    mask = torch.zeros_like(score, dtype=torch.bool)
    gone = round(sparsity * score.shape[1])
    return mask.scatter_(1, score.argsort(dim=1, stable=True)[:, :gone], value=True)


def layerwise(
    folder: Path,
    out: Path,
    device: str,
    seen: calibration.Calibration,
    dtype: str,
    gather: Callable[[Any], Any],
    prune: Callable[[Any, Any], None],
) -> dict[str, Any]:
    """Prune each transformer layer with what its linear layers are given by the pruned ones before it.

    `gather(weight)` makes an accumulator with `add(inputs)`, float32 [tokens, in]; `prune(weight, gathered)`
    changes the weight in place. The head and the embedding stay as they are.
    """
    import torch

    began = time.perf_counter()
    torch.manual_seed(0)
    model = transformer.load(folder, device)
    count = 0
    for _, block, run in transformer.block_by_block(model, seen.ids, device):
        layers = transformer.linears(block)
        gathered = {name: gather(layer.weight) for name, layer in layers.items()}
        _fed(layers, gathered, run)
        with torch.no_grad():
            for name, layer in layers.items():
                prune(layer.weight, gathered[name])
        count += len(layers)
    pruned = time.perf_counter()
    transformer.save(model, folder, out, dtype)
    seen.write(out)
    return {**seen.facts(), "modules_pruned": count, "prune_s": pruned - began}


def _fed(layers: Mapping[str, Any], gathered: Mapping[str, Any], run: Callable[[], object]) -> None:
    """Run the text through the layers, and let each accumulator see what its layer is given."""

    def see(name: str, given: Any, made: Any) -> None:
        del made
        gathered[name].add(given)

    with transformer.watched(layers, see):
        run()


def calibrated(folder: Path, options: Any) -> calibration.Calibration:
    """The samples that a method's options name."""
    return calibration.samples(folder, options.calibration, options.samples, options.length, options.seed)


def sparsities(model: Any) -> Mapping[str, float]:
    """The share of zeros of each linear layer inside the transformer's layers."""
    name, layers = transformer.blocks(model)
    return {
        f"{name}.{inner}": float((layer.weight == 0).float().mean())
        for inner, layer in transformer.linears(layers).items()
    }
