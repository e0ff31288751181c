"""AutoAWQ 0.2.9 (github.com/casper-hansen/AutoAWQ), AutoGPTQ 0.7.1 (AutoGPTQ/AutoGPTQ): archived, in their own envs."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from bench.contract import phase
from bench.contract.record import Hardware
from bench.formats import folder as model_folder
from quantize import checkpoint, first_token, option_checks, transformer
from quantize.calibration import Calibration

LOGGED_LAYER = re.compile(r"Start quantizing layer (\d+)/(\d+)")
_NEWEST = (9, 0)  # the compute capability that their torch, 2.6 and 2.2, has kernels for, at most


def awq_unsupported(hardware: Hardware, group_size: int, *, symmetric: bool) -> str | None:
    """What AutoAWQ cannot do beyond what gptqmodel cannot."""
    if symmetric:
        return "autoawq packs weights with zero points only: leave symmetric false, or use backend: gptqmodel"
    if group_size == -1:
        return "autoawq's packer has no group_size -1: name a size, or use backend: gptqmodel"
    return None if hardware.device == "cpu" else option_checks.compute_capability(hardware, "autoawq", _NEWEST)


def gptq_unsupported(hardware: Hardware, *, act_group_aware: bool) -> str | None:
    """What AutoGPTQ cannot do beyond what gptqmodel cannot."""
    if hardware.device == "cpu":
        return "auto-gptq needs CUDA to quantize: use backend: gptqmodel, which runs on a CPU too"
    if act_group_aware:
        return "act_group_aware is gptqmodel's own order: leave it out with backend: auto-gptq"
    return option_checks.compute_capability(hardware, "auto-gptq", _NEWEST)


def awq(
    folder: Path, out: Path, device: str, calibration: Calibration, settings: Mapping[str, Any], batch_size: int
) -> Mapping[str, Any]:
    """Quantize and save; facts to record. In float32 on a CPU. RuntimeError unless every calibration token was used."""
    import torch
    from awq import AutoAWQForCausalLM
    from awq.quantize import quantizer as module
    from awq.quantize.quantizer import AwqQuantizer

    began = time.perf_counter()
    phase.begin("loading the model")
    model_folder.weight_files(folder)
    compute = transformer.half_dtype(folder) if device.startswith("cuda") else "float32"
    torch.manual_seed(0)
    model = AutoAWQForCausalLM.from_pretrained(
        str(folder), torch_dtype=getattr(torch, compute), device_map="cpu", trust_remote_code=False
    )
    loaded = time.perf_counter()
    quantizer = _copying_quantizer()
    weighted = first_token.weighted(calibration, [], [(AwqQuantizer, "_module_forward")])
    with weighted, first_token.replaced(module, "tqdm", phase.bar("layer {n} of {total}")):
        # A sample longer than max_calib_seq_len would be dropped without a word.
        model.quantize(
            quant_config=dict(settings),
            calib_data=[list(ids) for ids in calibration.ids],
            max_calib_samples=len(calibration.ids),
            max_calib_seq_len=len(calibration.ids[0]),
            n_parallel_calib_samples=batch_size,
            quantizer_cls=quantizer,
        )
    samples, length, _ = model.quantizer.inps.shape
    if samples * length != calibration.tokens:
        raise RuntimeError(f"autoawq used {samples * length} of the {calibration.tokens} calibration tokens")
    quantized = time.perf_counter()
    phase.begin("writing the artifact")
    model.save_quantized(str(out))
    return {
        **_finish(folder, out, calibration, model.model, (began, loaded, quantized)),
        "compute_dtype": compute,
        "duo_scaling": True,
        "apply_clip": True,
    }


def gptq(
    folder: Path, out: Path, calibration: Calibration, settings: Mapping[str, Any], batch_size: int
) -> Mapping[str, Any]:
    """Quantize on the first GPU, save, and return what is worth recording."""
    import torch
    from auto_gptq import AutoGPTQForCausalLM, BaseQuantizeConfig
    from auto_gptq.quantization.gptq import GPTQ

    began = time.perf_counter()
    model_folder.weight_files(folder)
    phase.begin("loading the model")
    half = transformer.half_dtype(folder)
    torch.manual_seed(0)
    config = BaseQuantizeConfig(**settings, model_file_base_name="model")
    model = AutoGPTQForCausalLM.from_pretrained(
        str(folder), config, torch_dtype=getattr(torch, half), use_safetensors=True
    )
    loaded = time.perf_counter()
    with first_token.weighted(calibration, [(GPTQ, "add_batch", 1)]), _logged_layers():
        model.quantize(calibration.encodings(), batch_size=batch_size)
    quantized = time.perf_counter()
    phase.begin("writing the artifact")
    model.save_quantized(str(out), use_safetensors=True)
    (out / "quantize_config.json").unlink(missing_ok=True)
    return {**_finish(folder, out, calibration, model.model, (began, loaded, quantized)), "compute_dtype": half}


@contextmanager
def _logged_layers() -> Iterator[None]:
    """Tell the layers that AutoGPTQ names in its log, which is all that it tells."""
    steps: list[phase.Steps] = []

    class Layers(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if (at := LOGGED_LAYER.fullmatch(record.getMessage())) is None:
                return
            if not steps:
                steps.append(phase.Steps("layer {n} of {total}", int(at[2])))
            steps[0].at(int(at[1]) - 1)

    logger, handler = logging.getLogger("auto_gptq.modeling._base"), Layers()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def _finish(
    folder: Path, out: Path, calibration: Calibration, model: Any, times_s: tuple[float, float, float]
) -> dict[str, Any]:
    """Complete the folder; facts of its layers and settings, and of the times: begun, loaded, quantized."""
    written = model_folder.quantization(model_folder.read_config(out))
    for key in ("model_name_or_path", "model_file_base_name"):  # a path of this machine, a name of the library's own
        written.pop(key, None)
    checkpoint.finish(folder, out, transformer.half_dtype(folder), written)
    calibration.write(out)
    began, loaded, quantized = times_s
    return {
        **calibration.facts(),
        "calibration_tokens_least_seen": calibration.tokens,
        "load_s": loaded - began,
        "quantize_s": quantized - loaded,
        "save_s": time.perf_counter() - quantized,
        "modules_quantized": sum(hasattr(module, "qweight") for module in model.modules()),
        "settings": written,
    }


def _copying_quantizer() -> type:
    """AutoAWQ's quantizer, made to search on copies of the weights, and to carry activations as they are.

    It restores each weight from a copy made with `.cpu()`, which is no copy of a weight on a CPU: twenty
    trials then pile up in the weights. And `_module_forward` gives what its search compares, where first tokens may
    weigh more, as well as the next block's inputs: those are of the function that is there when this is called.
    """
    from awq.quantize.quantizer import AwqQuantizer

    forward = AwqQuantizer._module_forward  # noqa: SLF001

    class CopyingQuantizer(AwqQuantizer):  # type: ignore[misc]  # the library has no types
        def _compute_best_scale(self, x: Any, w_mean: Any, x_mean: Any, module: Any, *rest: Any) -> Any:
            stored = module.state_dict
            module.state_dict = lambda: {name: tensor.clone() for name, tensor in stored().items()}
            try:
                return super()._compute_best_scale(x, w_mean, x_mean, module, *rest)
            finally:
                del module.state_dict

        def _get_input_feat(self, layer: Any, named_linears: Any) -> Any:
            self._module_forward = partial(forward, self)
            try:
                return super()._get_input_feat(layer, named_linears)
            finally:
                del self._module_forward

    return CopyingQuantizer
