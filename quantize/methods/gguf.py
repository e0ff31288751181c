"""GGUF: llama.cpp's formats, by llama.cpp itself, at the version that will run them.

An unquantized model is first converted to a 16-bit file, the source of all types.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from bench.contract.errors import UserError
from bench.contract.record import Hardware, Source
from bench.contract.spec import Step
from bench.formats import folder as model_folder
from bench.formats import gguf_tokenizer
from quantize import calibration, checkpoint, mixed, option_checks
from quantize.backends import architectures, imatrix, llama_cpp

ENV = "llamacpp"
VERSION = 1
READS = frozenset({"hf", "gguf"})
WRITES = "gguf"
OPTIONS_SINCE = frozenset({"bos", "first_token_weight"}) | mixed.SINCE

_Float = Literal["f32", "f16", "bf16"]
_FiveBitsUp = Literal["q8_0", "q6_k", "q5_k_m", "q5_k_s", "q5_1", "q5_0"]
_FourBits = Literal["q4_k_m", "q4_k_s", "q4_1", "q4_0", "iq4_xs", "iq4_nl"]
_ThreeBits = Literal["q3_k_l", "q3_k_m", "q3_k_s", "iq3_m", "iq3_s", "iq3_xs", "iq3_xxs"]
_FewerBits = Literal["q2_k", "q2_k_s", "iq2_m", "iq2_s", "iq2_xs", "iq2_xxs", "iq1_m", "iq1_s"]
_FloatBlocks = Literal["mxfp4", "nvfp4"]  # floats of 4 bits with a scale for each block of them
_Type = Literal[_Float, _FiveBitsUp, _FourBits, _FloatBlocks, _ThreeBits, _FewerBits]
_FLOATS = get_args(_Float)
_ROW_BLOCKS = {"mxfp4": 32, "nvfp4": 64}  # weights of a block as ggml stores it: QK_MXFP4, QK_NVFP4
_NEEDS_IMATRIX = frozenset({"iq3_xs", "iq3_xxs", *get_args(_FewerBits)} - {"q2_k"})
_FILE = "model.gguf"


@dataclass(frozen=True)
class Options(mixed.MixedOptions, calibration.WeightedOptions):
    """`imatrix`: weigh by the calibration text, which the other options but `type` name.

    `mixed`, in place of `type`: a type for each linear layer, of `choices`, at `bits_per_weight` on average at most,
    of least predicted loss by the calibration text, of which `tokens` are read.
    """

    type: _Type = "q4_k_m"
    imatrix: bool = False


def unsupported(options: Options, source: Source, hardware: Hardware) -> str | None:
    if mixed.is_set(options):
        return _mixed_reason(options, source)
    if reason := _unfit_type(options, source):
        return reason
    if source.format == "hf" and (reason := architectures.unknown_reason("llama.cpp's converter", source)):
        return reason
    if not options.imatrix:
        return option_checks.no_weight(options.first_token_weight, "no text is read without imatrix: true")
    reason = option_checks.first_token_weight(options.first_token_weight)
    return reason or option_checks.sample_length(source, options.length)


def _mixed_reason(options: Options, source: Source) -> str | None:
    if options.type != Options.type:
        return f"mixed chooses the type of each layer: leave type: {options.type} out"
    if options.imatrix:
        return "mixed types are measured without an importance matrix: leave imatrix out"
    reason = option_checks.no_weight(options.first_token_weight, "mixed types weigh all tokens alike")
    return reason or mixed.unsupported(options, "gguf", source)


def _unfit_type(options: Options, source: Source) -> str | None:
    kind = options.type
    if options.imatrix and kind in _FLOATS:
        return f"an importance matrix has no effect on {kind}, which rounds no weight: set imatrix: false"
    if options.imatrix and kind in _ROW_BLOCKS:
        return f"llama.cpp does not weigh by an importance matrix where it rounds to {kind}: set imatrix: false"
    if not options.imatrix and kind in _NEEDS_IMATRIX:
        return f"{kind} is worthless without an importance matrix: set imatrix: true"
    if kind in _ROW_BLOCKS:  # other types fall back to one that fits
        return option_checks.block_size(source, kind, _ROW_BLOCKS[kind], "q4_k_m or q8_0")
    return None


def weight_bits(options: Options) -> float:
    """Of the ggml type that most weights get; mixtures (_m, _l) have wider ones among them."""
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    if mixed.is_set(options):
        return min(8 * mixed.size("gguf", kind, (1, 256)) / 256 for kind in mixed.names(options.mixed_choices))
    name = options.type.upper()
    narrowest = {"IQ1": "IQ1_S", "IQ2": "IQ2_XXS", "IQ3": "IQ3_XXS"}
    name = narrowest.get(name[:3]) or (name[:4] if name[2:4] == "_K" else name)
    weights, size_bytes = GGML_QUANT_SIZES[GGMLQuantizationType[name]]
    return 8 * size_bytes / weights


def prerequisites(options: Options, source_format: str) -> tuple[Step, ...]:
    """The 16-bit file that every quantized type of an unquantized model is made from."""
    floats = Step("gguf", asdict(Options(type="f16")))
    if mixed.is_set(options):
        return (*mixed.steps(options, "gguf", source_format), floats)
    return () if source_format != "hf" or options.type in _FLOATS else (floats,)


def is_lossless(options: Options) -> bool:
    return options.type in _FLOATS


def is_seeded(options: Options) -> bool:
    return options.imatrix or mixed.is_set(options)


def without_data(options: Options) -> Step | None:
    """The same type without an importance matrix."""
    return Step("gguf", {"type": options.type, "imatrix": False}) if options.imatrix else None


def apply(folder: Path, options: Options, out: Path, device: str) -> Mapping[str, Any]:
    """Convert a Hugging Face folder, or quantize the GGUF file that `folder` is or holds."""
    chosen = mixed.read_types(folder) if mixed.is_set(options) else None
    source = folder if folder.is_file() else min(folder.glob("*.gguf"), default=None)  # the first part of a split file
    if source is None:
        facts = _convert(folder, out / _FILE, options.type)
    else:
        facts = _quantize(source, folder, out, options, device) if chosen is None else _mix(source, out, chosen)
    if folder.is_dir() and (folder / model_folder.CONFIG).is_file():
        checkpoint.copy_settings(folder, out)
        shutil.copyfile(folder / model_folder.CONFIG, out / model_folder.CONFIG)
    return facts


def _convert(folder: Path, file: Path, kind: str) -> dict[str, Any]:
    if kind not in _FLOATS and kind != "q8_0":
        raise UserError(f"{kind} is made from a GGUF file, not from safetensors: convert to f16 first")
    began = time.perf_counter()
    llama_cpp.convert(folder, file, kind)
    return {"convert_s": time.perf_counter() - began}


def _quantize(source: Path, folder: Path, out: Path, options: Options, device: str) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    with llama_cpp.error_log() as errors:
        importance = None
        if options.imatrix:
            began = time.perf_counter()
            text = _calibration(source, folder, options)
            importance = imatrix.collect(source, text.ids, device, text.first_token_weight)
            text.write(out)
            facts = {**text.facts(), "imatrix_s": time.perf_counter() - began, "imatrix_tensors": len(importance)}
        began = time.perf_counter()
        is_model = folder.is_file()  # as its publisher wrote it; what a step of ours rounded is not rounded again
        llama_cpp.quantize(source, out / _FILE, options.type, importance, errors, requantize=is_model)
    return {**facts, "quantize_s": time.perf_counter() - began}


def _mix(source: Path, out: Path, chosen: mixed.Allotment) -> dict[str, Any]:
    """Each layer in the type that was chosen for it; RuntimeError where the library stored another."""
    began = time.perf_counter()
    with llama_cpp.error_log() as errors:
        llama_cpp.quantize_by_tensor(source, out / _FILE, chosen.types, errors)
    return {**chosen.facts(), "quantize_s": time.perf_counter() - began}


def _calibration(source: Path, folder: Path, options: Options) -> calibration.Calibration:
    """Of a file without a tokenizer.json beside it, by one that is made of the file's own tokenizer."""
    if folder.is_dir() and (folder / "tokenizer.json").is_file():
        return calibration.from_options(folder, options)
    with tempfile.TemporaryDirectory() as tokenizer:
        gguf_tokenizer.write(source, Path(tokenizer))
        return calibration.from_options(Path(tokenizer), options)
