"""Heads, neurons or layers cut out of a model of the Llama kind (gated MLP, grouped queries), and their importance.

transformers' configs have one number of heads and one of neurons: every layer loses as many. A layer that is cut
out leaves the config's per-layer lists too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, Literal

from bench.contract import phase
from bench.contract.record import Source
from bench.formats import folder as model_folder
from quantize import first_token, pruning, transformer

What = Literal["heads", "neurons", "layers"]
UNITS = {"heads": "KV groups", "neurons": "neurons", "layers": "layers"}
_ROWS = {"heads": ("q_proj", "k_proj", "v_proj"), "neurons": ("gate_proj", "up_proj")}
_SAMPLES = "importance: {done} of {total} samples"
_COLUMNS = {"heads": "o_proj", "neurons": "down_proj"}


def unsupported_reason(source: Source, what: What, share: float, multiple_of: int) -> str | None:
    """Why that share of the units cannot be cut out; None for a model whose config is not known yet."""
    config = source.config
    if not config:
        return None
    if reason := _wrong_architecture(source, what):
        return reason
    heads, groups = model_folder.size(config, "num_attention_heads"), _groups(config)
    removed = share * heads
    if what == "heads" and (removed % (heads // groups) or removed != round(removed)):
        return (
            f"a share of {share:g} is {removed:g} of {heads} attention heads, which are removed by whole KV groups of "
            f"{heads // groups}: use a share of {heads // groups / heads:g} or a multiple of it"
        )
    left, total = units_left(config, what, share, multiple_of), _count(config, what)
    if left == total:
        return f"a share of {share:g} of {total} {UNITS[what]} rounds to none: use a larger share"
    return f"a share of {share:g} leaves no {UNITS[what]} of {total}: use a smaller share" if left < 1 else None


def _wrong_architecture(source: Source, what: What) -> str | None:
    """What the model lacks for units to be cut out of it."""
    names = {name.rpartition(".")[2] for name in source.linears}
    for required in (*_ROWS.get(what, ()), *([_COLUMNS[what]] if what in _COLUMNS else [])):
        if required not in names:
            return f"{what} are cut out of models with a linear layer {required}, and this one has none"
    if what == "neurons" and model_folder.expert_count(source.config):
        return "neurons are cut out of one MLP in each layer, and this model has experts: cut heads or layers"
    if "text_config" in source.config or not _count(source.config, "layers"):
        return "the model's config.json has no num_hidden_layers"
    if not _count(source.config, what):
        return f"the model's config.json does not say how many {UNITS[what]} it has"
    return None


def units_left(config: Mapping[str, Any], what: What, share: float, multiple_of: int) -> int:
    """How many units are left in each layer, or how many layers."""
    total = _count(config, what)
    if what == "neurons":
        return round((1 - share) * total / multiple_of) * multiple_of
    return total - round(share * total)


def cut_source(source: Source, what: What, left: int) -> Source:
    """The linear layers and the config of the model with `left` units in each layer, or so many layers."""
    config, linears = source.config, dict(source.linears)
    if what == "layers":
        linears = {name: shape for name, shape in linears.items() if _layer_number(name) < left}
    else:
        part = left / _count(config, what)
        for name, (outputs, inputs) in linears.items():
            last = name.rpartition(".")[2]
            if last in _ROWS[what]:
                linears[name] = (round(outputs * part), inputs)
            elif last == _COLUMNS[what]:
                linears[name] = (outputs, round(inputs * part))
    return Source(source.format, linears, {**config, **_changes(config, what, left)})


def _layer_number(name: str) -> int:
    """Of the layer that a linear layer is in, by the first number in its name; 0 for what is in none."""
    return next((int(part) for part in name.split(".") if part.isdecimal()), 0)


def cut(model: Any, what: What, units: Sequence[Sequence[int]]) -> dict[str, Any]:
    """Keep only `units[i]` of layer i (or the layers units[0]); return the changed fields of config.json."""
    import torch

    name, layers = transformer.blocks(model)
    config = model.config.to_dict()
    if what == "layers":
        left = [layers[i] for i in units[0]]
        for i, layer in enumerate(left):
            for module in layer.modules():
                if hasattr(module, "layer_idx"):  # its place in the cache
                    module.layer_idx = i
        parent = model.get_submodule(name.rpartition(".")[0])
        setattr(parent, name.rpartition(".")[2], torch.nn.ModuleList(left))
        lists = {k: [v[i] for i in units[0]] for k, v in config.items() if _per_layer(v, config)}
        changes = {**_changes(config, what, len(left)), **lists}
        vars(model.config).update(changes)  # at once: Transformers compares the lists with the number of layers
        return changes
    for layer, indices in zip(layers, units, strict=True):
        for path, linear in transformer.linears(layer).items():
            _cut_linear(linear, path.rpartition(".")[2], what, indices, _count(config, what))
    return _changes(config, what, len(units[0]))


def _cut_linear(linear: Any, name: str, what: What, units: Sequence[int], total: int) -> None:
    """Keep the rows or columns of these of the `total` units, each of which has equally many."""
    import torch

    if name in _ROWS[what]:
        axis = 0
    elif name == _COLUMNS[what]:
        axis = 1
    else:
        return
    weight = linear.weight.data
    size = weight.shape[axis] // total
    index = torch.tensor([unit * size + i for unit in units for i in range(size)], device=weight.device)
    linear.weight = torch.nn.Parameter(weight.index_select(axis, index).contiguous(), requires_grad=False)
    if axis == 0 and linear.bias is not None:
        linear.bias = torch.nn.Parameter(linear.bias.data.index_select(0, index), requires_grad=False)
    linear.out_features, linear.in_features = linear.weight.shape


def _changes(config: Mapping[str, Any], what: What, left: int) -> dict[str, Any]:
    """The fields of config.json that count the units."""
    if what == "layers":
        lists = {k: v[:left] for k, v in config.items() if _per_layer(v, config)}
        return {**lists, model_folder.key(config, "num_hidden_layers"): left}
    if what == "neurons":
        return {"intermediate_size": left}
    heads = model_folder.size(config, "num_attention_heads")
    width = model_folder.size(config, "head_dim") or model_folder.hidden_size(config) // heads
    return {"num_attention_heads": left * (heads // _groups(config)), "num_key_value_heads": left, "head_dim": width}


def _count(config: Mapping[str, Any], what: What) -> int:
    if what == "heads":
        return _groups(config)
    return model_folder.size(config, "intermediate_size" if what == "neurons" else "num_hidden_layers")


def _groups(config: Mapping[str, Any]) -> int:
    """KV heads, each with the query heads that read it."""
    return model_folder.kv_heads(config) or model_folder.size(config, "num_attention_heads")


def _per_layer(value: object, config: Mapping[str, Any]) -> bool:
    """Whether a config's value has an entry for each layer (layer_types and the like)."""
    return isinstance(value, list) and len(value) == _count(config, "layers") and len(value) > 1


def importance(
    model: Any,
    ids: Sequence[Sequence[int]],
    device: str,
    what: What,
    by: Literal["activation", "loss"],
    weights: first_token.Weights | None = None,
) -> Any:
    """Scores by a calibration text, float32 [layers, units] (of layers: [1, layers]); low ones are missed least.

    First tokens count by `weights` in those by activation.
    """
    if what == "layers":
        weight = weights.text.first_token_weight if weights else 1.0
        return (
            _block_influence(model, ids, device, weight) if by == "activation" else _losses_without(model, ids, device)
        )
    blocks, groups = transformer.blocks(model)[1], _count(model.config.to_dict(), what)
    readers = {n: layer for n, layer in transformer.linears(blocks).items() if n.endswith(_COLUMNS[what])}
    score = partial(_activations, weights=weights) if by == "activation" else _gradients
    return score(model, ids, device, readers).unflatten(1, (groups, -1)).sum(dim=2)


def _activations(
    model: Any,
    ids: Sequence[Sequence[int]],
    device: str,
    readers: Mapping[str, Any],
    *,
    weights: first_token.Weights | None,
) -> Any:
    """For each input of the reading layers: its norm over tokens times the norm of the weights that read it."""
    import torch

    with torch.no_grad():
        squares = pruning.squared_inputs(readers, lambda: _loss(model, ids, device, _SAMPLES), weights)
        if weights is not None:
            weights.require_effect(["the layers that read what is cut out"])
        return torch.stack([squares[n].sqrt() * layer.weight.norm(dim=0) for n, layer in readers.items()])


def _gradients(model: Any, ids: Sequence[Sequence[int]], device: str, readers: Mapping[str, Any]) -> Any:
    """For each input of the reading layers: |activation x gradient|, summed over tokens."""
    import torch

    totals = {name: layer.weight.new_zeros(layer.weight.shape[1]) for name, layer in readers.items()}
    activations: dict[str, Any] = {}

    def store(name: str, _module: Any, inputs: tuple[Any, ...]) -> None:
        activations[name] = inputs[0]
        inputs[0].retain_grad()

    with ExitStack() as hooks:
        for name, layer in readers.items():
            hooks.enter_context(layer.register_forward_pre_hook(partial(store, name)))
        for batch in _batches(ids, device, _SAMPLES):
            model.zero_grad()
            model(input_ids=batch, labels=batch, use_cache=False).loss.backward()
            for name, inputs in activations.items():
                totals[name] += (inputs * inputs.grad).detach().flatten(0, -2).abs().sum(dim=0)
    model.zero_grad()
    return torch.stack(list(totals.values()))


def _block_influence(model: Any, ids: Sequence[Sequence[int]], device: str, weight: float) -> Any:
    """The mean over tokens of 1 - cos(a layer's input, its output); the first ones count `weight` times."""
    import torch
    from torch.nn.functional import cosine_similarity

    _, blocks = transformer.blocks(model)
    totals = torch.zeros(len(blocks), device=device)

    def add(i: int, _module: Any, inputs: tuple[Any, ...], output: Any) -> None:
        output = output[0] if isinstance(output, tuple) else output
        change = 1 - cosine_similarity(inputs[0], output, dim=-1)
        totals[i] += change.sum() + (weight - 1) * change[:, 0].sum()

    with torch.no_grad(), ExitStack() as hooks:
        for i, block in enumerate(blocks):
            hooks.enter_context(block.register_forward_hook(partial(add, i)))
        _loss(model, ids, device, _SAMPLES)
    return totals.unsqueeze(0) / (sum(map(len, ids)) + (weight - 1) * len(ids))


def _losses_without(model: Any, ids: Sequence[Sequence[int]], device: str) -> Any:
    """The loss of the text when each layer is left out, one at a time."""
    import torch

    def skip(_module: Any, inputs: tuple[Any, ...], output: Any) -> Any:
        return (inputs[0], *output[1:]) if isinstance(output, tuple) else inputs[0]

    losses = []
    with torch.no_grad():
        for block in phase.each(transformer.blocks(model)[1], "importance: layer {n} of {total}"):
            with block.register_forward_hook(skip):
                losses.append(_loss(model, ids, device))
    return torch.tensor([losses], device=device)


def _loss(model: Any, ids: Sequence[Sequence[int]], device: str, text: str = "") -> float:
    """The mean loss of the text, in nats per token; `text` as of `_batches`."""
    losses = [
        float(model(input_ids=batch, labels=batch, use_cache=False).loss) * len(batch)
        for batch in _batches(ids, device, text)
    ]
    return sum(losses) / len(ids)


def _batches(ids: Sequence[Sequence[int]], device: str, text: str) -> Iterator[Any]:
    """`text`: what the samples are told as, as of phase.Steps; "" where another step is told."""
    import torch

    steps = phase.Steps(text, len(ids)) if text else None
    for start in range(0, len(ids), transformer.BATCH):
        if steps:
            steps.at(start)
        yield torch.tensor(ids[start : start + transformer.BATCH], device=device)
    if steps:
        steps.at(len(ids))
