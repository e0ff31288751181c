"""What is quantized at a time: one layer, all of a kind, or all of a block."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bench.contract.errors import UserError
from eval.layers.network import Network, matrices

By = Literal["layer", "kind", "block"]
ALL = "all"
OUTSIDE = "outside"  # in place of a block's number: the embedding and the head
_ROUNDED = 0.01  # of a tensor's largest value: what storing it in 16 bits changes is less


@dataclass(frozen=True)
class Unit:
    """`layers`: their names in the model. `block`, `kind`: its place in a table, "all" where it spans them.

    `start`: the first block whose output it changes. `parameters`: of these layers.
    """

    name: str
    layers: tuple[str, ...]
    block: str
    kind: str
    start: int
    parameters: int


def units(network: Network, layers: Mapping[str, Any], by: By) -> list[Unit]:
    """The quantized ones among `layers`, which are to replace the network's own, by where they begin.

    A head that shares its matrix with the embedding is one layer with it.
    """
    own = matrices(network.model)
    head, embedding = network.model.get_output_embeddings(), network.model.get_input_embeddings()
    names = {module: name for name, module in own.items()}
    quantized = [name for name, module in layers.items() if name in own and not _is_unquantized(module, own[name])]
    groups: dict[tuple[str, str], list[str]] = {}
    for name in quantized:
        block, kind = _place(network, name)
        if own[name] is embedding and head is not None and head.weight is embedding.weight:
            block, kind = _place(network, names[head])
        key = {"layer": (block, kind), "kind": (ALL, kind), "block": (block, ALL)}[by]
        if by == "layer" and key in groups and block != OUTSIDE:
            key = (block, name.removeprefix(f"{network.name}.{block}."))
        groups.setdefault(key, []).append(name)
    return sorted((_unit(network, *item, own) for item in groups.items()), key=lambda unit: unit.start)


def require_same_rest(model: Any, others: Mapping[str, Any]) -> None:
    """UserError where what is no matrix differs from the model's: its layers then belong to other inputs."""
    own = dict(model.named_parameters())
    for name, tensor in others.items():
        if name not in own:
            continue
        mine, its = own[name].detach().float(), tensor.detach().float().to(own[name].device)
        if mine.shape != its.shape:
            raise UserError(f"{name} has another shape than the baseline's: a smaller model has no layers of its own")
        if float((mine - its).abs().max()) > _ROUNDED * float(mine.abs().max()):
            raise UserError(
                f"{name} is not the baseline's: a method that trains, or moves scales between layers (awq, "
                "SmoothQuant), quantizes no layer by itself; measure it as a whole by divergence"
            )


def of(layers: Mapping[str, Any], unit: Unit) -> dict[str, Any]:
    """Those of `layers` that a unit replaces."""
    return {name: layers[name] for name in unit.layers}


def whole(units: Sequence[Unit]) -> Unit:
    """All of them at once."""
    layers = tuple(dict.fromkeys(name for unit in units for name in unit.layers))
    return Unit(ALL, layers, ALL, ALL, 0, sum(unit.parameters for unit in units))


def _unit(network: Network, key: tuple[str, str], names: Sequence[str], own: Mapping[str, Any]) -> Unit:
    """One name stands for a layer, a place in the table for several."""
    block, kind = key
    title = names[0] if len(names) == 1 else kind if block == OUTSIDE else f"{block}.{kind}"
    parameters = {weight.data_ptr(): weight.numel() for weight in (own[name].weight for name in names)}
    start = min(network.start(name) for name in names)
    return Unit(title, tuple(names), block, kind, start, sum(parameters.values()))


def _place(network: Network, name: str) -> tuple[str, str]:
    """A layer's block, and its kind: the last part of its name."""
    rest = name.removeprefix(f"{network.name}.")
    block = rest.partition(".")[0] if rest != name else OUTSIDE
    return block, name.rpartition(".")[2]


def _is_unquantized(module: Any, own: Any) -> bool:
    """Whether a layer has the weights of the model's own, but for a floating type of 16 bits."""
    import torch

    weight: Any = getattr(module, "weight", None)
    if type(weight) not in (torch.Tensor, torch.nn.Parameter) or not weight.is_floating_point():
        return False
    if weight.shape != own.weight.shape:
        return False
    its, mine = weight.detach().float().to(own.weight.device), own.weight.detach()
    types = (torch.float32, torch.float16, torch.bfloat16)
    return any(torch.equal(its, mine.to(dtype).float()) for dtype in types)
