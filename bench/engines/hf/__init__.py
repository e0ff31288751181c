"""Hugging Face Transformers: the engine every model and every PyTorch quantizer runs on first.

Offline it is `model.generate`, stamped by its own streamer hook; online `transformers serve`. Quantized artifacts
load by the quantization_config in their folder; on a CPU block FP8 is expanded to the type of the computation.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.contract.errors import UserError
from bench.contract.record import Artifact, Hardware, Source
from bench.contract.spec import Cell
from bench.contract.speculation import SINCE
from bench.contract.workload import Workload
from bench.engines.hf import speculation
from bench.engines.hf.server import STATIC_CACHE, read_log, serve
from bench.engines.hf.session import HfSession, Options, load
from bench.formats import folder as model_folder

__all__ = [
    "DEPTH_MODES",
    "ENV",
    "ENV_BY_FORMAT",
    "LAYER_FORMATS",
    "LOADS",
    "MODES",
    "OPTIONS_SINCE",
    "VERSION",
    "Options",
    "open",
    "read_log",
    "serve",
    "unsupported",
    "unsupported_model",
]

ENV = "hf"
VERSION = 1
LOADS = frozenset({"hf", "gptq", "awq", "bnb", "torchao", "compressed-tensors", "fp8"})
LAYER_FORMATS = LOADS
ENV_BY_FORMAT = {"compressed-tensors": "llmcompressor"}  # needs a package that the environment hf does not have
MODES = frozenset({"offline", "online", "score"})
DEPTH_MODES = frozenset({"offline"})
OPTIONS_SINCE = frozenset({"exact"}) | SINCE
_AMPERE = (8, 0)
_GEMM = "gemm"  # the layout of AWQ's weights that every kernel reads
_PACKED = frozenset({"gptq", "awq"})  # whose kernels on CUDA are gptqmodel's: all are for 16 bits
_SETS_UP = frozenset({"gpt2", "gpt_bigcode"})  # model types that read weights of their layers when they are loaded


def unsupported(cell: Cell, artifact_format: str, hardware: Hardware) -> str | None:
    if artifact_format not in LOADS:
        return f"Transformers here loads {', '.join(sorted(LOADS))}, not {artifact_format}"
    options = Options(**cell.engine.options)  # type: ignore[arg-type]  # validated against Options by the planner
    if reason := _no_cache(options, cell.workload):
        return reason
    if options.speculates and (reason := speculation.unsupported(options, cell)):
        return reason
    dtype = hardware.compute_dtype if options.dtype == "auto" else options.dtype
    if reason := _unfit_packed(options, cell, artifact_format, hardware, dtype):
        return reason
    return _no_flash(hardware, dtype) if options.attention == "flash_attention_2" else None


def _unfit_packed(options: Options, cell: Cell, artifact_format: str, hardware: Hardware, dtype: str) -> str | None:
    """What gptqmodel's kernels refuse, and where there are none."""
    if options.exact and (hardware.gpus or artifact_format not in _PACKED or cell.workload):
        return "exact is for scores of GPTQ and AWQ models on a CPU: leave it out here"
    if reason := _no_kernel(cell, artifact_format, hardware):
        return reason
    if hardware.gpus and artifact_format in _PACKED and dtype == "float32":
        return f"gptqmodel computes {artifact_format} on a GPU in 16 bits only: ask for float16 or bfloat16"
    return None


def _no_cache(options: Options, load: Workload | None) -> str | None:
    if options.cache == "quantized":
        return (
            "Transformers' quantized caches need optimum-quanto or hqq, which the environment hf does not have: "
            "leave cache dynamic"
        )
    if options.cache == "dynamic" or load is None:
        return None
    if options.continuous_batching == "on" and load.online:
        return STATIC_CACHE
    return "a static cache cannot be filled beforehand: leave cache dynamic" if load.deepest else None


def unsupported_model(source: Source, cell: Cell, artifact_format: str, hardware: Hardware) -> str | None:
    """Packed layers that stand in for others: Transformers 5.23 has no conversion of GPTQ's and AWQ's experts."""
    del cell, hardware
    if artifact_format not in _PACKED:
        return None
    model_type, name = str(source.config.get("model_type")), artifact_format.upper()
    if model_folder.expert_count(source.config):
        return (
            f"{name} packs each expert by itself, and Transformers keeps a layer's experts in one tensor, which it "
            "then finds nowhere: use gguf"
        )
    if model_type in _SETS_UP:
        return (
            f"Transformers' {model_type} reads the weight of c_proj when it is loaded, and {name}'s packed layers "
            "have none: use vllm"
        )
    return None


def _no_kernel(cell: Cell, artifact_format: str, hardware: Hardware) -> str | None:
    if artifact_format == "fp8" and hardware.gpus:
        return "Transformers' kernels for block FP8 are on the Hub and not in its environment here: use vllm"
    layouts = {str(step.options.get("version", _GEMM)) for step in cell.recipe.steps} - {_GEMM}
    if artifact_format == "awq" and layouts and not hardware.gpus:
        return f"gptqmodel has no kernel for AWQ's layout {layouts.pop()} on a CPU: convert the checkpoint to {_GEMM}"
    return None


def _no_flash(hardware: Hardware, dtype: str) -> str | None:
    if not hardware.gpus:
        return "flash_attention_2 runs on CUDA GPUs only"
    if tuple(int(part) for part in hardware.gpus[0].compute_capability.split(".")) < _AMPERE:
        return "flash_attention_2 needs a GPU of compute capability 8.0 or newer"
    return "flash_attention_2 computes in 16 bits only" if dtype == "float32" else None


@contextmanager
def open(folder: Path, artifact: Artifact, options: Options, device: str) -> Iterator[HfSession]:  # noqa: A001
    """Load the weights onto `device` ("cpu", "cuda", "cuda:N"); UserError for unfit files, no such device."""
    import torch

    on_cpu = device == "cpu"
    if not on_cpu and not torch.cuda.is_available():
        raise UserError(f"the cell asks for {device}, but PyTorch {torch.__version__} sees no CUDA device")
    if options.threads:
        torch.set_num_threads(options.threads)
    model = load(folder, options, device)
    if not on_cpu:
        torch.cuda.reset_peak_memory_stats(device)
    yield HfSession(model, options, device)
