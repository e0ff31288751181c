"""What each linear layer of a model costs in each of some types, alone: the losses that a budget is spent by."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.contract.errors import UserError
from eval.layers import measure as layer_measure
from eval.layers import network
from eval.layers.units import Unit
from eval.text.windows import Window
from quantize import mixed
from quantize.calibration import Calibration

_AT = "@"


@dataclass(frozen=True)
class Types:
    """What a layer may be stored in; `block` as of mixed.size."""

    format: mixed.Format
    choices: tuple[str, ...]
    block: int = 0

    def rounded(self, weight: Any, choice: str) -> Any:
        """A float32 array [out, in] as it is when it was stored so."""
        if self.format == "onnx":
            from quantize.backends import onnx_blocks

            return onnx_blocks.rounded(weight, int(choice.removeprefix("int")), self.block)
        from quantize.backends import ggml

        return ggml.rounded(weight, choice)


@dataclass(frozen=True)
class Losses:
    """`content`: of the file that is written; `resumed`: measurements of an interrupted run."""

    content: dict[str, Any]
    resumed: int


def measure(folder: Path, types: Types, text: Calibration, device: str, work: Path) -> Losses:
    """Sums of KL (nats) by window of the text, for each linear layer and each type that it can be stored in."""
    model = network.load(folder, device)
    layers = linears(model, with_head=types.format != "onnx")  # whose head has the type of the whole
    if not layers:
        raise UserError("the model has no linear layers of its own: mixed types have nothing to choose")
    windows = [Window(0, ids, 1, 0) for ids in text.ids]
    net = network.Network(model, [window.ids for window in windows])
    units = [
        Unit(f"{name}{_AT}{choice}", (name,), "", choice, net.start(name), 0)
        for name, module in layers.items()
        for choice in types.choices
        if mixed.fits(types.format, choice, shape(module))
    ]
    units.sort(key=lambda unit: unit.start)

    def replaced(unit: Unit) -> Mapping[str, Any]:
        name = unit.layers[0]
        return {name: _with_weight(layers[name], types.rounded, unit.kind)}

    meter = layer_measure.Meter(net, windows, work)
    key = f"{text.sha256}/{len(windows)}/{types.format}/{types.block}"
    done, resumed = layer_measure.one_at_a_time(meter, units, replaced, key)
    meter.close()
    by_layer: dict[str, dict[str, list[float]]] = {name: {} for name in layers}
    for unit in units:
        by_layer[unit.layers[0]][unit.kind] = done[unit.name]
    tokens = [window.scored for window in windows]
    its = {name: {"shape": shape(module), "window_kl": by_layer[name]} for name, module in layers.items()}
    return Losses({"format": types.format, "block": types.block, "window_tokens": tokens, "layers": its}, resumed)


def linears(model: Any, *, with_head: bool) -> dict[str, Any]:
    """Linear layers with a matrix of their own: no embeddings, and no head that is one, or `with_head` unset."""
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    is_left = head is not None and (head.weight is embedding.weight or not with_head)
    return {
        name: module
        for name, module in network.matrices(model).items()
        if "Embedding" not in type(module).__name__ and not (is_left and module is head)
    }


def shape(module: Any) -> tuple[int, int]:
    """[out, in], of a Conv1D too, whose weight is the other way round."""
    first, second = module.weight.shape
    return (second, first) if _is_transposed(module) else (first, second)


def _is_transposed(module: Any) -> bool:
    return type(module).__name__ == "Conv1D"


def _with_weight(module: Any, rounded: Callable[[Any, str], Any], choice: str) -> Any:
    """A copy of the layer whose weight was stored in that type."""
    import torch

    weight = module.weight.detach()
    oriented = weight.T if _is_transposed(module) else weight
    stored = torch.from_numpy(rounded(oriented.cpu().numpy(), choice)).to(weight.device, weight.dtype)
    changed = copy.copy(module)
    own = {"weight": torch.nn.Parameter(stored.T if _is_transposed(module) else stored, requires_grad=False)}
    changed._parameters = {**module._parameters, **own}  # noqa: SLF001  (of the copy alone)
    return changed
