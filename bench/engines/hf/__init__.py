"""Hugging Face Transformers: the engine every model and every PyTorch quantizer runs on first.

Offline it is `model.generate`, stamped by its own streamer hook; online `transformers serve`. Quantized artifacts
load by the quantization_config in their folder.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.contract.errors import UserError
from bench.contract.record import Artifact, Hardware
from bench.contract.spec import Cell
from bench.contract.speculation import SINCE
from bench.contract.workload import Workload
from bench.engines.hf import speculation
from bench.engines.hf.server import STATIC_CACHE, read_log, serve
from bench.engines.hf.session import HfSession, Options, load

__all__ = [
    "DEPTH_MODES",
    "ENV",
    "ENV_BY_FORMAT",
    "LOADS",
    "MODES",
    "OPTIONS_SINCE",
    "VERSION",
    "Options",
    "open",
    "read_log",
    "serve",
    "unsupported",
]

ENV = "hf"
VERSION = 1
LOADS = frozenset({"hf", "gptq", "awq", "bnb", "torchao", "compressed-tensors"})
ENV_BY_FORMAT = {"compressed-tensors": "llmcompressor"}  # needs a package that the environment hf does not have
MODES = frozenset({"offline", "online", "score"})
DEPTH_MODES = frozenset({"offline"})
OPTIONS_SINCE = frozenset({"exact"}) | SINCE
_AMPERE = (8, 0)
_GEMM = "gemm"  # the layout of AWQ's weights that every kernel reads
_PACKED = frozenset({"gptq", "awq"})  # whose kernels on CUDA are gptqmodel's: all are for 16 bits


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
    layouts = {str(step.options.get("version", _GEMM)) for step in cell.recipe.steps} - {_GEMM}
    if artifact_format == "awq" and layouts and not hardware.gpus:
        return f"gptqmodel has no kernel for AWQ's layout {layouts.pop()} on a CPU: convert the checkpoint to {_GEMM}"
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
