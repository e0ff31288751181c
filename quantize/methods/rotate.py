"""Rotations before a quantizer, fused into the weights by llm-compressor: the same model, with fewer outliers.

SpinQuant's R1 and R2 (Liu et al., 2024, arXiv:2405.16406) as Hadamard matrices, as in QuaRot (arXiv:2404.00456): R1
turns the residual stream, R2 the values of each attention head. Norms are fused into the layers that read them, so that
a tied head becomes a weight of its own. Rotations of activations at run time (R3, R4, QuIP) need a kernel for each
engine, and are left out.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from bench.contract.record import Hardware, Source
from bench.formats import folder as model_folder
from quantize import transformer
from quantize.first_token import replaced

ENV = "llmcompressor"
VERSION = 1
READS = frozenset({"hf"})
WRITES = "hf"
_MODELS = frozenset({"llama", "mistral", "qwen2", "qwen3"})  # norms without offset, before each part that reads them
_LARGEST_KNOWN = 256
_CODES = {"r1": ("R1",), "r2": ("R2",), "r1r2": ("R1", "R2")}


@dataclass(frozen=True)
class Options:
    """`kind` hadamard: of widths that are powers of two; random-hadamard: of multiples such as 576; random-matrix: any.

    Random ones are always the same: the library seeds them itself.
    """

    rotations: Literal["r1r2", "r1", "r2"] = "r1r2"
    kind: Literal["hadamard", "random-hadamard", "random-matrix"] = "random-hadamard"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"


def unsupported(options: Options, source: Source, hardware: Hardware) -> str | None:
    kind = str(source.config.get("model_type"))
    if kind not in _MODELS:
        return f"rotate knows where the norms of {', '.join(sorted(_MODELS))} are, not those of {kind}"
    widths = {"r1": (model_folder.hidden_size(source.config),), "r2": (_head_dim(source.config),)}
    chosen = [size for name in ("r1", "r2") if name in options.rotations for size in widths[name]]
    if options.kind == "hadamard" and (odd := next((size for size in chosen if size & (size - 1)), 0)):
        return f"a plain Hadamard matrix has a power of two of rows, not {odd}: set kind: random-hadamard"
    if options.kind == "random-hadamard" and (odd := next((size for size in chosen if not _has_hadamard(size)), 0)):
        return f"llm-compressor knows no Hadamard matrix of {odd} rows: set kind: random-matrix"
    return None


def _has_hadamard(size: int) -> bool:
    """Whether the library builds one: it has those of multiples of 4 up to 256, and doubles them."""
    odd = size
    while odd and odd % 2 == 0:
        odd //= 2
    return odd <= 1 or (4 * odd <= _LARGEST_KNOWN and size % (4 * odd) == 0)


def output_source(options: Options, source: Source) -> Source:
    """The same layers, and a head of its own where it was the embedding."""
    head = (model_folder.vocab_size(source.config), model_folder.hidden_size(source.config))
    linears = {"lm_head": head, **source.linears} if all(head) else source.linears
    return replace(source, linears=linears, config={**source.config, "tie_word_embeddings": False})


def apply(folder: Path, options: Options, out: Path, device: str) -> Mapping[str, Any]:
    """Rotate the weights in float64, and store them as they were."""
    from llmcompressor import oneshot
    from llmcompressor.modifiers.transform.spinquant import SpinQuantModifier

    began = time.perf_counter()
    model = transformer.load(folder, device)
    modifier = SpinQuantModifier(rotations=list(_CODES[options.rotations]), transform_type=options.kind)
    # It takes the mean off each embedding, which a LayerNorm would: to these norms it is another input.
    with replaced(SpinQuantModifier, "_center_embeddings", lambda *_: None):
        oneshot(model=model, recipe=[modifier])
    rotated = time.perf_counter()
    transformer.save(model, folder, out, options.dtype, {"tie_word_embeddings": False})
    return {"rotations": list(_CODES[options.rotations]), "rotate_s": rotated - began}


def _head_dim(config: Mapping[str, Any]) -> int:
    stated = model_folder.size(config, "head_dim")
    heads = model_folder.size(config, "num_attention_heads")
    return stated or (model_folder.hidden_size(config) // heads if heads else 0)
