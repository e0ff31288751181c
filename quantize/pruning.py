"""What the unstructured pruning methods share: options, masks of the smallest scores, a pass layer by layer.

Every engine here multiplies by zeros: they save nothing at run time without a sparse kernel (2:4 on NVIDIA Ampere
and later), and no disk space without compression.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bench.contract.errors import UserError
from bench.contract.record import Source
from bench.contract.spec import Step
from quantize import calibration, first_token, transformer

Pattern = Literal["unstructured", "2:4", "4:8"]
_PATTERNS = {"2:4": (2, 4), "4:8": (4, 8)}  # how many are zero, and of how many neighbours


@dataclass(frozen=True)
class Options:
    """`sparsity`: the share of the linear weights that become zero, in each row if the method ranks by row."""

    sparsity: float = 0.5
    pattern: Pattern = "unstructured"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"


def unsupported_reason(source: Source, options: Options) -> str | None:
    """Why that share of the linear weights cannot become zero."""
    sparsity, pattern = options.sparsity, options.pattern
    if not 0 < sparsity < 1:
        return f"sparsity {sparsity:g} is the share of weights that become zero: more than 0 and less than 1"
    if pattern == "unstructured":
        return None
    zeros, of = _PATTERNS[pattern]
    if sparsity != zeros / of:
        return f"pattern {pattern} makes a sparsity of {zeros / of:g}, not {sparsity:g}: set that"
    for name, (_, inputs) in source.linears.items():
        if inputs % of:
            return f"pattern {pattern} goes by {of} inputs, and {name} has {inputs}"
    return None


def by_magnitude(options: Options) -> Step:
    """As many zeros in the same pattern, by the size of the weights alone."""
    sparsity = {"sparsity": options.sparsity, "pattern": options.pattern}
    return Step("magnitude", {**sparsity, "scope": "layer"})


def smallest(score: Any, sparsity: float, pattern: Pattern) -> Any:
    """A mask [out, in] of the smallest scores: the share `sparsity` of each row, or by the pattern."""
    import torch

    if pattern != "unstructured":
        zeros, of = _PATTERNS[pattern]
        grouped = score.reshape(score.shape[0], -1, of)
        mask = torch.zeros_like(grouped, dtype=torch.bool)
        return mask.scatter_(2, grouped.argsort(dim=2)[..., :zeros], value=True).reshape(score.shape)
    mask = torch.zeros_like(score, dtype=torch.bool)
    gone = round(sparsity * score.shape[1])
    return mask.scatter_(1, score.argsort(dim=1, stable=True)[:, :gone], value=True)


def layerwise(
    folder: Path, out: Path, device: str, text: calibration.Calibration, dtype: str, prune: Callable[[Any, Any], None]
) -> dict[str, Any]:
    """Prune each transformer layer by the inputs that its linear layers get from the pruned ones before it.

    `prune(weight, squares)` changes the weight in place; `squares` are the sums of its inputs' squares, float32
    [in]. The head and the embedding stay as they are. RuntimeError where a first token's weight had no effect.
    """
    import torch

    began = time.perf_counter()
    torch.manual_seed(0)
    model = transformer.load(folder, device)
    weights = first_token.Weights(text)
    count = 0
    for _, block, run in transformer.block_by_block(model, text.ids, device):
        layers = transformer.linears(block)
        squares = squared_inputs(layers, run, weights)
        with torch.no_grad():
            for name, layer in layers.items():
                prune(layer.weight, squares[name])
        count += len(layers)
    weights.require_effect(["the linear layers"])
    require_layers(count)
    pruned = time.perf_counter()
    transformer.save(model, folder, out, dtype)
    text.write(out)
    return {**text.facts(), "modules_pruned": count, "prune_s": pruned - began}


def require_layers(count: int) -> None:
    """UserError where a model had no linear layers to prune, and so would be called pruned as it is."""
    if not count:
        raise UserError("the model's layers have no linear layers, which are what is pruned: use another method")


def squared_inputs(
    layers: Mapping[str, Any], run: Callable[[], object], weights: first_token.Weights | None = None
) -> dict[str, Any]:
    """For each linear layer the sums of its inputs' squares over all tokens of `run`, float32 [in].

    First tokens of windows count by `weights`, but where experts get tokens one by one.
    """
    squares = {name: layer.weight.new_zeros(layer.weight.shape[1]) for name, layer in layers.items()}

    def add(name: str, inputs: Any) -> None:
        squares[name] += inputs.flatten(0, -2).square().sum(dim=0)
        if weights is not None and (times := weights.count(inputs)) is not None:
            squares[name] += (times - 1) * inputs[:, 0].square().sum(dim=0)

    with transformer.watched(layers, add):
        run()
    return squares


def sparsities(model: Any) -> Mapping[str, float]:
    """The share of zeros of each linear layer inside the transformer's layers."""
    name, layers = transformer.blocks(model)
    return {
        f"{name}.{inner}": float((layer.weight == 0).float().mean())
        for inner, layer in transformer.linears(layers).items()
    }
