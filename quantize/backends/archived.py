"""AutoAWQ and AutoGPTQ: archived, but they made most of the AWQ and GPTQ checkpoints that people hold.

Each runs in an environment of its own with the releases it was last tested with; `backend` of the methods awq
and gptq chooses it. Sources: github.com/casper-hansen/AutoAWQ 0.2.9, github.com/AutoGPTQ/AutoGPTQ 0.7.1.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.contract.record import Hardware
from bench.formats import folder as model_folder
from quantize import checkpoint
from quantize.calibration import Calibration

_NEWEST = (9, 0)  # the compute capability that their torch (2.6 and 2.2) has kernels for, at most


def awq_unfit(hardware: Hardware, group_size: int, *, symmetric: bool) -> str | None:
    """What AutoAWQ cannot, beyond what gptqmodel cannot."""
    if symmetric:
        return "autoawq packs weights with zero points only: leave symmetric false, or use backend: gptqmodel"
    if group_size == -1:
        return "autoawq's packer has no group_size -1: name a size, or use backend: gptqmodel"
    return None if hardware.device == "cpu" else _too_new(hardware, "autoawq")


def gptq_unfit(hardware: Hardware, *, act_group_aware: bool) -> str | None:
    """What AutoGPTQ cannot, beyond what gptqmodel cannot."""
    if hardware.device == "cpu":
        return "auto-gptq needs CUDA to quantize: use backend: gptqmodel, which runs on a CPU too"
    if act_group_aware:
        return "act_group_aware is gptqmodel's own order: leave it out with backend: auto-gptq"
    return _too_new(hardware, "auto-gptq")


def _too_new(hardware: Hardware, library: str) -> str | None:
    for gpu in hardware.gpus:
        if tuple(int(part) for part in gpu.compute_capability.split(".")) > _NEWEST:
            most = ".".join(map(str, _NEWEST))
            return f"{library}'s torch has kernels up to compute capability {most}: use backend: gptqmodel"
    return None


def awq(
    folder: Path, out: Path, device: str, calibration: Calibration, settings: Mapping[str, Any], batch: int
) -> Mapping[str, Any]:
    """Quantize with AutoAWQ, save, and return what is worth recording. Computes in float32 on a CPU."""
    import torch
    from awq import AutoAWQForCausalLM

    began = time.perf_counter()
    stored = _stored(folder)
    compute = stored if device.startswith("cuda") else "float32"
    torch.manual_seed(0)
    model = AutoAWQForCausalLM.from_pretrained(
        str(folder), torch_dtype=getattr(torch, compute), device_map="cpu", trust_remote_code=False
    )
    loaded = time.perf_counter()
    # A sample longer than max_calib_seq_len would be dropped without a word.
    model.quantize(
        quant_config=dict(settings),
        calib_data=[list(ids) for ids in calibration.ids],
        max_calib_samples=len(calibration.ids),
        max_calib_seq_len=len(calibration.ids[0]),
        n_parallel_calib_samples=batch,
        quantizer_cls=_on_copies(),
    )
    samples, length, _ = model.quantizer.inps.shape
    if samples * length != calibration.tokens:
        raise RuntimeError(f"autoawq used {samples * length} of the {calibration.tokens} calibration tokens")
    quantized = time.perf_counter()
    model.save_quantized(str(out))
    times = (loaded - began, quantized - loaded, time.perf_counter() - quantized)
    facts = _finish(folder, out, stored, calibration, times)
    kinds = [type(module).__name__ for module in model.model.modules()]
    done = {"modules_quantized": kinds.count("WQLinear_GEMM"), "compute_dtype": compute}
    return {**facts, **done, "duo_scaling": True, "apply_clip": True}


def _on_copies() -> type:
    """AutoAWQ's quantizer, made to search on copies.

    It restores each weight from a copy made with `.cpu()`, which is no copy of a weight on a CPU: twenty
    trials then pile up in the weights.
    """
    from awq.quantize.quantizer import AwqQuantizer

    class OnCopies(AwqQuantizer):  # type: ignore[misc]  # the library has no types
        def _compute_best_scale(self, x: Any, w_mean: Any, x_mean: Any, module: Any, *rest: Any) -> Any:
            stored = module.state_dict
            module.state_dict = lambda: {name: tensor.clone() for name, tensor in stored().items()}
            try:
                return super()._compute_best_scale(x, w_mean, x_mean, module, *rest)
            finally:
                del module.state_dict

    return OnCopies


def gptq(
    folder: Path, out: Path, calibration: Calibration, settings: Mapping[str, Any], batch: int
) -> Mapping[str, Any]:
    """Quantize with AutoGPTQ on the first GPU, save, and return what is worth recording."""
    import torch
    from auto_gptq import AutoGPTQForCausalLM, BaseQuantizeConfig

    began = time.perf_counter()
    stored = _stored(folder)
    torch.manual_seed(0)
    wanted = BaseQuantizeConfig(**settings, model_file_base_name="model")
    model = AutoGPTQForCausalLM.from_pretrained(
        str(folder), wanted, torch_dtype=getattr(torch, stored), use_safetensors=True
    )
    loaded = time.perf_counter()
    # All samples have one length: its batches are never padded.
    samples = [{"input_ids": list(ids), "attention_mask": [1] * len(ids)} for ids in calibration.ids]
    model.quantize(samples, batch_size=batch)
    quantized = time.perf_counter()
    model.save_quantized(str(out), use_safetensors=True)
    times = (loaded - began, quantized - loaded, time.perf_counter() - quantized)
    facts = _finish(folder, out, stored, calibration, times)
    quantized_layers = sum(hasattr(module, "qweight") for module in model.model.modules())
    return {**facts, "modules_quantized": quantized_layers, "compute_dtype": stored}


def _stored(folder: Path) -> str:
    model_folder.weight_files(folder)
    stored = model_folder.stored_dtype(model_folder.read_config(folder))
    return stored if stored in model_folder.HALF else "float16"


def _finish(
    folder: Path, out: Path, stored: str, calibration: Calibration, times: tuple[float, float, float]
) -> dict[str, Any]:
    written = dict(model_folder.quantization(model_folder.read_config(out)))
    for place in ("model_name_or_path", "model_file_base_name"):  # this machine's, or auto-gptq's own
        written.pop(place, None)
    (out / "quantize_config.json").unlink(missing_ok=True)
    checkpoint.finish(folder, out, stored, written)
    calibration.write(out)
    return {
        **calibration.facts(),
        **dict(zip(("load_s", "quantize_s", "save_s"), times, strict=True)),
        "calibration_tokens_least_seen": calibration.tokens,
        "settings": written,
    }
