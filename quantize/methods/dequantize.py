"""A quantized GGUF file back to a model folder with plain floats, which every other method and engine takes.

Tensors and config by Transformers, the tokenizer by llama.cpp's own ids (bench/formats/gguf_tokenizer.py). What comes
out is run beside llama.cpp on the file itself: where a rotary setting, a norm or a window is lost, they differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.contract.record import Source
from bench.formats import folder as model_folder
from quantize.backends import gguf_weights

ENV = "llamacpp"
VERSION = 1
READS = frozenset({"gguf"})
WRITES = "hf"
OPENS_SOURCES = True


@dataclass(frozen=True)
class Options:
    """None: the file decides; weights are written in float32, as which every GGUF type is exact."""


def is_lossless(options: Options) -> bool:
    return True


def output_source(options: Options, source: Source) -> Source:
    """Linear layers by the names of GGUF; the head by Transformers', whose layers are the same matrices."""
    linears = {("lm_head" if name == "output" else name): shape for name, shape in source.linears.items()}
    return Source(WRITES, linears, source.config)


def apply(folder: Path, options: Options, out: Path, device: str) -> Mapping[str, Any]:
    """Write the folder; UserError for what Transformers has no class for, or reads otherwise than llama.cpp."""
    file = folder if folder.is_file() else min(folder.glob("*.gguf"))
    facts = gguf_weights.write(file, out)
    model_folder.require_weights(out)
    return facts
