"""How much a model would miss of each head, neuron or layer, by a calibration text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from quantize import transformer
from quantize.surgery import What

_READERS = {"heads": "o_proj", "neurons": "down_proj"}  # what reads the units' activations


def of(model: Any, ids: Sequence[Sequence[int]], device: str, what: What, by: Literal["activation", "loss"]) -> Any:
    """Scores, float32 [layers, units] (of layers: [1, layers]); the higher, the more it is missed."""
    if what == "layers":
        return _layers(model, ids, device) if by == "activation" else _without(model, ids, device)
    groups = int(model.config.num_key_value_heads) if what == "heads" else int(model.config.intermediate_size)
    score = _activations if by == "activation" else _gradients
    return score(model, ids, device, _READERS[what]).unflatten(1, (groups, -1)).sum(dim=2)


def _activations(model: Any, ids: Sequence[Sequence[int]], device: str, reader: str) -> Any:
    """Of each input of the reading layers: its root mean square times the norm of the weights it meets."""
    layers = _readers(model, reader)
    squares = {name: layer.weight.new_zeros(layer.weight.shape[1]) for name, layer in layers.items()}

    def see(name: str, given: Any, made: Any) -> None:
        del made
        squares[name] += given.square().sum(dim=0)

    import torch

    with torch.no_grad(), transformer.watched(layers, see):
        _loss(model, ids, device)
    return torch.stack([squares[n].sqrt() * layer.weight.detach().norm(dim=0) for n, layer in layers.items()])


def _gradients(model: Any, ids: Sequence[Sequence[int]], device: str, reader: str) -> Any:
    """Of each input of the reading layers: |activation x gradient|, summed over tokens."""
    import torch

    layers = _readers(model, reader)
    total = {name: layer.weight.new_zeros(layer.weight.shape[1]) for name, layer in layers.items()}
    held: dict[str, Any] = {}

    def keep(name: str) -> Any:
        def hook(module: Any, given: tuple[Any, ...]) -> None:
            del module
            held[name] = given[0]
            given[0].retain_grad()

        return hook

    handles = [layer.register_forward_pre_hook(keep(name)) for name, layer in layers.items()]
    try:
        for start in range(0, len(ids), transformer.BATCH):
            model.zero_grad()
            batch = torch.tensor(ids[start : start + transformer.BATCH], device=device)
            model(input_ids=batch, labels=batch, use_cache=False).loss.backward()
            for name, given in held.items():
                total[name] += (given * given.grad).detach().flatten(0, -2).abs().sum(dim=0)
    finally:
        for handle in handles:
            handle.remove()
        model.zero_grad()
    return torch.stack(list(total.values()))


def _layers(model: Any, ids: Sequence[Sequence[int]], device: str) -> Any:
    """Block Influence: the mean over tokens of 1 - cos(what goes in, what comes out)."""
    import torch
    from torch.nn.functional import cosine_similarity

    _, blocks = transformer.blocks(model)
    total = torch.zeros(len(blocks), device=device)

    def hook(i: int) -> Any:
        def seen(module: Any, given: tuple[Any, ...], made: Any) -> None:
            del module
            out = made[0] if isinstance(made, tuple) else made
            total[i] += (1 - cosine_similarity(given[0], out, dim=-1)).sum()

        return seen

    handles = [block.register_forward_hook(hook(i)) for i, block in enumerate(blocks)]
    with torch.no_grad():
        _loss(model, ids, device)
    for handle in handles:
        handle.remove()
    return total.unsqueeze(0) / sum(map(len, ids))


def _without(model: Any, ids: Sequence[Sequence[int]], device: str) -> Any:
    """The loss of the text when each layer is left out, one at a time."""
    import torch

    _, blocks = transformer.blocks(model)

    def skip(module: Any, given: tuple[Any, ...], made: Any) -> Any:
        del module
        return (given[0], *made[1:]) if isinstance(made, tuple) else given[0]

    losses = []
    with torch.no_grad():
        for block in blocks:
            handle = block.register_forward_hook(skip)
            losses.append(_loss(model, ids, device))
            handle.remove()
    return torch.tensor([losses], device=device)


def _readers(model: Any, reader: str) -> dict[str, Any]:
    _, blocks = transformer.blocks(model)
    return {n: layer for n, layer in transformer.linears(blocks).items() if n.endswith(reader)}


def _loss(model: Any, ids: Sequence[Sequence[int]], device: str) -> float:
    """The mean loss of the text, in nats per token."""
    import torch

    total = 0.0
    for start in range(0, len(ids), transformer.BATCH):
        batch = torch.tensor(ids[start : start + transformer.BATCH], device=device)
        total += float(model(input_ids=batch, labels=batch, use_cache=False).loss) * len(batch)
    return total / len(ids)
