"""GPTQModel: one library for GPTQ and AWQ, which run, are checked and are written the same way.

Source: GPTQModel (github.com/ModelCloud/GPTQModel), at the version the hf environment pins.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence, Sized
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any, Literal

from bench.contract import phase
from bench.contract.record import Hardware, Source
from bench.formats import folder as model_folder
from quantize import checkpoint, first_token, option_checks, output_errors, transformer
from quantize.backends import split_layers
from quantize.calibration import Calibration

_CPU_GROUPS = (32, 64, 128, 256)
_NAMES = 3  # of layers that are quantized together
# Of the library's forty settings, those that decide what the weights become.
_RECORDED = (
    *("bits", "group_size", "sym", "zero_point", "desc_act", "act_group_aware", "damp_percent"),
    *("damp_auto_increment", "static_groups", "true_sequential", "mse", "lm_head", "checkpoint_format"),
)


def unsupported_reason(source: Source, hardware: Hardware, options: Any) -> str | None:
    """Why the linear layers cannot be quantized in groups of `group_size` inputs, or samples are too long.

    4-bit layers of other groups than _CPU_GROUPS are written, but no CPU can run them: transformers picks a
    kernel (aten::_weight_int4pack_mm) that refuses them at the first token.
    """
    reason = option_checks.sample_length(source, options.length) or option_checks.group_size(source, options.group_size)
    if reason or hardware.device != "cpu" or options.bits != 4:
        return reason
    for name, (_, inputs) in source.linears.items():
        group = inputs if options.group_size == -1 else options.group_size
        if not model_folder.is_head(name) and group not in _CPU_GROUPS:
            return f"no CPU kernel runs 4 bits in groups of {group} ({name}): use 32, 64, 128 or 256"
    return None


def weight_bits(options: Any) -> float:
    """Of a linear weight: each group has a 16-bit scale and a packed zero point."""
    bits: int = options.bits
    return bits + ((16 + bits) / options.group_size if options.group_size > 0 else 0.0)


def run(
    folder: Path,
    out: Path,
    device: str,
    calibration: Calibration,
    algorithm: Literal["GPTQ", "AWQ"],
    settings: Mapping[str, Any],
    batch_size: int,
) -> Mapping[str, Any]:
    """Quantize, save, and return what is worth recording. `settings` are of the library's GPTQConfig or AWQConfig.

    RuntimeError when the library did not use every calibration token.
    """
    # Packing in PyTorch is as fast as in the library's C++ kernel, which wants a compiler and half a minute.
    os.environ.setdefault("GPTQMODEL_DISABLE_PACK_EXT", "1")
    import torch
    from gptqmodel import BACKEND, GPTQModel
    from gptqmodel.models import loader
    from gptqmodel.quantization import config as configs

    loader.load_hf_tokenizer = partial(_tokenizer, folder, loader.load_hf_tokenizer)
    began = time.perf_counter()
    half = transformer.half_dtype(folder)
    on_gpu, backend = device.startswith("cuda"), f"{algorithm}_TORCH"
    compute = half if on_gpu else "float32"
    config_class = {"GPTQ": configs.GPTQConfig, "AWQ": configs.AWQConfig}[algorithm]
    config = config_class(**settings, offload_to_disk=False, device="cuda:0" if on_gpu else "cpu")
    torch.manual_seed(0)
    phase.begin("loading the model")
    model = GPTQModel.load(str(folder), config, dtype=getattr(torch, compute), trust_remote_code=False)
    loaded = time.perf_counter()
    model.subset_callback = model.layer_callback = _Layers(transformer.blocks(model.model)[1], algorithm)
    # What is entered last is called first: errors are of the inputs as they are.
    with _first_tokens(calibration, algorithm), output_errors.of_gptqmodel(calibration) as errors:
        model.quantize(calibration.encodings(), batch_size=batch_size, calibration_sort=None, backend=BACKEND[backend])
    quantized = time.perf_counter()
    phase.begin("writing the artifact")
    model.save(str(out))
    recorded = _finish(folder, out, half)
    calibration.write(out)
    return {
        **calibration.facts(),
        **_module_facts(model.quant_log, calibration.tokens),
        **errors.facts(),
        "load_s": loaded - began,
        "quantize_s": quantized - loaded,
        "save_s": time.perf_counter() - quantized,
        "compute_dtype": compute,
        "packing_backend": backend,
        "settings": recorded,
    }


def _tokenizer(folder: Path, load: Callable[..., Any], *words: Any, model_config: Any, **settings: Any) -> Any:
    """The library's own, which needs none for ids: None where there is none, or its padding is no token of the model.

    Transformers gives Qwen2 its class's padding token, which a cut vocabulary does not have, and the library then gives
    it to the config: no embedding takes that.
    """
    if model_folder.is_dummy(folder):
        return None
    text = model_config.get_text_config()
    padding, rows = getattr(text, "pad_token_id", None), model_folder.vocab_size(model_folder.read_config(folder))
    tokenizer = load(*words, model_config=model_config, **settings)
    if not rows or (getattr(text, "pad_token_id", None) or 0) < rows:
        return tokenizer
    text.pad_token_id = padding
    return None


class _Layers:
    """What the library calls with where it is: each layer in parts, which are the linear layers that share an input.

    AWQ searches in all parts at once, behind the last one.
    """

    def __init__(self, layers: Sized, algorithm: Literal["GPTQ", "AWQ"]) -> None:
        self._steps, self._algorithm = phase.Steps("layer {n} of {total}", len(layers)), algorithm

    def subset_event(
        self,
        *,
        stage: str,
        layer_idx: int,
        subset_index: int,
        subset_total: int,
        module_names: Sequence[str],
        processor: str,
    ) -> None:
        del processor
        searches = self._algorithm == "AWQ" and stage == "quant_start" and subset_index + 1 == subset_total
        if stage == "forward_start" or searches:
            detail = "searching the scales" if searches else _named(module_names)
            self._steps.at(layer_idx + subset_index / subset_total, detail)

    def layer_complete(self, *, layer_idx: int, submodule_finalized: bool) -> None:
        """A layer's weights are packed in other threads, while the next one is begun."""
        if not submodule_finalized:
            self._steps.at(layer_idx + 1)


def _named(modules: Sequence[str]) -> str:
    """The last parts of some names: of experts there are many."""
    shown = [name.rpartition(".")[2] for name in modules[:_NAMES]]
    return ", ".join([*shown, *(["…"] if len(modules) > _NAMES else [])])


def _first_tokens(text: Calibration, algorithm: Literal["GPTQ", "AWQ"]) -> AbstractContextManager[None]:
    """Let first tokens weigh: in GPTQ's Hessian; in AWQ's search for scales.

    Its search for clipping keeps every n-th row of all windows end to end: every first token, or none.
    """
    from gptqmodel.looper.awq_processor import AWQProcessor
    from gptqmodel.quantization.gptq import GPTQ

    if algorithm == "GPTQ":
        return first_token.weighted(text, [(GPTQ, "process_batch", 1)])
    return first_token.weighted(text, [], [(AWQProcessor, "_iter_module_forward_outputs")])


def _finish(folder: Path, out: Path, half: str) -> dict[str, Any]:
    """Give the folder its source's files, config and floating type; return its quantization config, flat."""
    (out / "quant_log.csv").unlink(missing_ok=True)
    written = model_folder.quantization(model_folder.read_config(out))
    split_layers.join(folder, out)
    checkpoint.finish(folder, out, half, written)
    flat = {**written, **written.get("meta", {})}
    return {key: flat[key] for key in _RECORDED if flat.get(key) is not None}


def _module_facts(log: list[dict[str, Any]], tokens: int) -> dict[str, Any]:
    """From the library's log, an entry a module: loss, tokens used, and which did without calibration."""
    losses_by_name = {f"{entry['layer']}.{entry['module']}": str(entry["loss"]) for entry in log}
    losses = [float(loss) for loss in losses_by_name.values() if loss.replace(".", "").replace("e-", "").isdigit()]
    used = [int(entry["samples"]) for entry in log if str(entry.get("samples", "")).isdigit()]
    if not used or max(used) != tokens:
        raise RuntimeError(f"gptqmodel used {max(used, default=0)} of the {tokens} calibration tokens")
    return {
        "modules_quantized": len(losses_by_name),
        "modules_by_fallback": sorted(name for name, loss in losses_by_name.items() if "fallback" in loss),
        "calibration_tokens_least_seen": min(used),
        "loss_mean": sum(losses) / len(losses) if losses else None,
        "loss_most": max(losses, default=None),
    }
