"""torchao: PyTorch's own integers and 8-bit floats, of weights alone or of weights and activations.

Only schemes that its safetensors support can write are offered: the suite opens no pickles.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from bench.contract.record import Hardware, Source
from bench.contract.spec import Step
from bench.formats import folder as model_folder
from quantize import calibration
from quantize.backends import torchao as through_torchao
from quantize.calibration import Calibration

ENV = "hf"
VERSION = 1
READS = frozenset({"hf"})
WRITES = "torchao"

# Least compute capability, and why the scheme is for no other kind of device.
_NO_INT4 = (
    "torchao packs int4-weight-only for GPUs; its packing for CPUs (Int4OpaqueTensor) can only be pickled, "
    "and pickles are refused here: use intx-weight-only with 4 bits"
)
_NO_FP8 = (
    "fp8-dynamic multiplies 8-bit floats, which takes a GPU of compute capability 8.9 or newer; "
    "fp8-weight-only runs on any device"
)
_CUDA_ONLY = {"int4-weight-only": ((8, 0), _NO_INT4), "fp8-dynamic": ((8, 9), _NO_FP8)}
_TILES = (32, 64, 128, 256)
_INT8_MOST = 127


@dataclass(frozen=True)
class Options:
    """`scheme`: int8 and fp8 (e4m3) have a scale per output; int4 and intx one per group of inputs.

    Activations are quantized in `-dynamic` schemes by a scale per token, found as it comes; in `int8-static`
    by one per layer: the largest value in the calibration text is 127. `int8-dynamic-intx` at 4 bits is known
    as 8da4w. `bits` are of the intx schemes, which store a value in a byte whatever its bits. `group_size`
    -1: a scale per output (intx). A layer whose inputs the group does not divide is left whole. `dtype`: of
    all that is not quantized, and so of the computation; `auto`: the hardware's compute type (the plan
    settles it). `calibration` to `batch_size` are of int8-static.
    """

    scheme: Literal[
        "int8-weight-only",
        "int8-dynamic",
        "int8-static",
        "int4-weight-only",
        "fp8-weight-only",
        "fp8-dynamic",
        "intx-weight-only",
        "int8-dynamic-intx",
    ] = "int8-weight-only"
    bits: Literal[1, 2, 3, 4, 5, 6, 7, 8] = 4
    group_size: int = 64
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    calibration: str = "stdlib"
    samples: int = 32
    length: int = 512
    seed: int = 0
    batch_size: int = 8


def unsupported(options: Options, source: Source, hardware: Hardware) -> str | None:
    scheme, group = options.scheme, options.group_size
    if options.bits != Options.bits and scheme not in through_torchao.INTX:
        return f"bits are chosen in intx-weight-only and int8-dynamic-intx; {scheme} has its own"
    if scheme in through_torchao.GROUPED:
        if group < 1 and (group != -1 or scheme == "int4-weight-only"):
            return f"group_size {group} is not at least 1"
        if source.linears and all(inputs % group for _, inputs in source.linears.values()):
            return f"group_size {group} divides the inputs of no linear layer"
    if scheme == "int8-static":
        return _uncalibrated(options, source)
    dtype = hardware.compute_dtype if options.dtype == "auto" else options.dtype
    return _unmade(options, dtype, hardware)


def _uncalibrated(options: Options, source: Source) -> str | None:
    if reason := calibration.unsupported_length(source, options.length):
        return reason
    if options.batch_size < 1:
        return f"batch_size {options.batch_size} is not at least 1"
    return None


def _unmade(options: Options, dtype: str, hardware: Hardware) -> str | None:
    """Why this hardware has no kernel for the scheme."""
    scheme = options.scheme
    if scheme not in _CUDA_ONLY:
        return None
    least, elsewhere = _CUDA_ONLY[scheme]
    if not hardware.device.startswith("cuda"):
        return elsewhere
    if tuple(int(part) for part in hardware.gpus[0].compute_capability.split(".")) < least:
        return f"{scheme} needs a GPU of compute capability {least[0]}.{least[1]} or newer"
    if dtype != "bfloat16":
        return f"{scheme} computes in bfloat16 only, not in {dtype}"
    if scheme == "int4-weight-only" and options.group_size not in _TILES:
        return f"the int4 kernel has groups of 32, 64, 128 or 256, not of {options.group_size}"
    return None


def weight_bits(options: Options) -> float:
    return through_torchao.weight_bits(options.scheme, options.group_size)


def prerequisites(options: Options, source_format: str) -> tuple[Step, ...]:
    del options, source_format
    return ()


def apply(folder: Path, options: Options, out: Path, device: str) -> Mapping[str, Any]:
    """Quantize every linear layer but the head."""
    import torchao  # noqa: F401  (so that its import is not timed as work)

    began = time.perf_counter()
    model, config, seen = _quantized(folder, options, "cuda:0" if device.startswith("cuda") else "cpu")
    quantized = time.perf_counter()
    facts = through_torchao.save(model, config, folder, out)
    if seen is not None:
        seen.write(out)
    return {
        **(seen.facts() if seen else {}),
        **facts,
        "quantize_s": quantized - began,
        "save_s": time.perf_counter() - quantized,
    }


def _quantized(folder: Path, options: Options, on: str) -> tuple[Any, Any, Calibration | None]:
    """The model, the configuration it was converted by, and the text it was calibrated on."""
    from torchao.quantization import quantize_

    seen = None
    if options.scheme == "int8-static":
        seen = calibration.samples(folder, options.calibration, options.samples, options.length, options.seed)
    dtype = _dtype(options, model_folder.stored_dtype(model_folder.read_config(folder)), on)
    model = through_torchao.load(folder, dtype, on)
    config = through_torchao.base_config(options.scheme, options.bits, options.group_size)
    fits = through_torchao.wanted(model, options.scheme, options.group_size)
    if seen is None:
        quantize_(model, config, filter_fn=fits)
    else:
        for module, scale in _scales(model, fits, seen, options.batch_size):
            quantize_(module, replace(config, act_quant_scale=scale))
    return model, config, seen


def _dtype(options: Options, stored: str, on: str) -> str:
    if options.dtype != "auto":
        return options.dtype
    if on == "cpu":
        return "float32"
    return stored if stored in ("float16", "bfloat16") else "bfloat16"


def _scales(model: Any, fits: Any, seen: Calibration, batch_size: int) -> list[tuple[Any, Any]]:
    """Each layer, and the scale that makes the largest of its inputs 127.

    In as many dimensions as the inputs have: the library asks that of a static scale.
    """
    import torch

    largest: dict[str, Any] = {}
    modules = {name: module for name, module in model.named_modules() if fits(module, name)}

    def note(name: str) -> Any:
        def hook(_: Any, given: Any) -> None:
            most = given[0].detach().float().abs().amax()
            most = torch.maximum(most, largest[name].amax()) if name in largest else most
            largest[name] = most.reshape([1] * given[0].dim())

        return hook

    hooks = [module.register_forward_pre_hook(note(name)) for name, module in modules.items()]
    with torch.no_grad():
        for start in range(0, len(seen.ids), batch_size):
            ids = torch.tensor(seen.ids[start : start + batch_size], device=model.device)
            model(input_ids=ids, use_cache=False, logits_to_keep=1)
    for hook in hooks:
        hook.remove()
    if lost := sorted(set(modules) - set(largest)):
        raise RuntimeError(f"the calibration text never reached {lost[0]}")
    eps = torch.finfo(torch.float32).eps
    return [(module, (largest[name] / _INT8_MOST).clamp(min=eps)) for name, module in modules.items()]
