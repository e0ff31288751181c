"""Checkpoints of transformers: config.json and safetensors files, whose tensors are counted by module.

A tool that skips a layer, keeps scales in 32 bits or silently writes the baseline is the field's most common
wrong result. Nothing here asks a library: bytes are counted.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from bench.contract.errors import UserError
from bench.contract.record import Architecture, Audit, Parameters, Source
from bench.formats import architecture as decoder
from bench.formats import counting, packing
from bench.formats import folder as model_folder
from bench.formats.counting import Linear
from bench.formats.folder import Tensor

Shapes = Mapping[str, tuple[int, int]]

_EMBEDDING = re.compile(r"(embed|wte$)", re.IGNORECASE)
_NOT_LINEAR = re.compile(r"(embed|wte$|wpe$|norm|^ln_|position|relative_attention_bias)", re.IGNORECASE)
# These architectures store linear weights as (in, out): transformers' Conv1D.
_TRANSPOSED = frozenset({"gpt2", "imagegpt", "openai-gpt", "decision_transformer"})
_TRANSPOSED_LAYERS = frozenset({"c_attn", "c_proj", "c_fc", "q_attn"})
_WIDEST = 32
# Stored by older versions and computed by today's: masks, and tables of positions.
_BUFFERS = frozenset({"inv_freq", "masked_bias", "position_ids"})


@dataclass(frozen=True)
class Checkpoint:
    """`modules`: stored tensors by their module, {"model.layers.0.mlp.up_proj": {"qweight": ..., "bias": ...}}."""

    folder: Path
    config: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]
    modules: Mapping[str, Mapping[str, Tensor]]

    @cached_property
    def tied_head(self) -> bool:
        """Whether the head is the embedding: it is not stored, or as a copy where config or class ties the two.

        As transformers does, which ties no stored head that differs from the embedding.
        """
        head = next(filter(model_folder.is_head, self.modules), None)
        return head is None or (bool(model_folder.ties_head(self.config)) and self._copies_embedding(head))

    def _copies_embedding(self, head: str) -> bool:
        weight = self.modules[head].get("weight")
        return weight is not None and any(
            (other.dtype, other.shape) == (weight.dtype, weight.shape)
            and model_folder.have_equal_bytes(self.folder, f"{head}.weight", f"{module}.weight")
            for module, parts in self.modules.items()
            if _EMBEDDING.search(_last(module)) and (other := parts.get("weight"))
        )

    def parameters(self) -> Iterator[tuple[str, str, Tensor]]:
        """(module, part, tensor) of what is stored, without buffers and a tied head's own copy of the embedding."""
        for module, parts in self.modules.items():
            if not (self.tied_head and model_folder.is_head(module)):
                for part, tensor in parts.items():
                    if part not in _BUFFERS and not (part == "bias" and len(tensor.shape) > 2):  # a causal mask
                        yield module, part, tensor

    def may_be_linear(self, module: str) -> bool:
        """Whether the weight of a module of this name multiplies; a tied head is no weight of its own."""
        if model_folder.is_head(module):
            return not self.tied_head
        return not _NOT_LINEAR.search(_last(module))


def quant_method(folder: Path) -> str | None:
    """The quant_method of a folder with safetensors, "" of one that is not quantized; None for other folders."""
    if not (folder / model_folder.CONFIG).is_file() or not any(folder.glob("*.safetensors")):
        return None
    settings = model_folder.quantization(model_folder.read_config(folder))
    by_flag = "bitsandbytes" if settings.get("load_in_4bit") or settings.get("load_in_8bit") else ""
    return str(settings.get("quant_method") or by_flag)


def read(folder: Path) -> Checkpoint:
    """UserError when the folder has no config, no weights, or a weight file that is missing or broken."""
    config, header = model_folder.read_config(folder), model_folder.read_headers(folder)
    modules: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for name, tensor in header.tensors.items():
        # bitsandbytes stores parts of one weight as `weight.absmax` and the like: they are the same module's.
        module, _, part = name.partition(".weight.") if ".weight." in name else name.rpartition(".")
        modules[module][f"weight.{part}" if ".weight." in name else part] = tensor
    return Checkpoint(folder, config, header.tensors, header.metadata, dict(modules))


def linear_shapes(model: Checkpoint) -> dict[str, tuple[int, int]]:
    """Linear layers that are stored as plain matrices, name -> (out, in)."""
    shapes = {}
    for name, parts in model.modules.items():
        weight = parts.get("weight")
        if weight is not None and len(weight.shape) == 2 and weight.elements and model.may_be_linear(name):
            first, second = weight.shape
            shapes[name] = (second, first) if is_transposed(model, name) else (first, second)
    return shapes


def is_transposed(model: Checkpoint, module: str) -> bool:
    """Whether the module's weight is stored as (in, out)."""
    return str(model.config.get("model_type")) in _TRANSPOSED and _last(module) in _TRANSPOSED_LAYERS


def packed_parameters(model: Checkpoint) -> dict[str, int]:
    """Parameters of the layers whose values are packed into integers, by name."""
    bits, counts = _bits(model_folder.quantization(model.config)), {}
    for name, parts in model.modules.items():
        if values := packing.unpacked(parts, bits):
            counts[name] = values
        elif "weight" in parts and "weight.absmax" in parts and model.may_be_linear(name):
            # bitsandbytes: two 4-bit values in a byte, whatever the type is called
            counts[name] = 2 * parts["weight"].size
    return counts


def linears(model: Checkpoint, quantized: Mapping[str, int], reference: Shapes | None) -> dict[str, Linear]:
    """Linear layers by name; by `reference`, else by what is stored, parameters of `quantized` ones as given there."""
    if reference is None:
        plain = {name: out * inputs for name, (out, inputs) in linear_shapes(model).items()}
        counts = {**plain, **quantized}
    else:
        counts = {name: out * inputs for name, (out, inputs) in reference.items() if name in model.modules}
    layers = {
        name: Linear(count, sum(tensor.size for part, tensor in model.modules[name].items() if part != "bias"))
        for name, count in counts.items()
        if not (model.tied_head and model_folder.is_head(name))
    }
    if not layers:
        raise UserError(f"{model.folder.name} stores none of the model's linear layers under their names")
    return layers


def audit(
    name: str,
    model: Checkpoint,
    layers: Mapping[str, Linear],
    reference: Shapes | None,
    *,
    quantized: bool = True,
    notes: Iterable[str] = (),
) -> Audit:
    """The account of a checkpoint with these linear layers; of a quantized one with a note of those left wide."""
    wide = sorted(layer for layer, linear in layers.items() if quantized and not linear.is_quantized)
    others = sum(t.elements for module, part, t in model.parameters() if module not in layers or part == "bias")
    experts = sorted(name for name, tensor in model.tensors.items() if "expert" in name and len(tensor.shape) == 3)
    return counting.audit(
        name,
        counting.all_files(model.folder),
        layers,
        list(model.tensors.values()),
        model.config,
        other_parameters=others,
        tied_head=model.tied_head,
        notes=[
            *counting.note("not quantized", wide),
            *counting.note("not stored under its name", sorted(set(reference or ()) - set(model.modules))),
            *counting.note("stacked experts, not counted as linear layers", experts),
            *notes,
        ],
    )


def parameters(folder: Path) -> Parameters:
    """Of a quantized checkpoint, whose linear layers have the bits they are stored in: all are the rest."""
    return count_parameters(read(folder), {})


def count_parameters(model: Checkpoint, shapes: Shapes) -> Parameters:
    """Those of the linear layers with these shapes, without the head, and the rest."""
    linear = sum(out * inputs for name, (out, inputs) in shapes.items() if not model_folder.is_head(name))
    stored = [tensor for _, _, tensor in model.parameters()]
    elements, stored_bytes = sum(tensor.elements for tensor in stored), sum(tensor.size for tensor in stored)
    return Parameters(linear, max(0, elements - linear), stored_bytes, _architecture(model))


def source(name: str, folder: Path) -> Source:
    """Of a quantized checkpoint, which does not keep the shapes of its linear layers."""
    return Source(name, {}, read(folder).config)


def architecture(folder: Path) -> Architecture | None:
    return _architecture(read(folder))


def _architecture(model: Checkpoint) -> Architecture | None:
    shapes = {} if model_folder.quantization(model.config) else linear_shapes(model)
    described = decoder.of_config(model.config, shapes)
    return described and replace(described, tied_head=model.tied_head)


def _bits(quantization: Mapping[str, Any]) -> int:
    """Bits of the packed values, for layers whose shapes do not tell; 4, the usual number, where nothing says."""
    groups = quantization.get("config_groups")
    first = next(iter(groups.values()), None) if isinstance(groups, Mapping) else None
    weights = first.get("weights") if isinstance(first, Mapping) else None
    inner = weights.get("num_bits") if isinstance(weights, Mapping) else None
    given = (quantization.get("bits"), quantization.get("w_bit"), inner)
    return next((bits for bits in given if isinstance(bits, int) and 0 < bits <= _WIDEST), 4)


def _last(name: str) -> str:
    return name.rpartition(".")[2]
