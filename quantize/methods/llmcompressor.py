"""llm-compressor, vLLM's own compressor: integers and floats of 4 and 8 bits, as compressed-tensors.

w4a16: GPTQ in groups (arXiv:2210.17323). w8a8: SmoothQuant (arXiv:2211.10438), then GPTQ by channel.
fp8-dynamic: rounding to e4m3 by channel, without calibration. fp8-block: e4m3 in blocks of 128 x 128.
nvfp4: e2m1, 16 in a block with a scale in e4m3, and one in float32 for the layer. mxfp4, mxfp8: e2m1 or e4m3, 32 in a
block whose scale is a power of two (OCP Microscaling Formats 1.0). All quantize activations too while the model
runs, by token or in the same blocks, but those that end in a16.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bench.contract import phase
from bench.contract.record import Hardware, Source
from bench.contract.spec import Step
from bench.formats import folder as model_folder
from quantize import calibration, checkpoint, first_token, option_checks, output_errors, transformer
from quantize.backends import llmcompressor as backend
from quantize.calibration import Calibration

ENV = "llmcompressor"
VERSION = 1
READS = frozenset({"hf"})
WRITES = "compressed-tensors"
OPTIONS_SINCE = frozenset({"bos", "first_token_weight"})
_Scheme = Literal["w4a16", "w8a8", "fp8-dynamic", "fp8-block", "nvfp4", "nvfp4a16", "mxfp4", "mxfp4a16", "mxfp8"]
_GROUPS = {"nvfp4": 16, "nvfp4a16": 16, "mxfp4": 32, "mxfp4a16": 32, "mxfp8": 32, "fp8-block": 128}  # inputs in a block
_BITS = {"nvfp4": 4.5, "nvfp4a16": 4.5, "mxfp4": 4.25, "mxfp4a16": 4.25, "mxfp8": 8.25}  # with scales
_NO_ERROR = "rounding, and SmoothQuant's maxima, weigh no token's error; GPTQ does (algorithm: gptq)"


@dataclass(frozen=True)
class Options(calibration.WeightedOptions):
    """`group_size`: of w4a16 alone, -1 is one scale per output channel; the others fix their blocks or channels.

    `algorithm` rtn: to the nearest, without GPTQ; fp8-dynamic is always rounded, and nvfp4 reads a text then too, for
    the scale of activations. `smoothing`: SmoothQuant's alpha (w8a8), 0 leaves it out. `actorder`: columns by
    activation size, at no cost when the model runs. `damp_percent`: share of the Hessian's mean diagonal added to it.
    """

    scheme: _Scheme = "w4a16"
    algorithm: Literal["gptq", "rtn"] = "gptq"
    group_size: Literal[-1, 32, 64, 128, 256] = 128
    actorder: bool = False
    damp_percent: float = 0.05
    smoothing: float = 0.5
    batch_size: int = 8


def unsupported(options: Options, source: Source, hardware: Hardware) -> str | None:
    if not 0 <= options.smoothing <= 1:
        return f"smoothing {options.smoothing} is not between 0 and 1"
    return (
        option_checks.damp_percent(options.damp_percent)
        or option_checks.first_token_weight(options.first_token_weight)
        or (None if _runs_gptq(options) else option_checks.no_weight(options.first_token_weight, _NO_ERROR))
        or option_checks.batch_size(options.batch_size)
        or (option_checks.sample_length(source, options.length) if _calibrates(options) else None)
        or _unfit_blocks(options, source)
        or option_checks.linear_modules(source, "llm-compressor")
        or (option_checks.norms_before(source, "SmoothQuant") if _smooths(options) else None)
    )


def _unfit_blocks(options: Options, source: Source) -> str | None:
    """Why the scheme's groups do not fit; only FP8's blocks of outputs may be cut off where a layer ends."""
    if options.scheme == "w4a16":
        return option_checks.group_size(source, options.group_size)
    if options.scheme not in _GROUPS:
        return None
    size = _GROUPS[options.scheme]
    if options.group_size != Options.group_size:
        return (
            f"{options.scheme} has blocks of {size} weights, so that group_size {options.group_size} cannot be: "
            "leave it out"
        )
    return option_checks.block_size(source, options.scheme, size, "w8a8 or fp8-dynamic")


def reads_text(options: Options) -> bool:
    return _calibrates(options)


def _smooths(options: Options) -> bool:
    return options.scheme == "w8a8" and options.smoothing > 0


def _runs_gptq(options: Options) -> bool:
    return options.algorithm == "gptq" and options.scheme != "fp8-dynamic"


def is_seeded(options: Options) -> bool:
    return _calibrates(options)


def weight_bits(options: Options) -> float:
    if options.scheme != "w4a16":
        return _BITS.get(options.scheme, 8.0)
    return 4 + (16 / options.group_size if options.group_size > 0 else 0.0)


def without_data(options: Options) -> Step | None:
    """The same scheme rounded to the nearest, without smoothing."""
    if not _smooths(options) and not _runs_gptq(options):
        return None
    group: dict[str, float] = {"group_size": options.group_size} if options.scheme == "w4a16" else {}
    group |= {"smoothing": 0.0} if options.scheme == "w8a8" else {}
    return Step("llmcompressor", {"scheme": options.scheme, "algorithm": "rtn", **group})


def apply(folder: Path, options: Options, out: Path, device: str) -> Mapping[str, Any]:
    """Quantize every linear layer but the head, on a CPU in float32. RuntimeError unless all tokens were used."""
    import torch

    began = time.perf_counter()
    text = calibration.from_options(folder, options) if _calibrates(options) else None
    half = transformer.half_dtype(folder)
    target, compute = ("cuda:0", half) if device.startswith("cuda") else ("cpu", "float32")
    torch.manual_seed(0)
    model = transformer.load_stored(folder, compute, target)
    loaded = time.perf_counter()
    with backend.watched():
        facts = _quantize(model, options, text)
        quantized = time.perf_counter()
        phase.begin("writing the artifact")
        model.save_pretrained(out, save_compressed=True)
    written = model_folder.quantization(model_folder.read_config(out))
    for file in out.glob("*.py"):  # the library copies the source's Python files
        file.unlink()
    backend.publish_names(out)
    checkpoint.finish(folder, out, half, written)
    if text:
        text.write(out)
    return {
        **facts,
        "load_s": loaded - began,
        "quantize_s": quantized - loaded,
        "save_s": time.perf_counter() - quantized,
        "compute_dtype": compute,
        "settings": written,
    }


def _calibrates(options: Options) -> bool:
    """Whether the scheme and algorithm need calibration text: nvfp4 also for the global scale of its activations."""
    return _smooths(options) or _runs_gptq(options) or options.scheme == "nvfp4"


def _quantize(model: Any, options: Options, text: Calibration | None) -> dict[str, Any]:
    """Run the modifiers; return how many layers were quantized, and how often the text passed the first one."""
    from llmcompressor import oneshot
    from llmcompressor.modifiers.gptq import base
    from torch.nn import Linear

    first = next(module for module in model.modules() if isinstance(module, Linear))
    tokens: list[int] = []
    hook = first.register_forward_hook(lambda _, inputs, __: tokens.append(inputs[0].shape[:2].numel()))
    data: dict[str, Any] = {}
    if text is not None:
        batches = calibration.batches(text, options.batch_size)
        data = {"dataset": batches, "num_calibration_samples": len(text.ids), "pipeline": "sequential"}
    errors = None
    with ExitStack() as observed:
        if text is not None and _runs_gptq(options):
            names = {module: name for name, module in model.named_modules()}
            observed.enter_context(first_token.weighted(text, [(base, "accumulate_hessian", 0)]))
            errors = observed.enter_context(output_errors.of_llmcompressor(text, base.GPTQModifier, base, names))
        oneshot(model=model, recipe=_modifiers(model, options), shuffle_calibration_samples=False, **data)
    hook.remove()
    schemes = [module.quantization_scheme for module in model.modules() if hasattr(module, "quantization_scheme")]
    quantized = sum(getattr(scheme, "weights", None) is not None for scheme in schemes)
    if text is None:
        return {"modules_quantized": quantized}
    if not sum(tokens) or sum(tokens) % text.tokens:
        raise RuntimeError(f"llm-compressor used {sum(tokens)} tokens, no multiple of the calibration's {text.tokens}")
    moved = errors.facts() if errors else {}
    return {**text.facts(), **moved, "modules_quantized": quantized, "calibration_passes": sum(tokens) // text.tokens}


def _modifiers(model: Any, options: Options) -> list[Any]:
    from llmcompressor.modifiers.gptq import GPTQModifier
    from llmcompressor.modifiers.quantization import QuantizationModifier
    from llmcompressor.modifiers.transform.smoothquant import SmoothQuantModifier

    targets: dict[str, Any] = {"ignore": ["lm_head"], **_scheme(options)}
    first: list[Any] = []
    if _smooths(options):
        mappings = backend.smoothed_layers(model)
        first = [SmoothQuantModifier(smoothing_strength=options.smoothing, mappings=mappings)]
    if not _runs_gptq(options):
        return [*first, QuantizationModifier(**targets)]
    order = "static" if options.actorder else None
    return [*first, GPTQModifier(**targets, actorder=order, dampening_frac=options.damp_percent)]


def _scheme(options: Options) -> dict[str, Any]:
    """A named scheme of compressed-tensors; W4A16 by that name means groups of 128."""
    if options.scheme != "w4a16":
        return {"targets": ["Linear"], "scheme": options.scheme.upper().replace("-", "_")}
    size = (
        {"strategy": "channel"} if options.group_size == -1 else {"strategy": "group", "group_size": options.group_size}
    )
    weights = {"num_bits": 4, "type": "int", "symmetric": True, "dynamic": False, **size}
    return {"config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}}}
