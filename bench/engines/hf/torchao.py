"""torchao artifacts in Transformers: loading what it forgets to load, and how activations are quantized."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from bench.contract.errors import UserError
from bench.engines._receipts import counts, dtype_name
from bench.engines.hf import receipts

_STATIC = ("act_quant_scale", "act_quant_zero_point")


@contextmanager
def static_scales() -> Iterator[None]:
    """Let Transformers (5.23) load static activation scales, which it saves but does not list among the parts."""
    from transformers.quantizers.quantizer_torchao import TorchAoHfQuantizer

    original = TorchAoHfQuantizer.serialized_names

    def names(self: Any) -> dict[str, list[str]]:
        listed: dict[str, list[str]] = original.fget(self)
        return {name: [*parts, *(f"_{name}_{part}" for part in _STATIC)] for name, parts in listed.items()}

    TorchAoHfQuantizer.serialized_names = property(names)
    try:
        yield
    finally:
        TorchAoHfQuantizer.serialized_names = original


def check_dtype(model: Any) -> None:
    """UserError when weights unpack to another type than activations have: kernels would fail, or mix the two."""
    compute = model.get_input_embeddings().weight.dtype
    for tensor in model.parameters():
        if receipts.is_composed(tensor) and tensor.dtype != compute:
            stored, dtype = dtype_name(tensor.dtype), dtype_name(compute)
            raise UserError(
                f"this torchao artifact computes in {stored} only, not in {dtype}: set the engine's dtype to "
                f"{stored}, or the method's to {dtype}"
            )


def activations(modules: Sequence[Any]) -> str:
    """'int8 per token, dynamic x35': how the layers that quantize their inputs do it; '' where none does."""
    schemes = (_activation(module.weight) for module in modules if hasattr(module, "weight"))
    return counts(scheme for scheme in schemes if scheme)


def _activation(weight: Any) -> str:
    if scheme := getattr(weight, "activation_quantization", None):
        kind, _, rest = str(getattr(scheme, "value", scheme)).partition("_")
        return f"{kind} {rest.replace('_', ' ').replace('asym', 'asymmetric')}, dynamic"
    arguments = getattr(weight, "act_quant_kwargs", None)
    if arguments is None:
        return ""
    kind = dtype_name(getattr(arguments, "float8_dtype", "int8"))
    unit = {"PerRow": "token", "PerTensor": "layer"}.get(type(arguments.granularity).__name__, "block")
    is_static = getattr(weight, "act_quant_scale", None) is not None
    return f"{kind} per {unit}, {'static' if is_static else 'dynamic'}"
