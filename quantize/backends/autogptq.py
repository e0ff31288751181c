"""AutoGPTQ, archived, in its own environment, on CUDA only: most GPTQ checkpoints in use are by it.

Source: github.com/AutoGPTQ/AutoGPTQ 0.7.1.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.contract.record import Hardware
from bench.formats import folder as model_folder
from quantize import checkpoint, first_token, option_checks, transformer
from quantize.calibration import Calibration

_NEWEST = (9, 0)  # the compute capability that its torch 2.2 has kernels for, at most


def unsupported_reason(hardware: Hardware, *, act_group_aware: bool) -> str | None:
    """What AutoGPTQ cannot do beyond what gptqmodel cannot."""
    if hardware.device == "cpu":
        return "auto-gptq needs CUDA to quantize: use backend: gptqmodel, which runs on a CPU too"
    if act_group_aware:
        return "act_group_aware is gptqmodel's own order: leave it out with backend: auto-gptq"
    return option_checks.compute_capability(hardware, "auto-gptq", _NEWEST)


def run(
    folder: Path, out: Path, calibration: Calibration, settings: Mapping[str, Any], batch_size: int
) -> Mapping[str, Any]:
    """Quantize on the first GPU, save, and return what is worth recording."""
    import torch
    from auto_gptq import AutoGPTQForCausalLM, BaseQuantizeConfig
    from auto_gptq.quantization.gptq import GPTQ

    began = time.perf_counter()
    model_folder.weight_files(folder)
    half = transformer.half_dtype(folder)
    torch.manual_seed(0)
    config = BaseQuantizeConfig(**settings, model_file_base_name="model")
    model = AutoGPTQForCausalLM.from_pretrained(
        str(folder), config, torch_dtype=getattr(torch, half), use_safetensors=True
    )
    loaded = time.perf_counter()
    with first_token.weighted(calibration, [(GPTQ, "add_batch", 1)]):
        model.quantize(calibration.encodings(), batch_size=batch_size)
    quantized = time.perf_counter()
    model.save_quantized(str(out), use_safetensors=True)
    written = dict(model_folder.quantization(model_folder.read_config(out)))
    for key in ("model_name_or_path", "model_file_base_name"):  # a path of this machine, a name of the library's own
        written.pop(key, None)
    (out / "quantize_config.json").unlink(missing_ok=True)
    checkpoint.finish(folder, out, half, written)
    calibration.write(out)
    return {
        **calibration.facts(),
        "calibration_tokens_least_seen": calibration.tokens,
        "load_s": loaded - began,
        "quantize_s": quantized - loaded,
        "save_s": time.perf_counter() - quantized,
        "modules_quantized": sum(hasattr(module, "qweight") for module in model.model.modules()),
        "compute_dtype": half,
        "settings": written,
    }
