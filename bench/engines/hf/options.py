"""The options of the hf engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Options:
    """`dtype`: of activations and unquantized weights. `threads` 0: one per physical core.

    Of the server alone: `continuous_batching` computes requests together over a paged cache, else one waits
    for the other; auto is on unless `cache` is static. On a CPU it makes the same tokens. `kv_blocks`: that
    cache's size in blocks of 256 tokens; 0 is 128 on a CPU, on a GPU what the memory leaves.
    """

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    attention: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    cache: Literal["dynamic", "static"] = "dynamic"
    threads: int = 0
    continuous_batching: Literal["auto", "on", "off"] = "auto"
    kv_blocks: int = 0

    def dtype_on(self, device: str) -> str:
        """A CPU computes in float32 unless told otherwise."""
        return "float32" if self.dtype == "auto" and device == "cpu" else self.dtype
