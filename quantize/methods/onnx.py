"""ONNX: models for ONNX Runtime, built by the model builder of onnxruntime-genai.

int4 and int8 are weight-only (MatMulNBits): blocks of each row with a scale, by the builder, or from a GPTQ or AWQ
model unchanged. int8_dynamic is onnxruntime's dynamic quantization of the fp32 model (MatMulInteger): a scale per
output, activations in 8 bits, scaled at each step.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from bench.contract import phase
from bench.contract.errors import UserError
from bench.contract.record import Hardware, Source
from bench.contract.spec import Step
from bench.formats import folder as model_folder
from quantize import checkpoint, mixed
from quantize.backends import architectures
from quantize.first_token import replaced

ENV = "onnx"
VERSION = 1
READS = frozenset({"hf", "gptq", "awq"})
WRITES = "onnx"
OPTIONS_SINCE = mixed.SINCE | {"calibration", "seed"}
_FILE = "model.onnx"
_BLOCKED = ("int8", "int4")
_PACKED = ("gptq", "awq")
_Precision = Literal["fp32", "fp16", "bf16", "int8", "int4", "int8_dynamic"]
_NOT_FOR = {"cpu": ("fp16", "bf16"), "cuda": ("int8_dynamic",), "NvTensorRtRtx": ("fp32", "int8", "int8_dynamic")}
_LAYER = re.compile(r"Reading layer (\d+)$")  # what the builder prints of its progress
_AFTER_LAYERS = re.compile(r"Reading final norm$")
_SAVING = re.compile(r"Saving ONNX model in ")
_LAYER_NAME = re.compile(r"model\.layers\.(\d+)\.(self_attn|mlp)\.(\w+_proj)")
_UNFUSED = "fuse_qkv=false"  # queries, keys and values as layers of their own
_EXCLUDE_HEAD = "nodes_to_exclude=/lm_head/MatMul,/model/embed_tokens/Gather"


@dataclass(frozen=True)
class Options(mixed.MixedOptions):
    """`algorithm` of int8 and int4: the builder's; default and rtn round to nearest, k_quant fits the scales.

    The builder knows more names, each for some layers of int4 in 8 bits. `accuracy_level`: what a kernel may
    round activations to: 1 float32, 2 float16, 3 bfloat16, 4 int8; 0 is the builder's choice, 4 on a CPU.
    `head`: quantize the head, and at int4 the embedding that it shares, too. `provider` auto: the device's.

    `mixed` at precision int4: int4 or int8 for each linear layer but the head, at `bits_per_weight` on average at most,
    of least predicted loss by the text `calibration`, of which `tokens` are read from a place that `seed` draws.
    """

    precision: _Precision = "int4"
    algorithm: Literal["default", "rtn", "k_quant", "rtn_last", "k_quant_last", "k_quant_mixed", "k_quant_linear"] = (
        "default"
    )
    block_size: Literal[16, 32, 64, 128, 256] = 32
    symmetric: bool = True
    accuracy_level: Literal[0, 1, 2, 3, 4] = 0
    head: bool = True
    provider: Literal["auto", "cpu", "cuda", "NvTensorRtRtx"] = "auto"
    calibration: str = "stdlib"
    seed: int = 0


def unsupported(options: Options, source: Source, hardware: Hardware) -> str | None:
    provider = _provider(options, hardware.device)
    if provider != "cpu" and not hardware.gpus:
        return f"provider {provider} needs an NVIDIA GPU, and this machine has none"
    reason = _precision_reason(options, provider) or _source_reason(options, source)
    return reason or (_mixed_reason(options, source, provider) if mixed.is_set(options) else None)


def _mixed_reason(options: Options, source: Source, provider: str) -> str | None:
    """Why layers cannot have types of their own: measured is the rounding of a CPU's int4 by default."""
    if options.precision != "int4" or options.algorithm != "default" or not options.symmetric or provider != "cpu":
        return "mixed types are those of precision int4, algorithm default, symmetric, on a CPU: leave the others out"
    if source.format != "hf":
        return f"mixed types are measured on an unquantized model, not on {source.format}"
    layers = {name: shape for name, shape in source.linears.items() if not model_folder.is_head(name)}
    if other := [name for name in layers if not _node(name)]:
        return f"the model builder's name of {other[0]} is not known here: mixed types are for models like Llama"
    return mixed.unsupported(options, "onnx", Source(source.format, layers, source.config), options.block_size)


def reads_text(options: Options) -> bool:
    return mixed.is_set(options)


def is_seeded(options: Options) -> bool:
    return mixed.is_set(options)


def prerequisites(options: Options, source_format: str) -> tuple[Step, ...]:
    """What types are chosen by."""
    return mixed.steps(options, "onnx", source_format, options.block_size) if mixed.is_set(options) else ()


def _precision_reason(options: Options, provider: str) -> str | None:
    """Why the model builder writes no such model, or one that ONNX Runtime cannot load or run there."""
    if options.precision in _NOT_FOR[provider]:
        supported = [p for p in get_args(_Precision) if p not in _NOT_FOR[provider]]
        return f"precision {options.precision} is not supported on {provider}: use one of {', '.join(supported)}"
    if options.precision not in _BLOCKED and options.algorithm != "default":
        return f"algorithm {options.algorithm} is for int8 and int4, not for {options.precision}"
    if options.precision == "int8" and options.algorithm not in ("default", "rtn", "k_quant"):
        return f"algorithm {options.algorithm} puts layers of an int4 model in 8 bits: use precision int4"
    if options.precision == "int4" and options.algorithm == "default" and not options.symmetric:
        return "algorithm default writes a model that does not load where symmetric is false: use algorithm rtn"
    return None


def _source_reason(options: Options, source: Source) -> str | None:
    """Why the source's weights cannot be stored that way."""
    if source.format in _PACKED and options.precision != "int4":
        return f"the model builder takes packed {source.format} weights over as int4: use precision int4"
    if reason := architectures.unknown_reason("onnxruntime-genai's model builder", source):
        return reason
    hidden = model_folder.hidden_size(source.config)
    if options.precision == "int4" and hidden % options.block_size:
        return f"block_size {options.block_size} does not divide the model's hidden size of {hidden}"
    return None


def weight_bits(options: Options) -> float:
    widths = {"fp32": 32.0, "fp16": 16.0, "bf16": 16.0, "int4": 4.0}
    return widths.get(options.precision, 8.0)


def is_lossless(options: Options) -> bool:
    return options.precision in ("fp32", "fp16", "bf16")


def apply(folder: Path, options: Options, out: Path, device: str) -> Mapping[str, Any]:
    """Build the model in a process of its own; for int8_dynamic, quantize what was built."""
    model_folder.weight_files(folder)
    began = time.perf_counter()
    provider = _provider(options, device)
    extra = [*_extra_options(options), *_window_options(model_folder.read_config(folder))]
    chosen = mixed.read_types(folder) if mixed.is_set(options) else None
    extra += [_UNFUSED] if chosen else []
    precision = "fp32" if options.precision == "int8_dynamic" else options.precision
    with tempfile.TemporaryDirectory(dir=out.parent) as scratch:
        build_folder = Path(scratch) if options.precision == "int8_dynamic" else out
        words = _overrides(chosen, Path(scratch)) if chosen else []
        _build(folder, build_folder, Path(scratch) / "cache", precision, provider, extra, words)
        built = time.perf_counter()
        if options.precision == "int8_dynamic":
            _quantize_dynamic(build_folder, out, head=options.head)
    checkpoint.copy_settings(folder, out)
    config = model_folder.read_config(folder)
    checkpoint.write_config(out, {k: v for k, v in config.items() if k != "quantization_config"})
    return {
        "build_s": built - began,
        **(chosen.facts() if chosen else {}),
        **({"quantize_s": time.perf_counter() - built} if options.precision == "int8_dynamic" else {}),
        "provider": provider,
        "settings": {"precision": precision, **dict(option.split("=", 1) for option in extra)},
    }


def _provider(options: Options, device: str) -> str:
    if options.provider != "auto":
        return options.provider
    return "cuda" if device.startswith("cuda") else "cpu"


def _extra_options(options: Options) -> list[str]:
    """The builder's extra options. It gets no token of the Hub, and runs no code from the model's folder."""
    extra = ["hf_token=false", "hf_remote=false"]
    if options.precision in _BLOCKED:
        extra += [f"algo_config={options.algorithm}", f"block_size={options.block_size}"]
        extra += [f"is_symmetric={str(options.symmetric).lower()}"]
        extra += [f"accuracy_level={options.accuracy_level}"] if options.accuracy_level else []
        extra += [] if options.head else [_EXCLUDE_HEAD]
    return extra


def _window_options(config: Mapping[str, Any]) -> list[str]:
    """A cache of every token for layers that see a window: a prompt longer than a windowed cache ends in an error."""
    return ["windowed_kv_cache=false"] if model_folder.size(config, "sliding_window") else []


def _node(layer: str) -> str:
    """The builder's name of a layer of a model like Llama; "" of another."""
    at = _LAYER_NAME.fullmatch(layer)
    return f"/model/layers.{at[1]}/{'attn' if at[2] == 'self_attn' else 'mlp'}/{at[3]}/MatMul" if at else ""


def _overrides(chosen: mixed.Allotment, scratch: Path) -> list[str]:
    """Words of the builder's command line that give layers 8 bits; it refuses a name that its graph has not."""
    wide = [_node(layer) for layer, kind in chosen.types.items() if kind == "int8" and not model_folder.is_head(layer)]
    overrides = [{"match": {"name": node}, "type": "int8"} for node in wide]
    file = scratch / "target.json"
    file.write_text(json.dumps({"quant_config": {"weights": {"overrides": overrides}}}), encoding="utf-8")
    return ["--builder_config_version", "2", "--target_options", str(file)] if wide else []


def _build(
    folder: Path, out: Path, cache: Path, precision: str, provider: str, extra: list[str], words: list[str]
) -> None:
    argv = [sys.executable, "-m", "quantize.backends.onnx_builder", "-i", str(folder), "-o", str(out)]
    argv += ["-p", precision, "-e", provider, "-c", str(cache), *words, "--extra_options", *extra]
    variables = {**os.environ, "TQDM_DISABLE": "1", "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
    layers = model_folder.layer_count(model_folder.read_config(folder))
    steps, log = phase.Steps("layer {n} of {total}", layers), list[str]()
    phase.begin("starting the model builder")
    with subprocess.Popen(
        argv, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        for line in process.stdout or ():
            log.append(line)
            sys.stderr.write(line)
            if at := _LAYER.match(line):
                steps.at(int(at[1]))
            elif _AFTER_LAYERS.match(line):
                steps.at(layers)
            elif _SAVING.match(line):
                phase.begin("packing and writing the model")
    if process.returncode or not (out / _FILE).is_file():
        lines = [line.strip() for line in "".join(log).replace(str(folder), folder.name).splitlines()]
        reason = next((line for line in reversed(lines) if line), "it gives no reason")
        raise UserError(f"onnxruntime-genai's model builder failed: {reason[:300]}")


def _quantize_dynamic(source: Path, out: Path, *, head: bool) -> None:
    """To unsigned 8 bits: products of signed weights overflow silently on CPUs without VNNI."""
    from onnxruntime.quantization import QuantType, onnx_quantizer, quantize_dynamic

    phase.begin("reading the fp32 model")
    steps, create = list[phase.Steps](), onnx_quantizer.CreateOpQuantizer

    def create_next(quantizer: Any, node: Any) -> Any:
        if not steps:
            steps.append(phase.Steps("node {done} of {total}", len(quantizer.model.nodes())))
        steps[0].add(1)
        return create(quantizer, node)

    with replaced(onnx_quantizer, "CreateOpQuantizer", create_next):
        quantize_dynamic(
            source / _FILE,
            out / _FILE,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            weight_type=QuantType.QUInt8,
            use_external_data_format=True,
            nodes_to_exclude=None if head else ["/lm_head/MatMul"],
        )
    shutil.copyfile(source / "genai_config.json", out / "genai_config.json")
