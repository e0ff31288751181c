"""ONNX: models for ONNX Runtime, made by the model builder of onnxruntime-genai.

int4 and int8 are weight-only: blocks of each row with a scale (MatMulNBits), rounded by the builder, or taken
over as they are from a GPTQ or AWQ model. int8_dynamic is onnxruntime's own dynamic quantization of the fp32
model: a scale per output, and activations in 8 bits, scaled anew at each step (MatMulInteger).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bench.contract.errors import UserError
from bench.contract.record import Hardware, Source
from bench.contract.spec import Step
from bench.formats import folder as model_folder
from quantize import checkpoint

ENV = "onnx"
VERSION = 1
READS = frozenset({"hf", "gptq", "awq"})
WRITES = "onnx"
_FILE = "model.onnx"
_BLOCKED = ("int8", "int4")
_PACKED = ("gptq", "awq")
_PRECISIONS = ("fp32", "fp16", "bf16", "int8", "int4", "int8_dynamic")
_NOT_FOR = {"cpu": ("fp16", "bf16"), "cuda": ("int8_dynamic",), "NvTensorRtRtx": ("fp32", "int8", "int8_dynamic")}
_HEAD = "nodes_to_exclude=/lm_head/MatMul,/model/embed_tokens/Gather"


@dataclass(frozen=True)
class Options:
    """`algorithm` of int8 and int4: the builder's; default and rtn round to nearest, k_quant fits the scales.

    The builder knows more names, each for some layers of int4 in 8 bits. `accuracy_level`: what a kernel may
    round activations to: 1 float32, 2 float16, 3 bfloat16, 4 int8; 0 is the builder's choice, 4 on a CPU.
    `head`: quantize the head, and at int4 the embedding that it shares, too. `provider` auto: the device's.
    """

    precision: Literal["fp32", "fp16", "bf16", "int8", "int4", "int8_dynamic"] = "int4"
    algorithm: Literal["default", "rtn", "k_quant", "rtn_last", "k_quant_last", "k_quant_mixed", "k_quant_linear"] = (
        "default"
    )
    block_size: Literal[16, 32, 64, 128, 256] = 32
    symmetric: bool = True
    accuracy_level: Literal[0, 1, 2, 3, 4] = 0
    head: bool = True
    provider: Literal["auto", "cpu", "cuda", "NvTensorRtRtx"] = "auto"


def unsupported(options: Options, source: Source, hardware: Hardware) -> str | None:
    provider = _provider(options, hardware.device)
    if provider != "cpu" and not hardware.gpus:
        return f"provider {provider} needs an NVIDIA GPU, and this machine has none"
    return _unknown_to_the_builder(options, provider) or _unfit(options, source)


def _unknown_to_the_builder(options: Options, provider: str) -> str | None:
    """Why the model builder makes no such model, or one that ONNX Runtime cannot load or run there."""
    if options.precision in _NOT_FOR[provider]:
        rest = [p for p in _PRECISIONS if p not in _NOT_FOR[provider]]
        return f"no {options.precision} model can be made for {provider}: ask for one of {', '.join(rest)}"
    if options.precision not in _BLOCKED and options.algorithm != "default":
        return f"algorithm {options.algorithm} is for int8 and int4, not for {options.precision}"
    if options.precision == "int8" and options.algorithm not in ("default", "rtn", "k_quant"):
        return f"algorithm {options.algorithm} puts layers of an int4 model in 8 bits: ask for int4"
    if options.precision == "int4" and options.algorithm == "default" and not options.symmetric:
        return "algorithm default writes a model that does not load where symmetric is false: ask for rtn"
    return None


def _unfit(options: Options, source: Source) -> str | None:
    """Why the model cannot be packed so."""
    if source.format in _PACKED and options.precision != "int4":
        return f"a {source.format} model keeps its packed weights, which the model builder takes over as int4"
    hidden = source.config.get("hidden_size")
    if options.precision == "int4" and isinstance(hidden, int) and hidden % options.block_size:
        return f"block_size {options.block_size} does not divide the model's hidden size of {hidden}"
    return None


def weight_bits(options: Options) -> float:
    widths = {"fp32": 32.0, "fp16": 16.0, "bf16": 16.0, "int4": 4.0}
    return widths.get(options.precision, 8.0)


def prerequisites(options: Options, source_format: str) -> tuple[Step, ...]:
    del options, source_format
    return ()


def is_lossless(options: Options) -> bool:
    return options.precision in ("fp32", "fp16", "bf16")


def apply(folder: Path, options: Options, out: Path, device: str) -> Mapping[str, Any]:
    """Build the model in a process of its own; quantize it dynamically where that is asked for."""
    model_folder.weight_files(folder)
    began = time.perf_counter()
    provider = _provider(options, device)
    words = _words(options)
    precision = "fp32" if options.precision == "int8_dynamic" else options.precision
    with tempfile.TemporaryDirectory(dir=out.parent) as scratch:
        made = Path(scratch) if options.precision == "int8_dynamic" else out
        _build(folder, made, Path(scratch) / "cache", precision, provider, words)
        built = time.perf_counter()
        if options.precision == "int8_dynamic":
            _dynamic(made, out, head=options.head)
    checkpoint.carry(folder, out)
    checkpoint.write_config(out, _plain(model_folder.read_config(folder)))
    return {
        "build_s": built - began,
        **({"quantize_s": time.perf_counter() - built} if options.precision == "int8_dynamic" else {}),
        "provider": provider,
        "settings": {"precision": precision, **dict(word.split("=", 1) for word in words)},
    }


def _provider(options: Options, device: str) -> str:
    if options.provider != "auto":
        return options.provider
    return "cuda" if device.startswith("cuda") else "cpu"


def _words(options: Options) -> list[str]:
    """The builder's extra options. No token of the Hub goes to it, and no code out of a model's folder."""
    words = ["hf_token=false", "hf_remote=false"]
    if options.precision in _BLOCKED:
        words += [f"algo_config={options.algorithm}", f"block_size={options.block_size}"]
        words += [f"is_symmetric={str(options.symmetric).lower()}"]
        words += [f"accuracy_level={options.accuracy_level}"] if options.accuracy_level else []
        words += [] if options.head else [_HEAD]
    return words


def _build(folder: Path, out: Path, cache: Path, precision: str, provider: str, words: list[str]) -> None:
    argv = [
        sys.executable,
        "-m",
        "onnxruntime_genai.models.builder",
        "-i",
        str(folder),
        "-o",
        str(out),
        "-p",
        precision,
        "-e",
        provider,
        "-c",
        str(cache),
        "--extra_options",
        *words,
    ]
    variables = {**os.environ, "TQDM_DISABLE": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(argv, env=variables, capture_output=True, text=True, errors="replace", check=False)
    sys.stderr.write(done.stdout + done.stderr)
    if done.returncode or not (out / _FILE).is_file():
        lines = [line.strip() for line in done.stderr.replace(str(folder), folder.name).splitlines()]
        reason = next((line for line in reversed(lines) if line), "it gives no reason")
        raise UserError(f"onnxruntime-genai's model builder failed: {reason[:300]}")


def _dynamic(made: Path, out: Path, *, head: bool) -> None:
    """In unsigned 8 bits: products of signed weights overflow, without a word, on CPUs that lack VNNI."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(
        made / _FILE,
        out / _FILE,
        op_types_to_quantize=["MatMul"],
        per_channel=True,
        weight_type=QuantType.QUInt8,
        use_external_data_format=True,
        nodes_to_exclude=None if head else ["/lm_head/MatMul"],
    )
    shutil.copyfile(made / "genai_config.json", out / "genai_config.json")


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config without what it said of a packing that is no more."""
    return {key: value for key, value in config.items() if key != "quantization_config"}
