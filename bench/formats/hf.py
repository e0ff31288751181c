"""Weights as they are published: plain floats in safetensors, with the config.json of transformers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from bench.contract.record import Audit, Parameters, Source
from bench.formats import checkpoint, sparsity
from bench.formats.checkpoint import architecture

__all__ = ["architecture"]  # hooks that are shared

FORMATS = ("hf",)
FLOATS = "all"
FILES = ("*.safetensors",)


def detect(folder: Path) -> str | None:
    return "hf" if checkpoint.quant_method(folder) == "" else None


def source(name: str, folder: Path) -> Source:
    model = checkpoint.read(folder)
    return Source(name, checkpoint.linear_shapes(model), model.config)


def audit(name: str, folder: Path, reference: Mapping[str, tuple[int, int]] | None, *, zeros: bool) -> Audit:
    """Only weights that are plain floats can be zero, as pruning leaves them."""
    model = checkpoint.read(folder)
    linears = checkpoint.linears(model, {}, reference)
    counted = checkpoint.audit(name, model, linears, reference, quantized=False)
    fractions = sparsity.count(folder, linears) if zeros else None
    if fractions is None:
        return counted
    return replace(counted, zero_fraction=fractions[0], two_of_four_fraction=fractions[1])


def parameters(folder: Path) -> Parameters:
    model = checkpoint.read(folder)
    return checkpoint.count_parameters(model, checkpoint.linear_shapes(model))
