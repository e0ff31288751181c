"""GPTQ: weights rounded column by column, each column's error made good in those not yet rounded.

Frantar et al., 2022 (arXiv:2210.17323), as GPTQModel implements it, or AutoGPTQ. GPTQModel reorders columns
within groups by default (GAR); the paper does not, and neither does this method unless `act_group_aware`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bench.contract.record import Hardware, Source
from bench.contract.spec import Step
from quantize import calibration, option_checks
from quantize.backends import archived, gptqmodel

ENV = "hf"
VERSION = 1
READS = frozenset({"hf"})
WRITES = "gptq"
weight_bits = gptqmodel.weight_bits
OPTIONS_SINCE = frozenset({"bos", "first_token_weight"})


@dataclass(frozen=True)
class Options(calibration.WeightedOptions):
    """`group_size` -1: one scale per output channel. `desc_act`: columns by activation size ("act-order").

    `act_group_aware`: the library's own ordering within groups, no cost at run time; not with `desc_act`.
    `damp_percent`: share of the Hessian's mean diagonal added to it.
    `backend` auto-gptq: the archived library, on CUDA only.
    """

    bits: Literal[2, 3, 4, 8] = 4
    group_size: Literal[-1, 16, 32, 64, 128, 256, 512, 1024] = 128
    symmetric: bool = True
    desc_act: bool = False
    act_group_aware: bool = False
    damp_percent: float = 0.05
    batch_size: int = 8
    backend: Literal["gptqmodel", "auto-gptq"] = "gptqmodel"


def env(options: Options) -> str:
    return "auto_gptq" if options.backend == "auto-gptq" else ENV


def unsupported(options: Options, source: Source, hardware: Hardware) -> str | None:
    if options.desc_act and options.act_group_aware:
        return "desc_act and act_group_aware are two orders of the same columns: choose one"
    reason = option_checks.damp_percent(options.damp_percent) or option_checks.batch_size(options.batch_size)
    reason = reason or option_checks.first_token_weight(options.first_token_weight)
    if not reason and options.backend == "auto-gptq":
        reason = archived.gptq_unsupported(hardware, act_group_aware=options.act_group_aware)
    return reason or gptqmodel.unsupported_reason(source, hardware, options)


def without_data(options: Options) -> Step | None:
    """Rounding to the same grid, by llm-compressor, whose own is 4 bits in groups of these sizes, no zero points."""
    if options.bits != 4 or not options.symmetric or options.group_size not in (-1, 32, 64, 128, 256):
        return None
    return Step("llmcompressor", {"scheme": "w4a16", "algorithm": "rtn", "group_size": options.group_size})


def apply(folder: Path, options: Options, out: Path, device: str) -> Mapping[str, Any]:
    """Quantize every linear layer of the blocks; the head and the embedding stay as they are."""
    text = calibration.from_options(folder, options)
    settings = {
        "bits": options.bits,
        "group_size": options.group_size,
        "sym": options.symmetric,
        "desc_act": options.desc_act,
        "damp_percent": options.damp_percent,
    }
    if options.backend == "auto-gptq":
        return archived.gptq(folder, out, text, settings, options.batch_size)
    settings["act_group_aware"] = options.act_group_aware
    return gptqmodel.run(folder, out, device, text, "GPTQ", settings, options.batch_size)
