"""llm-compressor, vLLM's own compressor: 4-bit weights, 8-bit weights and activations, as compressed-tensors.

w4a16: GPTQ in groups (arXiv:2210.17323). w8a8: SmoothQuant (arXiv:2211.10438), then GPTQ by channel.
fp8-dynamic: rounding to e4m3 by channel, without calibration. The last two quantize activations
by token too, while the model runs.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bench.contract.record import Hardware, Source
from bench.contract.spec import Step
from bench.formats import folder as model_folder
from quantize import calibration, checkpoint
from quantize.calibration import Calibration

ENV = "llmcompressor"
VERSION = 1
READS = frozenset({"hf"})
WRITES = "compressed-tensors"
_NAMES = {"w4a16": "W4A16", "w8a8": "W8A8", "fp8-dynamic": "FP8_DYNAMIC"}


@dataclass(frozen=True)
class Options:
    """`group_size`: of w4a16 alone, -1 is one scale per output channel; the others have a scale per channel.

    `algorithm` rtn: to the nearest, without GPTQ; fp8-dynamic is always rounded. `smoothing`: SmoothQuant's
    alpha (w8a8), 0 leaves it out. `actorder`: columns by activation size, at no cost when the model runs.
    `damp_percent`: share of the Hessian's mean diagonal added to it. `length` in tokens.
    """

    scheme: Literal["w4a16", "w8a8", "fp8-dynamic"] = "w4a16"
    algorithm: Literal["gptq", "rtn"] = "gptq"
    group_size: Literal[-1, 32, 64, 128, 256] = 128
    actorder: bool = False
    damp_percent: float = 0.05
    smoothing: float = 0.5
    calibration: str = "stdlib"
    samples: int = 128
    length: int = 512
    seed: int = 0
    batch_size: int = 8


def unsupported(options: Options, source: Source, hardware: Hardware) -> str | None:
    del hardware
    if not 0 < options.damp_percent < 1:
        return f"damp_percent {options.damp_percent} is not between 0 and 1"
    if not 0 <= options.smoothing <= 1:
        return f"smoothing {options.smoothing} is not between 0 and 1"
    if options.batch_size < 1:
        return f"batch_size {options.batch_size} is not at least 1"
    if _looks(options) and (reason := calibration.unsupported_length(source, options.length)):
        return reason
    if options.scheme == "w4a16" and options.group_size != -1:
        for name, (_, inputs) in source.linears.items():
            if inputs % options.group_size and name != "lm_head":
                return f"group_size {options.group_size} does not divide the {inputs} inputs of {name}"
    return None


def weight_bits(options: Options) -> float:
    if options.scheme != "w4a16":
        return 8.0
    return 4 + (16 / options.group_size if options.group_size > 0 else 0.0)


def prerequisites(options: Options, source_format: str) -> tuple[Step, ...]:
    del options, source_format
    return ()


def apply(folder: Path, options: Options, out: Path, device: str) -> Mapping[str, Any]:
    """Quantize every linear layer but the head. On a CPU it computes in float32.

    RuntimeError when the library did not see every calibration token.
    """
    import torch
    from transformers import AutoModelForCausalLM

    began = time.perf_counter()
    seen = None
    if _looks(options):
        seen = calibration.samples(folder, options.calibration, options.samples, options.length, options.seed)
    model_folder.weight_files(folder)
    stored = model_folder.stored_dtype(model_folder.read_config(folder))
    half = stored if stored in model_folder.HALF else "float16"
    on_gpu = device.startswith("cuda")
    compute = half if on_gpu else "float32"
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=getattr(torch, compute),
        device_map={"": "cuda:0" if on_gpu else "cpu"},
        local_files_only=True,
        use_safetensors=True,
    )
    loaded = time.perf_counter()
    facts = _quantize(model, options, seen)
    quantized = time.perf_counter()
    model.save_pretrained(out, save_compressed=True)
    written = model_folder.quantization(model_folder.read_config(out))
    for code in out.glob("*.py"):  # it copies what Python lies beside the source
        code.unlink()
    checkpoint.finish(folder, out, half, written)
    if seen:
        seen.write(out)
    return {
        **facts,
        "load_s": loaded - began,
        "quantize_s": quantized - loaded,
        "save_s": time.perf_counter() - quantized,
        "compute_dtype": compute,
        "settings": written,
    }


def _looks(options: Options) -> bool:
    """Whether calibration text is looked at."""
    smoothed = options.scheme == "w8a8" and options.smoothing > 0
    return smoothed or (options.algorithm == "gptq" and options.scheme != "fp8-dynamic")


def _quantize(model: Any, options: Options, seen: Calibration | None) -> dict[str, Any]:
    """Run the modifiers; what was quantized and what was seen."""
    from llmcompressor import oneshot
    from torch.nn import Linear

    first = next(module for module in model.modules() if isinstance(module, Linear))
    passes: list[int] = []
    hook = first.register_forward_hook(lambda _, given, __: passes.append(given[0].shape[:2].numel()))
    data: dict[str, Any] = {}
    if seen is not None:
        batches = calibration.batches(seen, options.batch_size)
        data = {"dataset": batches, "num_calibration_samples": len(seen.ids), "pipeline": "sequential"}
    oneshot(model=model, recipe=_modifiers(options), shuffle_calibration_samples=False, **data)
    hook.remove()
    schemes = [module.quantization_scheme for module in model.modules() if hasattr(module, "quantization_scheme")]
    done = sum(getattr(scheme, "weights", None) is not None for scheme in schemes)
    if seen is None:
        return {"modules_quantized": done}
    if not sum(passes) or sum(passes) % seen.tokens:
        raise RuntimeError(f"llm-compressor saw {sum(passes)} tokens, no multiple of the {seen.tokens} given")
    return {**seen.facts(), "modules_quantized": done, "calibration_passes": sum(passes) // seen.tokens}


def _modifiers(options: Options) -> list[Any]:
    from llmcompressor.modifiers.gptq import GPTQModifier
    from llmcompressor.modifiers.quantization import QuantizationModifier
    from llmcompressor.modifiers.transform.smoothquant import SmoothQuantModifier

    where: dict[str, Any] = {"ignore": ["lm_head"], **_scheme(options)}
    smooth = options.scheme == "w8a8" and options.smoothing > 0
    first = [SmoothQuantModifier(smoothing_strength=options.smoothing)] if smooth else []
    if options.algorithm == "rtn" or options.scheme == "fp8-dynamic":
        return [*first, QuantizationModifier(**where)]
    order = "static" if options.actorder else None
    return [*first, GPTQModifier(**where, actorder=order, dampening_frac=options.damp_percent)]


def _scheme(options: Options) -> dict[str, Any]:
    """A named scheme of compressed-tensors; W4A16 by that name means groups of 128."""
    if options.scheme != "w4a16":
        return {"targets": ["Linear"], "scheme": _NAMES[options.scheme]}
    size = (
        {"strategy": "channel"} if options.group_size == -1 else {"strategy": "group", "group_size": options.group_size}
    )
    weights = {"num_bits": 4, "type": "int", "symmetric": True, "dynamic": False, **size}
    return {"config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}}}
