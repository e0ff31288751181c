"""What a GGUF model holds, by the rules of the audit of safetensors: the same words, the same counting.

The names are the format's own, whatever the model was converted from: the linear layers are known by them.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from bench.contract.errors import UserError
from bench.contract.record import Architecture, Audit, Parameters, Source
from bench.formats import architecture as decoder
from bench.formats import counting, gguf_reader, gguf_tokenizer, language_model
from bench.formats.counting import Linear
from bench.formats.folder import Tensor
from bench.formats.gguf_reader import Gguf, files, part_pattern, several_models

__all__ = ["files", "part_pattern", "several_models"]  # hooks that are shared

FORMATS = ("gguf",)
FLOATS = "none"
FILES = ("*.gguf", "*.GGUF")
SUFFIX = ".gguf"
TOKENIZER_ENV = "llamacpp"  # Transformers reads a GGUF file's only where it has torch
_NOT_LINEAR = re.compile(r"(embd|embed|norm|conv|rope|rel_b|token_types|lerp)")
_EMBEDDING, _HEAD = "token_embd.weight", "output"
_WIDE_FILE = re.compile(r"(Q\d_K|IQ(?!4_NL)|TQ)")  # file types whose blocks have 256 weights
_BLOCK = 256


def detect(folder: Path) -> str | None:
    """A .gguf file, or a folder of one without safetensors."""
    is_gguf = folder.suffix == ".gguf" if folder.is_file() else any(folder.glob("*.gguf"))
    return "gguf" if is_gguf and not any(folder.glob("*.safetensors")) else None


def source(name: str, folder: Path) -> Source:
    """Linear layers as name -> (out, in), and a config of the file's metadata."""
    model = gguf_reader.read(folder)
    shapes = {n: (t.elements // t.shape[-1], t.shape[-1]) for n, t in _linears(model).items()}
    return Source(name, shapes, _config(model))


def audit(name: str, folder: Path, reference: Mapping[str, tuple[int, int]] | None, *, zeros: bool) -> Audit:
    """Count what the file, its split or its folder stores. Stacked experts are linear layers too."""
    del reference, zeros
    model = gguf_reader.read(folder)
    tensors = _linears(model)
    linears = {layer: Linear(tensor.elements, tensor.size) for layer, tensor in tensors.items()}
    elements = sum(tensor.elements for tensor in model.tensors.values())
    return counting.audit(
        name,
        counting.all_files(folder) if folder.is_dir() else model.files,
        linears,
        list(model.tensors.values()),
        _config(model),
        other_parameters=elements - sum(linear.parameters for linear in linears.values()),
        tied_head=_HEAD not in linears,
        notes=[*counting.partly_quantized(linears), *_fallbacks(model, tensors)],
    )


def parameters(folder: Path) -> Parameters:
    """The embedding may stay in the host's memory where the head is another tensor."""
    tensors = gguf_reader.read(folder).tensors
    embedding = tensors.get(_EMBEDDING)
    rest = embedding.elements if embedding else 0
    on_host = embedding.size if embedding and f"{_HEAD}.weight" in tensors else 0
    elements = sum(tensor.elements for tensor in tensors.values())
    size = sum(tensor.size for tensor in tensors.values())
    return Parameters(elements - rest, rest, size - on_host, architecture(folder))


def architecture(folder: Path) -> Architecture | None:
    return decoder.of_gguf(gguf_reader.read(folder))


def stored_types(folder: Path) -> dict[str, str]:
    return {layer: tensor.dtype for layer, tensor in _linears(gguf_reader.read(folder)).items()}


def tokenizer(folder: Path, out: Path) -> None:
    """As tokenizer.json, which cuts text as llama.cpp does with the GGUF file that `folder` is or holds."""
    gguf_tokenizer.write(files(folder)[0], out)


def _config(model: Gguf) -> dict[str, str | int]:
    return {"model_type": model.architecture, "max_position_embeddings": model.context, "vocab_size": model.vocab_size}


def _linears(model: Gguf) -> dict[str, Tensor]:
    """Linear layers by name, without `.weight`; UserError when the file has none, or is no decoder's."""
    if kind := language_model.other_gguf(model.metadata):
        raise UserError(f"{model.files[0].name} is {kind}, and no decoder: name a causal language model's own file")
    linears = {}
    for name, tensor in model.tensors.items():
        layer = name.removesuffix(".weight")
        stacked = len(tensor.shape) == 3 and layer.endswith("_exps")
        if layer != name and (len(tensor.shape) == 2 or stacked) and tensor.elements and not _NOT_LINEAR.search(layer):
            linears[layer] = tensor
    if not linears:
        raise UserError(f"{model.files[0].name} stores no linear layer: it is not a language model's GGUF file")
    return linears


def _fallbacks(model: Gguf, linears: Mapping[str, Tensor]) -> list[str]:
    """Notes of layers whose rows 256 does not divide, which the quantizer only logs; f32 ones (routers) are meant."""
    if not _WIDE_FILE.match(model.file_type):
        return []
    layers: dict[tuple[int, str], list[str]] = defaultdict(list)
    for name, tensor in linears.items():
        if tensor.shape[-1] % _BLOCK and tensor.dtype != "f32":
            layers[tensor.shape[-1], tensor.dtype].append(name)
    return [
        note
        for (row, dtype), names in sorted(layers.items())
        for note in counting.note(f"rows of {row} are no multiple of {_BLOCK}, stored as {dtype} instead", names, 1)
    ]
