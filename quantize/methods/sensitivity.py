"""What each layer costs in each type that it may get: KL divergence with that layer alone in that type.

The weights stay as they are, with the figures beside them, which `allocation` chooses by. A step of recipes with
`mixed`, which add it by themselves; all budgets of the same choices share it. `python -m quantize sensitivity` prints
such figures of an artifact (eval/tasks/sensitivity.py).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.contract.record import Hardware, Source
from quantize import calibration, layer_losses, mixed, option_checks

ENV = "llamacpp"
VERSION = 1
READS = frozenset({"hf"})
WRITES = "hf"


@dataclass(frozen=True)
class Options:
    """`format`: whose types `choices` are, as q4_k,q6_k. `block`: of ONNX, the inputs that share a scale.

    `tokens`: of the calibration text, in windows of `length`.
    """

    format: mixed.Format = "gguf"
    choices: str = "q4_k,q5_k,q6_k,q8_0"
    block: int = 0
    tokens: int = 2048
    calibration: str = "stdlib"
    length: int = 256
    seed: int = 0


def env(options: Options) -> str:
    """That of the library whose rounding it is."""
    return "onnx" if options.format == "onnx" else ENV


def unsupported(options: Options, source: Source, hardware: Hardware) -> str | None:
    if (options.format == "onnx") != (options.block > 0):
        return f"block {options.block} is for the format onnx, which needs one: name 32 there, and 0 elsewhere"
    if reason := mixed.unknown_choice(options.choices, options.format):
        return reason
    if options.length < 2 or options.tokens < options.length:
        return f"{options.tokens} tokens have no window of {options.length}: ask for more tokens, or shorter windows"
    return option_checks.sample_length(source, options.length)


def is_lossless(options: Options) -> bool:
    return True


def train(folder: Path, teacher: Path, options: Options, out: Path, device: str, work: Path) -> Mapping[str, Any]:
    """Measure; `work` has what an interrupted run has done."""
    began = time.perf_counter()
    count = options.tokens // options.length
    text = calibration.samples(folder, options.calibration, count, options.length, options.seed)
    types = layer_losses.Types(options.format, tuple(mixed.names(options.choices)), options.block)
    measured = layer_losses.measure(folder, types, text, device, work)
    mixed.link(folder, out, without="")
    text.write(out)
    mixed.write(out / mixed.LOSSES, measured.content)
    return {
        **text.facts(),
        "layers_measured": len(measured.content["layers"]),
        "measurements_resumed": measured.resumed,
        "measure_s": time.perf_counter() - began,
    }
