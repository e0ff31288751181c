"""What each linear layer of a model costs in each of some types, alone: the losses that a budget is spent by."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
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
class Losses:
    """`content`: of the file that is written; `resumed`: measurements of an interrupted run."""

    content: dict[str, Any]
    resumed: int


def measure(
    folder: Path, kind: mixed.Format, choices: Sequence[str], text: Calibration, device: str, work: Path
) -> Losses:
    """Sums of KL (nats) by window of the text, for each linear layer and each type that it can be stored in."""
    model = network.load(folder, device)
    layers = linears(model)
    if not layers:
        raise UserError("the model has no linear layers of its own: mixed types have nothing to choose")
    windows = [Window(0, ids, 1, 0) for ids in text.ids]
    net = network.Network(model, [window.ids for window in windows])
    units = [
        Unit(f"{name}{_AT}{choice}", (name,), "", choice, net.start(name), 0)
        for name, module in layers.items()
        for choice in choices
        if mixed.fits(kind, choice, shape(module))
    ]
    units.sort(key=lambda unit: unit.start)
    rounded = _ROUNDED[kind]

    def replaced(unit: Unit) -> Mapping[str, Any]:
        name = unit.layers[0]
        return {name: _with_weight(layers[name], rounded, unit.kind)}

    meter = layer_measure.Meter(net, windows, work)
    done, resumed = layer_measure.one_at_a_time(meter, units, replaced, f"{text.sha256}/{len(windows)}/{kind}")
    meter.close()
    return Losses(
        {
            "format": kind,
            "window_tokens": [window.scored for window in windows],
            "layers": {
                name: {
                    "shape": shape(module),
                    "window_kl": {c: done[f"{name}{_AT}{c}"] for c in choices if f"{name}{_AT}{c}" in done},
                }
                for name, module in layers.items()
            },
        },
        resumed,
    )


def linears(model: Any) -> dict[str, Any]:
    """Linear layers with a matrix of their own: no embeddings, and no head that is one."""
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    shares = head is not None and head.weight is embedding.weight
    return {
        name: module
        for name, module in network.matrices(model).items()
        if "Embedding" not in type(module).__name__ and not (shares and module is head)
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


def _ggml(weight: Any, choice: str) -> Any:
    from quantize.backends import ggml

    return ggml.rounded(weight, choice)


_ROUNDED: Mapping[str, Callable[[Any, str], Any]] = {"gguf": _ggml}
