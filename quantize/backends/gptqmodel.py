"""What GPTQ and AWQ share: one library does both, and both must run, be checked and be written the same way.

Source: GPTQModel (github.com/ModelCloud/GPTQModel), at the version the hf environment pins.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bench.contract.record import Hardware, Source
from bench.formats import folder as model_folder
from quantize import checkpoint
from quantize.calibration import Calibration, unsupported_length

_CPU_GROUPS = (32, 64, 128, 256)
# Of the library's forty settings, those that decide what the weights become.
_TOLD = (
    "bits",
    "group_size",
    "sym",
    "zero_point",
    "desc_act",
    "act_group_aware",
    "damp_percent",
    "damp_auto_increment",
    "static_groups",
    "true_sequential",
    "mse",
    "lm_head",
    "checkpoint_format",
)


def unfit(source: Source, hardware: Hardware, bits: int, group_size: int, length: int) -> str | None:
    """Why the linear layers cannot be cut in groups of `group_size` inputs, or samples are too long.

    4-bit layers of other groups than _CPU_GROUPS are written, but no CPU can run them: transformers picks a
    kernel (aten::_weight_int4pack_mm) that refuses them at the first token.
    """
    if reason := unsupported_length(source, length):
        return reason
    for name, (_, inputs) in source.linears.items():
        group = inputs if group_size == -1 else group_size
        if name == "lm_head":
            continue
        if inputs % group:
            return f"group_size {group_size} does not divide the {inputs} inputs of {name}"
        if hardware.device == "cpu" and bits == 4 and group not in _CPU_GROUPS:
            return f"no CPU kernel runs 4 bits in groups of {group} ({name}): use 32, 64, 128 or 256"
    return None


def run(
    folder: Path,
    out: Path,
    device: str,
    calibration: Calibration,
    settings: Callable[[str], Any],
    batch_size: int,
    backend: str,
) -> Mapping[str, Any]:
    """Quantize, save, and return what is worth recording. `settings` makes the library's config for a device.

    RuntimeError when the library did not use every calibration token.
    """
    # Packing in PyTorch is as fast as in the library's C++ kernel, which wants a compiler and half a minute.
    os.environ.setdefault("GPTQMODEL_DISABLE_PACK_EXT", "1")
    import torch
    from gptqmodel import BACKEND, GPTQModel
    from gptqmodel.models import loader

    if model_folder.is_dummy(folder):  # the library wants a tokenizer, and has no use for it: ids are given
        loader.load_hf_tokenizer = lambda *_, **__: None
    began = time.perf_counter()
    stored = model_folder.stored_dtype(model_folder.read_config(folder))
    on_gpu = device.startswith("cuda")
    compute = (stored if stored in model_folder.HALF else "float16") if on_gpu else "float32"
    torch.manual_seed(0)
    model = GPTQModel.load(str(folder), settings("cuda:0" if on_gpu else "cpu"), dtype=getattr(torch, compute))
    loaded = time.perf_counter()
    batch = [{"input_ids": list(ids), "attention_mask": [1] * len(ids)} for ids in calibration.ids]
    model.quantize(batch, batch_size=batch_size, calibration_sort=None, backend=BACKEND[backend])
    quantized = time.perf_counter()
    model.save(str(out))
    config = _finish(folder, out, stored)
    calibration.write(out)
    return {
        **calibration.facts(),
        **_log(model.quant_log, calibration.tokens),
        "load_s": loaded - began,
        "quantize_s": quantized - loaded,
        "save_s": time.perf_counter() - quantized,
        "compute_dtype": compute,
        "packing_backend": backend,
        "settings": config,
    }


def _finish(folder: Path, out: Path, stored: str) -> dict[str, Any]:
    """Give the folder its source's files, config and floating type; return its quantization config, flat."""
    (out / "quant_log.csv").unlink(missing_ok=True)
    written = model_folder.quantization(model_folder.read_config(out))
    checkpoint.finish(folder, out, stored if stored in model_folder.HALF else "float16", written)
    told = {**written, **written.get("meta", {})}
    return {key: told[key] for key in _TOLD if told.get(key) is not None}


def _log(entries: list[dict[str, Any]], tokens: int) -> dict[str, Any]:
    """The library's account of each module: loss, tokens seen, and which it did without calibration."""
    names = {f"{entry['layer']}.{entry['module']}": str(entry["loss"]) for entry in entries}
    losses = [float(loss) for loss in names.values() if loss.replace(".", "").replace("e-", "").isdigit()]
    seen = [int(entry["samples"]) for entry in entries if str(entry.get("samples", "")).isdigit()]
    if not seen or max(seen) != tokens:
        raise RuntimeError(f"gptqmodel used {max(seen, default=0)} of the {tokens} calibration tokens")
    return {
        "modules_quantized": len(names),
        "modules_by_fallback": sorted(name for name, loss in names.items() if "fallback" in loss),
        "calibration_tokens_least_seen": min(seen),
        "loss_mean": sum(losses) / len(losses) if losses else None,
        "loss_most": max(losses, default=None),
    }
