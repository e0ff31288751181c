"""OpenVINO: a graph with the KV cache in its state, weights compressed by nncf without calibration.

optimum-intel writes the graph from PyTorch; int8 is one scale and zero point per output, int4 one per group
of inputs, where the embedding and the head stay in int8.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from bench.contract import phase
from bench.contract.errors import UserError
from bench.contract.record import Hardware, Source
from bench.contract.spec import Step
from bench.formats import folder as model_folder
from quantize import checkpoint, option_checks
from quantize.first_token import replaced

ENV = "openvino"
VERSION = 1
READS = frozenset({"hf", "openvino"})
WRITES = "openvino"
_MODEL = "openvino_model.xml"
_PACKED = frozenset({"u8", "i8", "u4", "i4", "nf4", "f4e2m1", "f8e4m3"})
# What optimum-intel, as it is pinned, exports with other releases of Transformers alone than the environment's (5.5).
_OTHER_RELEASES = frozenset(
    {
        *(
            "aquila",
            "arctic",
            "baichuan",
            "bitnet",
            "chatglm",
            "dbrx",
            "deci",
            "deepseek",
            "deepseek_v2",
            "deepseek_v3",
        ),
        *("exaone", "exaone4", "falcon_mamba", "gemma", "gemma2", "gemma3", "gemma3_text", "gemma3n_text"),
        *("gemma4_text", "glm", "internlm", "internlm2", "jais", "lfm2", "lfm2_moe", "llama4", "llama4_text"),
        *("llava-qwen2", "mamba", "marian"),
        *(
            "minicpm",
            "minicpm3",
            "orion",
            "ouro",
            "qwen",
            "qwen3_5_moe_text",
            "qwen3_5_text",
            "qwen3_next",
            "xverse",
            "zamba2",
        ),
    }
)


@dataclass(frozen=True)
class Options:
    """`group_size` -1: one scale per output. `group_size` and `symmetric` are for int4 only.

    What is not quantized is stored in 16 bits, but for the type float32.
    """

    type: Literal["float32", "float16", "int8", "int4"] = "int8"
    group_size: Literal[-1, 32, 64, 128, 256] = 128
    symmetric: bool = False


def unsupported(options: Options, source: Source, hardware: Hardware) -> str | None:
    model_type = str(model_folder.setting(source.config, "model_type"))
    if source.format == "hf" and model_type in _OTHER_RELEASES:
        return (
            f"optimum-intel exports {model_type} with another release of Transformers only than the one that is pinned "
            "here: use an engine that loads another format"
        )
    return option_checks.group_size(source, options.group_size) if options.type == "int4" else None


def weight_bits(options: Options) -> float:
    return {"float32": 32.0, "float16": 16.0, "int8": 8.0, "int4": 4.0}[options.type]


def prerequisites(options: Options, source_format: str) -> tuple[Step, ...]:
    """The graph in 32 bits that every other type of an unquantized model is made from."""
    if source_format != "hf" or options.type == "float32":
        return ()
    return (Step("openvino", asdict(Options(type="float32"))),)


def is_lossless(options: Options) -> bool:
    return options.type in ("float32", "float16")


def apply(folder: Path, options: Options, out: Path, device: str) -> Mapping[str, Any]:
    """Export a Hugging Face folder in 32 bits, or compress the graph that `folder` holds."""
    facts = _compress(folder, options, out) if (folder / _MODEL).is_file() else _export(folder, out)
    checkpoint.copy_settings(folder, out)
    checkpoint.write_config(out, model_folder.read_config(folder))
    return facts


def _export(folder: Path, out: Path) -> dict[str, Any]:
    import torch
    from optimum.exporters.openvino import export_from_model
    from optimum.intel import OVConfig
    from transformers import AutoModelForCausalLM

    phase.begin("loading the model")
    model_folder.weight_files(folder)
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, local_files_only=True, trust_remote_code=False, use_safetensors=True
    )
    began = time.perf_counter()
    phase.begin("tracing the graph, which has no steps")
    export_from_model(
        model.eval(), out, task="text-generation-with-past", stateful=True, ov_config=OVConfig(dtype="fp32")
    )
    return {"export_s": time.perf_counter() - began}


def _compress(folder: Path, options: Options, out: Path) -> dict[str, Any]:
    """UserError for a graph that is compressed already: nncf would skip its packed weights."""
    import openvino

    model = openvino.Core().read_model(folder / _MODEL)
    types = {n.get_element_type().get_type_name() for n in model.get_ops() if n.get_type_name() == "Constant"}
    if packed := sorted(types & _PACKED):
        raise UserError(f"the graph holds weights of {', '.join(packed)} already: compress the unquantized model")
    began = time.perf_counter()
    settings = _settings(options)
    if settings:
        import nncf
        from nncf.quantization.algorithms.weight_compression import algorithm

        with replaced(algorithm, "track", phase.bar("weight {n} of {total}")):
            model = nncf.compress_weights(model, **{**settings, "mode": nncf.CompressWeightsMode(settings["mode"])})
    compressed = time.perf_counter()
    phase.begin("writing the artifact")
    openvino.save_model(model, out / _MODEL, compress_to_fp16=options.type != "float32")
    return {"quantize_s": compressed - began, "save_s": time.perf_counter() - compressed, "settings": settings}


def _settings(options: Options) -> dict[str, Any]:
    """Arguments of nncf.compress_weights that decide what the weights become; none for a float type."""
    if options.type == "int8":
        return {"mode": "int8_asym"}
    if options.type == "int4":
        mode = "int4_sym" if options.symmetric else "int4_asym"
        return {"mode": mode, "ratio": 1.0, "group_size": options.group_size, "all_layers": False}
    return {}
