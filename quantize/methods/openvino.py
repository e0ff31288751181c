"""OpenVINO: a graph with the KV cache in its state, weights compressed by nncf without calibration.

optimum-intel writes the graph from PyTorch; int8 is one scale and zero point per output, int4 one per group
of inputs, where the embedding and the head stay in int8.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bench.contract.record import Hardware, Source
from bench.contract.spec import Step
from quantize import checkpoint

ENV = "openvino"
VERSION = 1
READS = frozenset({"hf"})
WRITES = "openvino"
_MODEL = "openvino_model.xml"


@dataclass(frozen=True)
class Options:
    """`group_size` -1: one scale per output. `group_size` and `symmetric` are for int4 only.

    What is not quantized is stored in 16 bits, but for the type float32.
    """

    type: Literal["float32", "float16", "int8", "int4"] = "int8"
    group_size: Literal[-1, 32, 64, 128, 256] = 128
    symmetric: bool = False


def unsupported(options: Options, source: Source, hardware: Hardware) -> str | None:
    del hardware
    if options.type != "int4" or options.group_size == -1:
        return None
    for name, (_, inputs) in source.linears.items():
        if inputs % options.group_size and name != "lm_head":
            return f"group_size {options.group_size} does not divide the {inputs} inputs of {name}"
    return None


def before(options: Options, source_format: str) -> tuple[Step, ...]:
    del options, source_format
    return ()


def apply(folder: Path, options: Options, out: Path, device: str) -> Mapping[str, Any]:
    """Export in 32 bits whatever the source's type, compress, and save."""
    del device
    import openvino

    began = time.perf_counter()
    whole = out / "whole"
    _export(folder, whole)
    exported = time.perf_counter()
    model = openvino.Core().read_model(whole / _MODEL)
    settings = _settings(options)
    if settings:
        import nncf

        chosen = nncf.CompressWeightsMode(settings["mode"])
        model = nncf.compress_weights(model, **{**settings, "mode": chosen})
    compressed = time.perf_counter()
    openvino.save_model(model, out / _MODEL, compress_to_fp16=options.type != "float32")
    del model  # it is mapped from the files in `whole`
    shutil.rmtree(whole)
    checkpoint.carry(folder, out)
    checkpoint.write_config(out, checkpoint.config(folder))
    return {
        "export_s": exported - began,
        "quantize_s": compressed - exported,
        "save_s": time.perf_counter() - compressed,
        "settings": settings,
    }


def _export(folder: Path, out: Path) -> None:
    import torch
    from optimum.exporters.openvino import export_from_model
    from optimum.intel import OVConfig
    from transformers import AutoModelForCausalLM

    checkpoint.weight_files(folder)
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, local_files_only=True, use_safetensors=True
    )
    export_from_model(
        model.eval(), out, task="text-generation-with-past", stateful=True, ov_config=OVConfig(dtype="fp32")
    )


def _settings(options: Options) -> dict[str, Any]:
    """Arguments of nncf.compress_weights that decide what the weights become; none for a float type."""
    if options.type == "int8":
        return {"mode": "int8_asym"}
    if options.type == "int4":
        mode = "int4_sym" if options.symmetric else "int4_asym"
        return {"mode": mode, "ratio": 1.0, "group_size": options.group_size, "all_layers": False}
    return {}
