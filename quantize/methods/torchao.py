"""torchao: PyTorch's own integers and 8-bit floats, of weights alone or of weights and activations.

Only the schemes that it can write as safetensors are offered: the suite opens no pickles.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from bench.contract import phase
from bench.contract.record import Hardware, Source
from quantize import calibration, option_checks, transformer
from quantize.backends import torchao as backend
from quantize.calibration import Calibration

ENV = "hf"
VERSION = 1
READS = frozenset({"hf"})
WRITES = "torchao"
OPTIONS_SINCE = frozenset({"bos"})

_NO_INT4 = (
    "torchao packs int4-weight-only for GPUs; its packing for CPUs (Int4OpaqueTensor) can only be pickled, "
    "and pickles are refused here: use intx-weight-only with 4 bits"
)
_NO_FP8 = (
    "fp8-dynamic multiplies 8-bit floats, which takes a GPU of compute capability 8.9 or newer; "
    "fp8-weight-only runs on any device"
)
# Least compute capability, and why the scheme runs on no CPU.
_CUDA_ONLY = {"int4-weight-only": ((8, 0), _NO_INT4), "fp8-dynamic": ((8, 9), _NO_FP8)}
_TILES = (32, 64, 128, 256)
_INT8_MAX = 127


@dataclass(frozen=True)
class Options(calibration.Options):
    """`scheme`: int8 and fp8 (e4m3) have a scale per output; int4 and intx one per group of inputs.

    Activations are quantized in `-dynamic` schemes by a scale per token, computed at run time; in `int8-static`
    by one per layer: the largest value in the calibration text is 127. `int8-dynamic-intx` at 4 bits is known
    as 8da4w. `bits` are of the intx schemes, which store a value in a byte whatever its bits. `group_size`
    -1: a scale per output (intx). A layer whose inputs the group does not divide is not quantized. `dtype`: of
    all that is not quantized, and so of the computation; `auto`: the hardware's compute type (the plan
    settles it). The calibration text and `batch_size` are of int8-static.
    """

    scheme: backend.Scheme = "int8-weight-only"
    bits: Literal[1, 2, 3, 4, 5, 6, 7, 8] = 4
    group_size: int = 64
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    samples: int = 32
    batch_size: int = 8


def unsupported(options: Options, source: Source, hardware: Hardware) -> str | None:
    scheme, group = options.scheme, options.group_size
    if options.bits != Options.bits and scheme not in backend.INTX:
        return f"bits are chosen in intx-weight-only and int8-dynamic-intx; {scheme} has its own"
    if scheme in backend.GROUPED:
        if group < 1 and (group != -1 or scheme == "int4-weight-only"):
            return f"group_size {group} is not at least 1"
        if reason := option_checks.any_group(source, group):
            return reason
    if scheme == "int8-static":
        return option_checks.sample_length(source, options.length) or option_checks.batch_size(options.batch_size)
    reason = option_checks.reads_weights(source) or option_checks.linear_modules(source, "torchao")
    return reason or (_gpu_reason(options, hardware) if scheme in _CUDA_ONLY else None)


def _gpu_reason(options: Options, hardware: Hardware) -> str | None:
    """Why this hardware has no kernel for a scheme that runs on GPUs only."""
    least, not_on_cpu = _CUDA_ONLY[options.scheme]
    dtype = hardware.compute_dtype if options.dtype == "auto" else options.dtype
    if not hardware.device.startswith("cuda"):
        return not_on_cpu
    if tuple(int(part) for part in hardware.gpus[0].compute_capability.split(".")) < least:
        return f"{options.scheme} needs a GPU of compute capability {least[0]}.{least[1]} or newer"
    if dtype != "bfloat16":
        return f"{options.scheme} computes in bfloat16 only, not in {dtype}"
    if options.scheme == "int4-weight-only" and options.group_size not in _TILES:
        return f"the int4 kernel has groups of 32, 64, 128 or 256, not of {options.group_size}"
    return None


def is_seeded(options: Options) -> bool:
    return options.scheme == "int8-static"


def reads_text(options: Options) -> bool:
    return options.scheme == "int8-static"


def weight_bits(options: Options) -> float:
    return backend.weight_bits(options.scheme, options.group_size)


def apply(folder: Path, options: Options, out: Path, device: str) -> Mapping[str, Any]:
    """Quantize every linear layer but the head."""
    import torchao  # noqa: F401  (so that its import is not timed as work)

    began = time.perf_counter()
    model, config, text = _quantized(folder, options, "cuda:0" if device.startswith("cuda") else "cpu")
    quantized = time.perf_counter()
    facts = backend.save(model, config, folder, out)
    if text is not None:
        text.write(out)
    return {
        **(text.facts() if text else {}),
        **facts,
        "quantize_s": quantized - began,
        "save_s": time.perf_counter() - quantized,
    }


def _quantized(folder: Path, options: Options, device: str) -> tuple[Any, Any, Calibration | None]:
    """The model, the configuration it was converted by, and the text it was calibrated on."""
    from torchao.quantization import quantize_

    text = calibration.from_options(folder, options) if options.scheme == "int8-static" else None
    dtype = transformer.compute_dtype(folder, options.dtype, device, "bfloat16")
    model = transformer.load_stored(folder, dtype, device).eval()
    config = backend.base_config(options.scheme, options.bits, options.group_size)
    applies = backend.layer_filter(model, options.scheme, options.group_size)
    if text is None:
        backend.quantize(model, config, applies)
    else:
        layers = {name: module for name, module in model.named_modules() if applies(module, name)}
        scales = _input_scales(model, layers, text, options.batch_size)
        for name, scale in phase.each(scales.items(), backend.LAYERS):
            quantize_(layers[name], replace(config, act_quant_scale=scale))
    return model, config, text


def _input_scales(model: Any, layers: Mapping[str, Any], text: Calibration, batch_size: int) -> dict[str, Any]:
    """The scale at which each layer's largest input is 127, in as many dimensions as the inputs, as is required."""
    import torch

    largest: dict[str, Any] = {}

    def update(name: str, _module: Any, inputs: Any) -> None:
        peak = inputs[0].detach().float().abs().amax()
        peak = torch.maximum(peak, largest[name].amax()) if name in largest else peak
        largest[name] = peak.reshape([1] * inputs[0].dim())

    with torch.no_grad(), ExitStack() as hooks:
        for name, layer in layers.items():
            hooks.enter_context(layer.register_forward_pre_hook(partial(update, name)))
        starts = range(0, len(text.ids), batch_size)
        for start in phase.each(starts, "calibrating: batch {n} of {total}"):
            ids = torch.tensor(text.ids[start : start + batch_size], device=model.device)
            model(input_ids=ids, use_cache=False, logits_to_keep=1)
    if missing := sorted(set(layers) - set(largest)):
        raise RuntimeError(f"the calibration text never reached {missing[0]}")
    eps = torch.finfo(torch.float32).eps
    return {name: (largest[name] / _INT8_MAX).clamp(min=eps) for name in layers}
