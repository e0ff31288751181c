"""The options of the llamacpp engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Options:
    """`n_gpu_layers` -1: every layer, on a CUDA device. `threads` 0: one per physical core.

    `context`: tokens per sequence; 0: what the workload needs. `batch`, `ubatch`: the most tokens of one
    call, and of one pass over the weights.
    """

    n_gpu_layers: int = -1
    threads: int = 0
    flash_attention: Literal["auto", "on", "off"] = "auto"
    kv_dtype: Literal["f16", "f32", "q8_0"] = "f16"
    context: int = 0
    batch: int = 2048
    ubatch: int = 512
