"""What a GGUF model holds, by the rules of the audit of safetensors: the same words, the same counting.

The names are the format's own, whatever the model was converted from: the linear layers are known by them.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path

from bench.contract.errors import UserError
from bench.contract.record import Audit, Source
from bench.formats import gguf_reader
from bench.formats.folder import Tensor
from bench.formats.gguf_reader import Gguf

_NO_LINEAR = re.compile(r"(embd|embed|norm|conv|rope|rel_b|token_types|lerp)")
_HEAD = "output"
_WIDE_FILE = re.compile(r"(Q\d_K|IQ(?!4_NL)|TQ)")  # file types whose blocks have 256 weights
_BLOCK = 256
_NOTED_MOST = 4


def source(path: Path) -> Source:
    """What a method and a plan may know: linear layers as name -> (out, in), and a config of its metadata."""
    model = gguf_reader.read(path)
    known = {"model_type": model.architecture, "max_position_embeddings": model.context, "vocab_size": model.vocab_size}
    shapes = {n: (t.elements // t.shape[-1], t.shape[-1]) for n, t in _linears(model).items()}
    return Source("gguf", shapes, known)


def audit(path: Path) -> Audit:
    """Count what the file, its split or its folder stores. Stacked experts are linear layers too."""
    model = gguf_reader.read(path)
    linears = _linears(model)
    small = {name for name, tensor in linears.items() if _is_small(tensor)}
    parameters = sum(tensor.elements for tensor in linears.values())
    size = sum(tensor.size for tensor in linears.values())
    held = [f for f in path.rglob("*") if f.is_file()] if path.is_dir() else model.files
    return Audit(
        format="gguf",
        total_bytes=sum(file.stat().st_size for file in held),
        weight_bytes=sum(tensor.size for tensor in model.tensors.values()),
        parameters=sum(tensor.elements for tensor in model.tensors.values()),
        linear_parameters=parameters,
        linear_bytes=size,
        bits_per_weight=8 * size / parameters,
        quantized_fraction=sum(linears[name].elements for name in small) / parameters,
        tied_head=_HEAD not in linears,
        vocab_size=model.vocab_size,
        context=model.context,
        tensor_types=dict(sorted(Counter(tensor.dtype for tensor in model.tensors.values()).items())),
        notes=_notes(model, linears, small),
    )


def _linears(model: Gguf) -> dict[str, Tensor]:
    """Linear layers by name, without `.weight`; UserError when the file has none."""
    found = {}
    for name, tensor in model.tensors.items():
        layer = name.removesuffix(".weight")
        stacked = len(tensor.shape) == 3 and layer.endswith("_exps")
        if layer != name and (len(tensor.shape) == 2 or stacked) and not _NO_LINEAR.search(layer):
            found[layer] = tensor
    if not found:
        raise UserError(f"{model.files[0].name} stores no linear layer: it is no language model's GGUF file")
    return found


def _is_small(tensor: Tensor) -> bool:
    return 8 * tensor.size < 16 * tensor.elements


def _notes(model: Gguf, linears: Mapping[str, Tensor], small: set[str]) -> tuple[str, ...]:
    """Linear layers that a quantized file left wide, and those its type could not be had for."""
    notes = []
    if small and (whole := sorted(set(linears) - small)):
        notes.append(f"not quantized: {_first(whole, _NOTED_MOST)}")
    if _WIDE_FILE.match(model.file_type):
        notes += [
            f"rows of {row} are no multiple of {_BLOCK}, stored as {kind} instead: {_first(names, 1)}"
            for (row, kind), names in sorted(_fallbacks(linears).items())
        ]
    return tuple(notes)


def _fallbacks(linears: Mapping[str, Tensor]) -> dict[tuple[int, str], list[str]]:
    """Layers whose rows blocks of 256 do not divide, by row length and type; the quantizer only logs them.

    What is f32 was never meant to be quantized (a router of experts).
    """
    found: dict[tuple[int, str], list[str]] = defaultdict(list)
    for name, tensor in linears.items():
        if tensor.shape[-1] % _BLOCK and tensor.dtype != "f32":
            found[tensor.shape[-1], tensor.dtype].append(name)
    return dict(found)


def _first(names: list[str], most: int) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
