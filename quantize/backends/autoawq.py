"""AutoAWQ, archived, in its own environment: most AWQ checkpoints in use are by it.

Source: github.com/casper-hansen/AutoAWQ 0.2.9.
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

_NEWEST = (9, 0)  # the compute capability that its torch 2.6 has kernels for, at most


def unsupported_reason(hardware: Hardware, group_size: int, *, symmetric: bool) -> str | None:
    """What AutoAWQ cannot do beyond what gptqmodel cannot."""
    if symmetric:
        return "autoawq packs weights with zero points only: leave symmetric false, or use backend: gptqmodel"
    if group_size == -1:
        return "autoawq's packer has no group_size -1: name a size, or use backend: gptqmodel"
    return None if hardware.device == "cpu" else option_checks.compute_capability(hardware, "autoawq", _NEWEST)


def run(
    folder: Path, out: Path, device: str, calibration: Calibration, settings: Mapping[str, Any], batch_size: int
) -> Mapping[str, Any]:
    """Quantize, save, and return what is worth recording. Computes in float32 on a CPU.

    RuntimeError when the library did not use every calibration token.
    """
    import torch
    from awq import AutoAWQForCausalLM
    from awq.quantize.quantizer import AwqQuantizer

    began = time.perf_counter()
    model_folder.weight_files(folder)
    half = transformer.half_dtype(folder)
    compute = half if device.startswith("cuda") else "float32"
    torch.manual_seed(0)
    model = AutoAWQForCausalLM.from_pretrained(
        str(folder), torch_dtype=getattr(torch, compute), device_map="cpu", trust_remote_code=False
    )
    loaded = time.perf_counter()
    clip, outputs = (AwqQuantizer, "_compute_best_clip", 2), (AwqQuantizer, "_module_forward")
    with first_token.weighted(calibration, [clip], [outputs]):
        # A sample longer than max_calib_seq_len would be dropped without a word.
        model.quantize(
            quant_config=dict(settings),
            calib_data=[list(ids) for ids in calibration.ids],
            max_calib_samples=len(calibration.ids),
            max_calib_seq_len=len(calibration.ids[0]),
            n_parallel_calib_samples=batch_size,
            quantizer_cls=_copying_quantizer(),
        )
    samples, length, _ = model.quantizer.inps.shape
    if samples * length != calibration.tokens:
        raise RuntimeError(f"autoawq used {samples * length} of the {calibration.tokens} calibration tokens")
    quantized = time.perf_counter()
    model.save_quantized(str(out))
    written = model_folder.quantization(model_folder.read_config(out))
    checkpoint.finish(folder, out, half, written)
    calibration.write(out)
    kinds = [type(module).__name__ for module in model.model.modules()]
    return {
        **calibration.facts(),
        "calibration_tokens_least_seen": calibration.tokens,
        "load_s": loaded - began,
        "quantize_s": quantized - loaded,
        "save_s": time.perf_counter() - quantized,
        "modules_quantized": kinds.count("WQLinear_GEMM"),
        "compute_dtype": compute,
        "duo_scaling": True,
        "apply_clip": True,
        "settings": written,
    }


def _copying_quantizer() -> type:
    """AutoAWQ's quantizer, made to search on copies of the weights.

    It restores each weight from a copy made with `.cpu()`, which is no copy of a weight on a CPU: twenty
    trials then pile up in the weights.
    """
    from awq.quantize.quantizer import AwqQuantizer

    class CopyingQuantizer(AwqQuantizer):  # type: ignore[misc]  # the library has no types
        def _compute_best_scale(self, x: Any, w_mean: Any, x_mean: Any, module: Any, *rest: Any) -> Any:
            stored = module.state_dict
            module.state_dict = lambda: {name: tensor.clone() for name, tensor in stored().items()}
            try:
                return super()._compute_best_scale(x, w_mean, x_mean, module, *rest)
            finally:
                del module.state_dict

    return CopyingQuantizer
