"""compressed-tensors in Transformers: weights unpacked when they are loaded, and how the layers' inputs are rounded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bench.engines._receipts import counts, dtype_name

_KINDS = {("float", 4): "float4_e2m1", ("float", 8): "float8_e4m3fn"}
_UNITS = {"token": "token", "tensor": "layer", "channel": "channel"}


def unpack(model: Any) -> None:
    """Unpack all layers into the type that the model computes in.

    The library would do it at the first pass, floats in blocks always to bfloat16: a model in another type then fails.
    """
    from torch.nn import Parameter

    compressor = getattr(getattr(model, "hf_quantizer", None), "compressor", None)
    if compressor is None:
        return
    if hasattr(model, "ct_decompress_hook"):
        compressor.decompress_model(model)
    dtype = model.get_input_embeddings().weight.dtype
    for layer, _ in _layers(model):
        if (weight := layer.weight).dtype != dtype:
            del layer.weight  # as the library replaces one, whose parameters are in a cache of its own
            layer.weight = Parameter(weight.to(dtype), requires_grad=False)


def receipts(model: Any) -> dict[str, str]:
    """`unpacked`: from which formats to which type, 'nvfp4-pack-quantized to float32 x35'; `activations`.

    {} where the model has no layer of compressed-tensors.
    """
    layers = list(_layers(model))
    if not layers:
        return {}
    formats = (f"{_value(scheme.format)} to {dtype_name(layer.weight.dtype)}" for layer, scheme in layers)
    rounded = (_rounding(scheme.input_activations) for _, scheme in layers)
    return {"unpacked": counts(formats), "activations": counts(rounded)}


def _layers(model: Any) -> Iterator[tuple[Any, Any]]:
    """Each layer whose weights are stored in a scheme, with that."""
    for module in model.modules():
        scheme = getattr(module, "quantization_scheme", None)
        if getattr(scheme, "weights", None) is not None and getattr(module, "weight", None) is not None:
            yield module, scheme


def _rounding(arguments: Any) -> str:
    """How the inputs of a layer are rounded: the library rounds them in floats, and multiplies those."""
    if arguments is None:
        return "not rounded"
    kind, bits, strategy = _value(arguments.type), arguments.num_bits, _value(arguments.strategy)
    unit = _UNITS.get(strategy) or f"{arguments.group_size} inputs"
    when = {True: "dynamic", False: "static"}.get(arguments.dynamic, "dynamic, global scale static")
    return f"{_KINDS.get((kind, bits), f'{kind}{bits}')} per {unit}, {when}, simulated"


def _value(name: Any) -> str:
    return str(getattr(name, "value", name))
