"""Checkpoints of compressed-tensors, the format of llm-compressor: weights packed, or in 8 bits of their own type."""

from __future__ import annotations

from pathlib import Path

from bench.formats import checkpoint
from bench.formats.checkpoint import architecture, parameters, source
from bench.formats.packed import audit

__all__ = ["architecture", "audit", "parameters", "source"]  # hooks that are shared

FORMATS = ("compressed-tensors",)
FLOATS = "unquantized"
FILES = ("*.safetensors",)


def detect(folder: Path) -> str | None:
    method = checkpoint.quant_method(folder)
    return method if method in FORMATS else None
