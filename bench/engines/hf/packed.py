"""GPTQ and AWQ layers of gptqmodel: what their kernels multiply in, and the same without a kernel's rounding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench.contract.errors import UserError

_ROUNDING = ("TorchAtenLinear", "TorchAtenAwqLinear")  # to bfloat16: inputs, scales and outputs, whatever was asked for


def make_exact(model: Any) -> None:
    """Let packed layers multiply by their weights in float32, unpacked at each pass; UserError where one cannot."""
    layers = [module for module in model.modules() if hasattr(module, "qweight") and hasattr(module, "scales")]
    if other := sorted({type(layer).__name__ for layer in layers if not _unpacks(layer)}):
        raise UserError(f"the kernel {other[0]} has no exact form: leave the option exact out")
    for layer in layers:
        _unpack(layer)


def rounded(modules: Sequence[Any]) -> tuple[str, ...]:
    """The classes among these layers that multiply in bfloat16."""
    chosen = [module for module in modules if type(module).__name__ in _ROUNDING]
    return tuple(sorted({type(module).__name__ for module in chosen if module.linear_mode != "train"}))


def unround(model: Any) -> None:
    """As `make_exact`, of those layers alone whose kernel rounds."""
    for layer in filter(_unpacks, model.modules()):
        _unpack(layer)


def _unpack(layer: Any) -> None:
    import torch

    layer.scales = layer.scales.to(torch.float32)
    layer.linear_mode = "train"  # its own word for the way that unpacks


def _unpacks(layer: Any) -> bool:
    return type(layer).__name__ in _ROUNDING
