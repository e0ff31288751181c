"""Single layers of a loaded Transformers model, to be put into the unquantized one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench.engines.hf import packed


def matrices(own: Any, model: Any, device: str) -> Mapping[str, Any]:
    """Modules of `own` by the names of those of `model` that have a matrix as their weight."""
    if device == "cpu":
        packed.unround(own)
    names = {name for name, module in model.named_modules() if _has_matrix(module)}
    its = {name: module for name, module in own.named_modules() if name in names}
    return its if device == "cpu" else {name: _cast(module, own.dtype) for name, module in its.items()}


def others(own: Any, model: Any) -> Mapping[str, Any]:
    """Tensors of `own` that belong to no module of `matrices`."""
    layers = tuple(f"{name}." for name, module in model.named_modules() if _has_matrix(module))
    return {name: tensor for name, tensor in own.named_parameters() if not name.startswith(layers)}


def _has_matrix(module: Any) -> bool:
    weight = getattr(module, "weight", None)
    return getattr(weight, "ndim", 0) == 2 and next(module.children(), None) is None


def _cast(module: Any, dtype: Any) -> Any:
    """The module between float32 activations, where its kernels take 16 bits alone."""
    import torch

    class Cast(torch.nn.Module):  # type: ignore[misc]  # torch has no types here
        def __init__(self) -> None:
            super().__init__()
            self.inner = module

        @property
        def weight(self) -> Any:
            """The layer's own, by which one that is not quantized is told."""
            return getattr(module, "weight", None)

        def forward(self, inputs: Any) -> Any:
            floats = inputs.to(dtype) if inputs.is_floating_point() else inputs
            return module(floats).to(torch.float32)

    return Cast()
