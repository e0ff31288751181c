"""QAT: the model is trained while its weights are rounded as they will be, then quantized.

By torchao's fake quantization with the straight-through estimator; the artifact is that of method torchao with the
same scheme, trained. The target is by default the distribution of the model the recipe began with (as in LLM-QAT;
Liu et al., 2023, arXiv:2305.17888): cross entropy alone (alpha 0) would measure more training as well.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bench.contract.record import Hardware, Source
from quantize import option_checks, training, transformer
from quantize.backends import torchao

ENV = "hf"
VERSION = 1
READS = frozenset({"hf"})
WRITES = "torchao"


@dataclass(frozen=True)
class Options(training.Plan):
    """`scheme`, `bits`, `group_size` as of method torchao; the rest as of training.Plan."""

    scheme: Literal["intx-weight-only", "int8-dynamic-intx"] = "intx-weight-only"
    bits: Literal[2, 3, 4, 5, 6, 7, 8] = 4
    group_size: int = 64
    learning_rate: float = 3e-4


def unsupported(options: Options, source: Source, hardware: Hardware) -> str | None:
    group = options.group_size
    if group < 1 and group != -1:
        return f"group_size {group} is not at least 1, nor -1 for a scale per output"
    return option_checks.any_group(source, group) or training.unsupported_reason(options, source)


def weight_bits(options: Options) -> float:
    return torchao.weight_bits(options.scheme, options.group_size)


def train(folder: Path, teacher: Path, options: Options, out: Path, device: str, work: Path) -> Mapping[str, Any]:
    """Train every weight with the linear layers' fake-quantized, then quantize those layers."""
    import torch

    windows = training.text(folder, options)
    model = transformer.load(folder, device)
    guide = transformer.load(teacher, device) if options.alpha > 0 else None
    config = torchao.base_config(options.scheme, options.bits, options.group_size)
    torchao.qat(model, config, "prepare", torchao.layer_filter(model, options.scheme, options.group_size))
    facts = training.run(model, guide, options, windows, device, work)
    began = time.perf_counter()
    if options.dtype != "auto":
        model = model.to(getattr(torch, options.dtype))
    torchao.qat(model, config, "convert")
    saved = torchao.save(model, config, folder, out)
    windows.write(out)
    return {**windows.facts(), **facts, **saved, "convert_s": time.perf_counter() - began}
