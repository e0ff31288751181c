"""SparseGPT: weights become zero column by column, each column's error compensated in the columns after it.

Frantar and Alistarh, 2023 (arXiv:2301.00774), as llm-compressor implements it. The weights that stay are
changed, which Wanda's are not.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.contract.record import Hardware, Source
from bench.contract.spec import Step
from quantize import calibration, first_token, option_checks, output_errors, pruning, transformer
from quantize.backends import llmcompressor as backend

ENV = "llmcompressor"
VERSION = 1
READS = frozenset({"hf"})
WRITES = "hf"
OPTIONS_SINCE = frozenset({"bos", "first_token_weight"})


@dataclass(frozen=True)
class Options(pruning.Options, calibration.WeightedOptions):
    """`damp_percent`: share of the Hessian's mean diagonal added to it."""

    damp_percent: float = 0.01
    samples: int = 64
    batch_size: int = 8


def unsupported(options: Options, source: Source, hardware: Hardware) -> str | None:
    return (
        option_checks.damp_percent(options.damp_percent)
        or option_checks.first_token_weight(options.first_token_weight)
        or option_checks.batch_size(options.batch_size)
        or pruning.unsupported_reason(source, options)
        or option_checks.sample_length(source, options.length)
    )


def without_data(options: Options) -> Step:
    return pruning.by_magnitude(options)


def apply(folder: Path, options: Options, out: Path, device: str) -> Mapping[str, Any]:
    """Prune the linear layers of the transformer; the head and the embedding stay as they are."""
    import torch
    from llmcompressor import oneshot
    from llmcompressor.modifiers.pruning.sparsegpt import SparseGPTModifier, base

    began = time.perf_counter()
    text = calibration.from_options(folder, options)
    torch.manual_seed(0)
    model = transformer.load(folder, device)
    structure = "0:0" if options.pattern == "unstructured" else options.pattern
    modifier = SparseGPTModifier(
        sparsity=options.sparsity,
        mask_structure=structure,
        targets=["Linear"],
        ignore=["re:.*lm_head"],
        dampening_frac=options.damp_percent,
    )
    names = {module: name for name, module in model.named_modules()}
    observed = output_errors.of_llmcompressor(text, SparseGPTModifier, base, names)
    with backend.watched(), first_token.weighted(text, [(base, "accumulate_hessian", 0)]), observed as errors:
        oneshot(
            model=model,
            recipe=[modifier],
            dataset=calibration.batches(text, options.batch_size),
            num_calibration_samples=len(text.ids),
            shuffle_calibration_samples=False,
            pipeline="sequential",
        )
    pruned = time.perf_counter()
    least = min(pruning.sparsities(model).values())
    transformer.save(model, folder, out, options.dtype)
    text.write(out)
    return {**text.facts(), **errors.facts(), "least_layer_sparsity": least, "prune_s": pruned - began}
