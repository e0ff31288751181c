"""Checkpoints whose linear weights are packed: GPTQ, AWQ, bitsandbytes, and compressed-tensors (llm-compressor)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from bench.contract.record import Audit
from bench.formats import checkpoint
from bench.formats.checkpoint import architecture, parameters, source

__all__ = ["architecture", "parameters", "source"]  # hooks that are shared

FORMATS = ("awq", "bnb", "compressed-tensors", "gptq")
FLOATS = "unquantized"
FILES = ("*.safetensors",)
_BY_QUANT_METHOD = {**{name: name for name in FORMATS if name != "bnb"}, "bitsandbytes": "bnb"}


def detect(folder: Path) -> str | None:
    return _BY_QUANT_METHOD.get(checkpoint.quant_method(folder) or "")


def audit(name: str, folder: Path, reference: Mapping[str, tuple[int, int]] | None, *, zeros: bool) -> Audit:
    del zeros
    model = checkpoint.read(folder)
    linears = checkpoint.linears(model, checkpoint.packed_parameters(model), reference)
    return checkpoint.audit(name, model, linears, reference)
