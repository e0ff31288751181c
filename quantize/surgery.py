"""Cutting units out of a model of the Llama kind (gated MLP, grouped queries): weights and config.json.

Widths are what transformers' configs can say: one number of heads and of neurons for all layers. A layer
that is cut out moves those behind it up, and per-layer lists of the config with them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from bench.contract.record import Source
from quantize import transformer

What = Literal["heads", "neurons", "layers"]
UNITS = {"heads": "KV groups", "neurons": "neurons", "layers": "layers"}
_ROWS = {"heads": ("q_proj", "k_proj", "v_proj"), "neurons": ("gate_proj", "up_proj")}
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")
_COLUMNS = {"heads": "o_proj", "neurons": "down_proj"}


def unfit(source: Source, what: What, share: float, multiple_of: int) -> str | None:
    """Why no such share of the units can be cut out; nothing of a model that is not known yet."""
    config = source.config
    if not config:
        return None
    if reason := _other_kind(source, what):
        return reason
    heads, groups = int(config.get("num_attention_heads") or 0), _groups(config)
    gone = share * heads
    if what == "heads" and (gone % (heads // groups) or gone != round(gone)):
        return (
            f"a share of {share:g} is {gone:g} of {heads} attention heads, which go by whole KV groups of "
            f"{heads // groups}: use a share of {heads // groups / heads:g} or a multiple of it"
        )
    stays, of = stay(config, what, share, multiple_of), _count(config, what)
    if stays == of:
        return f"a share of {share:g} of {of} {UNITS[what]} rounds to none: use a larger share"
    return f"a share of {share:g} leaves no {UNITS[what]} of {of}: use a smaller share" if stays < 1 else None


def _other_kind(source: Source, what: What) -> str | None:
    """What the model has otherwise than those that units can be cut out of."""
    names = {name.rpartition(".")[2] for name in source.linears}
    for need in (*_ROWS.get(what, ()), *([_COLUMNS[what]] if what in _COLUMNS else [])):
        if need not in names:
            return f"{what} are cut out of models with a linear layer {need}, and this one has none"
    if what == "neurons" and any(key in source.config for key in _EXPERTS):
        return "neurons are cut out of one MLP in each layer, and this model has experts: cut heads or layers"
    if "num_hidden_layers" not in source.config:
        return "the model's config.json does not say num_hidden_layers"
    return None


def stay(config: Mapping[str, Any], what: What, share: float, multiple_of: int) -> int:
    """How many units are left of each layer, or how many layers."""
    of = _count(config, what)
    if what == "neurons":
        return round((1 - share) * of / multiple_of) * multiple_of
    return of - round(share * of)


def cut_source(source: Source, what: What, stays: int) -> Source:
    """The linear layers and config that are left."""
    config, linears = source.config, dict(source.linears)
    if what == "layers":
        gone = tuple(f".layers.{i}." for i in range(stays, int(config["num_hidden_layers"])))
        linears = {name: shape for name, shape in linears.items() if not any(g in f".{name}" for g in gone)}
    else:
        part = stays / _count(config, what)
        for name, (outputs, inputs) in linears.items():
            last = name.rpartition(".")[2]
            if last in _ROWS[what]:
                linears[name] = (round(outputs * part), inputs)
            elif last == _COLUMNS[what]:
                linears[name] = (outputs, round(inputs * part))
    return Source(source.format, linears, {**config, **_changes(config, what, stays)})


def cut(model: Any, what: What, kept: Sequence[Sequence[int]]) -> dict[str, Any]:
    """Keep the units `kept` of each layer (or the layers kept[0]); return what config.json has to say now."""
    import torch

    name, layers = transformer.blocks(model)
    config = model.config.to_dict()
    if what == "layers":
        stays = [layers[i] for i in kept[0]]
        for i, layer in enumerate(stays):
            layer.self_attn.layer_idx = i
        parent = model.get_submodule(name.rpartition(".")[0])
        setattr(parent, name.rpartition(".")[2], torch.nn.ModuleList(stays))
        model.config.num_hidden_layers = len(stays)
        changes = _changes(config, what, len(stays))
        return changes | {k: [v[i] for i in kept[0]] for k, v in config.items() if _per_layer(v, config)}
    for layer, units in zip(layers, kept, strict=True):
        for last, linear in transformer.linears(layer).items():
            _cut_linear(linear, last.rpartition(".")[2], what, units, _count(config, what))
    return _changes(config, what, len(kept[0]))


def _cut_linear(linear: Any, last: str, what: What, units: Sequence[int], of: int) -> None:
    """Keep the rows or columns of these units; a unit is as many of them as there are, over `of`."""
    import torch

    weight = linear.weight.data
    side = 0 if last in _ROWS[what] else 1 if last == _COLUMNS[what] else None
    if side is None:
        return
    size = weight.shape[side] // of
    index = torch.tensor([unit * size + i for unit in units for i in range(size)], device=weight.device)
    linear.weight = torch.nn.Parameter(weight.index_select(side, index).contiguous(), requires_grad=False)
    if side == 0 and linear.bias is not None:
        linear.bias = torch.nn.Parameter(linear.bias.data.index_select(0, index), requires_grad=False)
    linear.out_features, linear.in_features = linear.weight.shape


def _changes(config: Mapping[str, Any], what: What, stays: int) -> dict[str, Any]:
    """The fields of config.json that say how many units there are."""
    if what == "layers":
        found: dict[str, Any] = {"num_hidden_layers": stays}
        lists = {k: v[:stays] for k, v in config.items() if _per_layer(v, config)}
        return {**lists, **found}
    if what == "neurons":
        return {"intermediate_size": stays}
    heads = int(config["num_attention_heads"])
    width = config.get("head_dim") or int(config["hidden_size"]) // heads
    return {"num_attention_heads": stays * (heads // _groups(config)), "num_key_value_heads": stays, "head_dim": width}


def _count(config: Mapping[str, Any], what: What) -> int:
    if what == "heads":
        return _groups(config)
    return int(config["intermediate_size" if what == "neurons" else "num_hidden_layers"])


def _groups(config: Mapping[str, Any]) -> int:
    """KV heads, each with the query heads that read it."""
    return int(config.get("num_key_value_heads") or config.get("num_attention_heads") or 1)


def _per_layer(value: object, config: Mapping[str, Any]) -> bool:
    """Whether a config's value has an entry for each layer (layer_types and the like)."""
    return isinstance(value, list) and len(value) == config["num_hidden_layers"] and len(value) > 1
