"""What an artifact's files hold, whoever wrote them: the receipt that a compression took place.

A tool that skips a layer, keeps scales in 32 bits or silently writes the baseline is the field's most common
wrong result. Nothing here asks a library: bytes are counted.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.contract.errors import UserError
from bench.contract.record import Audit, Source
from bench.formats import folder as model_folder
from bench.formats import gguf, onnx, openvino, sparsity, torchao
from bench.formats.folder import Tensor

Parts = dict[str, Tensor]

_METHODS = {"bitsandbytes": "bnb"}  # quant_method -> format, where the two differ
_NO_LINEAR = re.compile(r"(embed|wte$|wpe$|norm|^ln_|position|relative_attention_bias)", re.IGNORECASE)
# These architectures store linear weights as (in, out): transformers' Conv1D.
_TRANSPOSED = frozenset({"gpt2", "imagegpt", "openai-gpt", "decision_transformer"})
_TRANSPOSED_LAYERS = frozenset({"c_attn", "c_proj", "c_fc", "q_attn"})
_NOTED_MOST = 4
APART: Mapping[str, Any] = {"gguf": gguf, "onnx": onnx, "openvino": openvino}


def detect_format(folder: Path) -> str:
    """`gguf`, `onnx`, `openvino` by their files, `hf` for unquantized weights, else as config.json says."""
    if _is_gguf(folder):
        return "gguf"
    if onnx.is_onnx(folder):
        return "onnx"
    if (folder / openvino.GRAPH).is_file():
        return "openvino"
    method = str(model_folder.quantization(model_folder.read_config(folder)).get("quant_method") or "hf")
    return _METHODS.get(method, method)


def source(folder: Path) -> Source:
    """What a method may know of a model before it runs; shapes only where the format keeps them.

    UserError when the folder has no config, no weights, or a weight file that is missing or broken.
    """
    found = detect_format(folder)
    if found in APART:
        apart: Source = APART[found].source(folder)
        return apart
    config = model_folder.read_config(folder)
    header = model_folder.read_headers(folder)
    stored = header.tensors
    return Source(found, _shapes(stored, config) if found == "hf" else {}, config)


def audit(folder: Path, reference: Mapping[str, tuple[int, int]] | None, *, zeros: bool = False) -> Audit:
    """Count what is stored; with `zeros` the zeros too, for which every weight is read.

    `reference` has the unquantized model's linear layers, name -> (out, in). Without it, and in GGUF and
    ONNX, whose layers have names of their own, layers and their parameters are read from the format itself.
    Bits per weight are 8 x bytes stored under a layer's name, biases apart, over its parameters.
    """
    found = detect_format(folder)
    if found == "gguf":
        return gguf.audit(folder)
    if found == "onnx":
        return onnx.audit(folder)
    if found == "openvino":
        return openvino.audit(folder, reference)
    config = model_folder.read_config(folder)
    header = model_folder.read_headers(folder)
    stored = header.tensors
    layers = _modules(stored)
    tied = _tied(layers, config)
    own = torchao.kinds(header.metadata) if found == "torchao" else {}
    derived = {**_derived(layers, config), **torchao.shapes(own, layers)}
    shapes = reference if reference is not None else derived
    linears = {n: o * i for n, (o, i) in shapes.items() if n in layers and not (tied and model_folder.is_head(n))}
    if not linears:
        raise UserError(f"{folder.name} stores none of the model's linear layers under their names")
    sizes = {name: _weight_bytes(layers[name]) for name in linears}
    small = {name for name in linears if 8 * sizes[name] < 16 * linears[name]}
    parameters, size = sum(linears.values()), sum(sizes.values())
    sparse = sparsity.count(folder, linears) if zeros and found == "hf" else None
    return Audit(
        format=found,
        total_bytes=sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()),
        weight_bytes=sum(tensor.size for tensor in stored.values()),
        parameters=parameters + _other_elements(layers, linears),
        linear_parameters=parameters,
        linear_bytes=size,
        bits_per_weight=8 * size / parameters,
        quantized_fraction=sum(linears[name] for name in small) / parameters,
        tied_head=tied,
        vocab_size=model_folder.vocab_size(config),
        context=model_folder.context_length(config),
        tensor_types=dict(sorted(Counter(tensor.dtype for tensor in stored.values()).items())),
        notes=(*_notes(found, linears, small, shapes, layers, stored), *torchao.notes(own, linears, layers)),
        zero_fraction=sparse[0] if sparse else None,
        two_of_four_fraction=sparse[1] if sparse else None,
    )


def _is_gguf(folder: Path) -> bool:
    if folder.is_file():
        return folder.suffix == ".gguf"
    return any(folder.glob("*.gguf")) and not any(folder.glob("*.safetensors"))


def _shapes(stored: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """Linear layers of an unquantized model, name -> (out, in); a head that is tied is not one."""
    found = {}
    layers = _modules(stored)
    tied = _tied(layers, config)
    for name, parts in layers.items():
        weight = parts.get("weight")
        if (
            weight is None
            or len(weight.shape) != 2
            or not _may_be_linear(name)
            or (tied and model_folder.is_head(name))
        ):
            continue
        first, second = weight.shape
        swapped = config.get("model_type") in _TRANSPOSED and _last(name) in _TRANSPOSED_LAYERS
        found[name] = (second, first) if swapped else (first, second)
    return found


def _derived(layers: Mapping[str, Parts], config: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """Linear layers as a quantized format tells of them, as name -> (1, parameters)."""
    bits = _bits(model_folder.quantization(config))
    found = {}
    for name, parts in layers.items():
        if (packed := parts.get("qweight") or parts.get("weight_packed")) is not None:
            found[name] = (1, 8 * packed.size // bits)
        elif (weight := parts.get("weight")) is not None and _may_be_linear(name):
            if "weight.absmax" in parts:  # bitsandbytes: two 4-bit values in a byte, whatever the type is called
                found[name] = (1, 2 * weight.size)
            elif len(weight.shape) == 2:
                found[name] = (1, weight.elements)
    return found


def _bits(quantization: Mapping[str, Any]) -> int:
    groups: list[dict[str, Any]] = list((quantization.get("config_groups") or {}).values())
    weights = (groups[0].get("weights") if groups else None) or {}
    return int(quantization.get("bits") or quantization.get("w_bit") or weights.get("num_bits") or 4)


def _modules(stored: Mapping[str, Tensor]) -> dict[str, Parts]:
    """Stored tensors by their module: {"model.layers.0.mlp.up_proj": {"qweight": ..., "bias": ...}}.

    bitsandbytes stores parts of one weight as `weight.absmax` and the like: they are the same module's.
    """
    found: dict[str, Parts] = defaultdict(dict)
    for name, tensor in stored.items():
        module, _, leaf = name.partition(".weight.") if ".weight." in name else name.rpartition(".")
        found[module][f"weight.{leaf}" if ".weight." in name else leaf] = tensor
    return dict(found)


def _weight_bytes(parts: Parts) -> int:
    return sum(tensor.size for leaf, tensor in parts.items() if leaf != "bias")


def _other_elements(layers: Mapping[str, Parts], linears: Mapping[str, int]) -> int:
    """Elements stored outside the linear weights: embeddings, norms, biases."""
    return sum(
        tensor.elements
        for name, parts in layers.items()
        for leaf, tensor in parts.items()
        if name not in linears or leaf == "bias"
    )


def _tied(layers: Mapping[str, Parts], config: Mapping[str, Any]) -> bool:
    return model_folder.ties_head(config) or not any(model_folder.is_head(name) for name in layers)


def _notes(
    found: str,
    linears: Mapping[str, int],
    small: set[str],
    shapes: Mapping[str, tuple[int, int]],
    layers: Mapping[str, Parts],
    stored: Mapping[str, Tensor],
) -> tuple[str, ...]:
    notes = []
    if found != "hf" and (whole := sorted(set(linears) - small)):
        notes.append(f"not quantized: {_some(whole)}")
    if lost := sorted(set(shapes) - set(layers)):
        notes.append(f"not stored under its name: {_some(lost)}")
    if experts := sorted(name for name, tensor in stored.items() if "expert" in name and len(tensor.shape) == 3):
        notes.append(f"stacked experts, not counted as linear layers: {_some(experts)}")
    return tuple(notes)


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _NOTED_MOST} more" if len(names) > _NOTED_MOST else ""
    return ", ".join(names[:_NOTED_MOST]) + more


def _may_be_linear(name: str) -> bool:
    return model_folder.is_head(name) or not _NO_LINEAR.search(_last(name))


def _last(name: str) -> str:
    return name.rpartition(".")[2]
