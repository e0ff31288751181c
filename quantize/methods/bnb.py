"""bitsandbytes: NF4 and FP4 (QLoRA, arXiv:2305.14314), LLM.int8 (arXiv:2208.07339); no calibration."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bench.contract import phase
from bench.contract.record import Hardware, Source
from bench.formats import folder as model_folder
from quantize import checkpoint, option_checks, transformer

ENV = "hf"
VERSION = 1
READS = frozenset({"hf"})
WRITES = "bnb"
_PACKED_BY, _PACKED_ROWS = "avx512_bf16", 32  # _convert_weight_packed_for_cpu, bitsandbytes 0.50


@dataclass(frozen=True)
class Options:
    """`double_quant` quantizes the block scales too (4-bit types only).

    `int8_threshold`: activations beyond it are computed in 16 bits (int8 only). `dtype`: of all that is not
    quantized, and so of the computation, since transformers 5 loads these checkpoints in the type they are
    stored in, whatever type is requested. `auto`: the hardware's compute type (the plan settles it).
    """

    type: Literal["nf4", "fp4", "int8"] = "nf4"
    double_quant: bool = False
    int8_threshold: float = 6.0
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"


def unsupported(options: Options, source: Source, hardware: Hardware) -> str | None:
    if options.type == "int8" and options.double_quant:
        return "double_quant is for the scales of nf4 and fp4; int8 has none of that kind"
    if reason := option_checks.reads_weights(source):
        return reason
    if options.type != "int8" and hardware.device == "cpu" and _PACKED_BY in hardware.isa:
        for name, (outputs, _) in source.linears.items():
            if outputs % _PACKED_ROWS and not (model_folder.is_head(name) or option_checks.is_router(name)):
                return f"bitsandbytes packs 4 bits by {_PACKED_ROWS} outputs on this CPU, and {name} has {outputs}"
    return None


def weight_bits(options: Options) -> float:
    """4 bits have a scale per 64 weights: 32 bits, or 8 with double_quant."""
    return 8.0 if options.type == "int8" else 4 + (8 if options.double_quant else 32) / 64


def apply(folder: Path, options: Options, out: Path, device: str) -> Mapping[str, Any]:
    """Quantize every linear layer but the head, while loading."""
    import bitsandbytes  # noqa: F401  (so that its import is not timed as work)

    began = time.perf_counter()
    target = "cuda:0" if device.startswith("cuda") else "cpu"
    dtype = transformer.compute_dtype(folder, options.dtype, target, "float16")
    model = transformer.load_stored(folder, dtype, target, _config(options, dtype))
    loaded = time.perf_counter()
    kinds = [type(module).__name__ for module in model.modules()]
    phase.begin("writing the artifact")
    model.save_pretrained(out)
    written = model_folder.quantization(model_folder.read_config(out))
    checkpoint.complete(folder, out, dtype, {"quantization_config": written})
    return {
        "quantize_s": loaded - began,
        "save_s": time.perf_counter() - loaded,
        "dtype": dtype,
        "modules_quantized": sum(kind in ("Linear4bit", "Linear8bitLt") for kind in kinds),
        "modules_skipped": kinds.count("Linear"),
        "settings": written,
    }


def _config(options: Options, dtype: str) -> Any:
    from transformers import BitsAndBytesConfig

    if options.type == "int8":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=options.int8_threshold)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=options.type,
        bnb_4bit_use_double_quant=options.double_quant,
        bnb_4bit_compute_dtype=dtype,
    )
