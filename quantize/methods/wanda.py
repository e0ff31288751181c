"""Wanda: weights are ranked by their size times the norm of their inputs, within each output's row.

Sun et al., 2023 (arXiv:2306.11695): no weight is changed but to zero, and nothing is trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.contract.record import Hardware, Source
from bench.contract.spec import Step
from quantize import calibration, option_checks, pruning

ENV = "hf"
VERSION = 1
READS = frozenset({"hf"})
WRITES = "hf"
OPTIONS_SINCE = frozenset({"bos", "first_token_weight"})


@dataclass(frozen=True)
class Options(pruning.Options, calibration.WeightedOptions):
    """`sparsity`: the share of each row of a linear weight that becomes zero."""

    samples: int = 64


def unsupported(options: Options, source: Source, hardware: Hardware) -> str | None:
    reason = pruning.unsupported_reason(source, options)
    reason = reason or option_checks.first_token_weight(options.first_token_weight)
    return reason or option_checks.sample_length(source, options.length)


def without_data(options: Options) -> Step:
    return pruning.by_magnitude(options)


def apply(folder: Path, options: Options, out: Path, device: str) -> Mapping[str, Any]:
    """Prune layer after layer, each with its inputs from the pruned ones before it."""

    def prune(weight: Any, squares: Any) -> None:
        score = weight.abs() * squares.sqrt()
        weight.masked_fill_(pruning.smallest(score, options.sparsity, options.pattern), 0.0)

    text = calibration.from_options(folder, options)
    return pruning.layerwise(folder, out, device, text, options.dtype, prune)
