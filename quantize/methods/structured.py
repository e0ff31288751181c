"""Structured pruning: whole heads, neurons or layers are removed; a smaller model of the same architecture is left.

Importance by activation: neurons and heads as |activation| times the norm of the weights that read it
(Wanda's score, summed; Sun et al., 2023, arXiv:2306.11695), layers as 1 - cos(input, output)
(ShortGPT's Block Influence; Men et al., 2024, arXiv:2403.03853). By loss: what the loss of the calibration
text would change to first order, |activation x gradient| (Molchanov et al., 2019, arXiv:1906.10771); layers
by the loss without each.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bench.contract.record import Hardware, Source
from quantize import calibration, first_token, option_checks, surgery, transformer

ENV = "hf"
VERSION = 1
READS = frozenset({"hf"})
WRITES = "hf"
OPTIONS_SINCE = frozenset({"bos", "first_token_weight"})
_LOSS = "importance: loss is by the loss of the text, in which tokens count alike; importance: activation has a weight"


@dataclass(frozen=True)
class Options(calibration.WeightedOptions):
    """`share` of the heads, neurons or layers that are removed.

    Heads are removed by whole KV groups. `multiple_of`: what the number of neurons left is rounded to, for
    kernels and group sizes; layers are rounded to whole ones. `first_token_weight`: of importance by activation.
    """

    what: Literal["heads", "neurons", "layers"] = "neurons"
    share: float = 0.25
    importance: Literal["activation", "loss"] = "activation"
    multiple_of: int = 64
    samples: int = 32
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"


def unsupported(options: Options, source: Source, hardware: Hardware) -> str | None:
    if not 0 < options.share < 1:
        return f"share {options.share:g} is the share of the {options.what} to remove: more than 0, less than 1"
    if options.multiple_of < 1:
        return f"multiple_of {options.multiple_of} is not at least 1"
    if reason := option_checks.first_token_weight(options.first_token_weight):
        return reason
    if options.importance == "loss" and (reason := option_checks.no_weight(options.first_token_weight, _LOSS)):
        return reason
    reason = surgery.unsupported_reason(source, options.what, options.share, options.multiple_of)
    return reason or option_checks.sample_length(source, options.length)


def output_source(options: Options, source: Source) -> Source:
    """The shapes that are left; how many layers go is known, which ones is not."""
    if not source.config:
        return source
    return surgery.cut_source(source, options.what, _units_left(options, source.config))


def apply(folder: Path, options: Options, out: Path, device: str) -> Mapping[str, Any]:
    """Score the units over the calibration text, cut the least important out of the weights, and save."""
    began = time.perf_counter()
    text = calibration.from_options(folder, options)
    model = transformer.load(folder, device)
    weights = first_token.Weights(text)
    scores = surgery.importance(model, text.ids, device, options.what, options.importance, weights)
    scored = time.perf_counter()
    left = _units_left(options, model.config.to_dict())
    units = [sorted(row.argsort(descending=True)[:left].tolist()) for row in scores]
    changes = surgery.cut(model, options.what, units)
    transformer.save(model, folder, out, options.dtype, changes)
    text.write(out)
    return {
        **text.facts(),
        "importance_s": scored - began,
        "stay": left,
        "of": scores.shape[1],
        "unit": surgery.UNITS[options.what],
        "config": changes,
        **({"layers_kept": units[0]} if options.what == "layers" else {}),
    }


def _units_left(options: Options, config: Mapping[str, Any]) -> int:
    return surgery.units_left(config, options.what, options.share, options.multiple_of)
