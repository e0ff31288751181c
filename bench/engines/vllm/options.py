"""The options of the vllm engine, and vLLM's own settings that follow: of the engine in process and of its server."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bench.contract.speculation import SpeculationOptions
from bench.formats import folder as model_folder

_GIB = 1 << 30
_CPU_KV_GIB = 1.0


@dataclass(frozen=True)
class Options(SpeculationOptions):
    """`compile` auto: torch.compile and CUDA graphs on a GPU, neither on a CPU. `context` 0: the model's.

    `kv_cache_gib` 0: 1 GiB on a CPU, on a GPU what `gpu_memory_utilization` leaves. `kv_cache_dtype` auto: the type
    it computes in. `sequences`: the most that run at a time. `threads` 0: one per physical core. `prefix_caching`: of
    the server; in process every prompt is computed whole.
    """

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    compile: Literal["auto", "on", "off"] = "auto"
    context: int = 0
    kv_cache_gib: float = 0.0
    gpu_memory_utilization: float = 0.9
    sequences: int = 256
    threads: int = 0
    kv_cache_dtype: Literal["auto", "float16", "bfloat16", "fp8", "fp8_e4m3", "fp8_e5m2"] = "auto"
    prefix_caching: bool = False


def engine_arguments(folder: Path, options: Options, device: str) -> dict[str, Any]:
    """Arguments of vLLM's engine, all that matters for a number among them, none left to the checkpoint."""
    on_cpu = device == "cpu"
    arguments = {
        "model": str(folder),
        "dtype": "float32" if options.dtype == "auto" and on_cpu else options.dtype,
        "load_format": "safetensors",
        "max_num_seqs": options.sequences,
        "gpu_memory_utilization": options.gpu_memory_utilization,
        "tensor_parallel_size": 1,
        "seed": 0,
        "generation_config": "vllm",
        "enable_prefix_caching": False,
        "enforce_eager": options.compile == "off" or (options.compile == "auto" and on_cpu),
    }
    if gib := options.kv_cache_gib or (_CPU_KV_GIB if on_cpu else 0.0):
        arguments["kv_cache_memory_bytes"] = int(gib * _GIB)
    if options.kv_cache_dtype != "auto":
        arguments["kv_cache_dtype"] = options.kv_cache_dtype
    model_context = model_folder.context_length(model_folder.read_config(folder))
    if options.speculates:
        arguments["speculative_config"] = _speculative_config(options)
    if lengths := [n for n in (model_context, options.context) if n]:
        arguments["max_model_len"] = min(lengths)
    return arguments


def _speculative_config(options: Options) -> dict[str, Any]:
    """Of an EAGLE head vLLM finds the version out."""
    config: dict[str, Any] = {"num_speculative_tokens": options.speculative_tokens}
    if options.speculative_method == "ngram":
        match = options.speculative_match
        return {**config, "method": "ngram", "prompt_lookup_min": match, "prompt_lookup_max": match}
    if options.speculative_method == "mtp":
        return {**config, "method": "mtp"}
    method = {"method": "draft_model"} if options.speculative_method == "draft" else {}
    return {**config, **method, "model": options.draft_path}


def command_line(folder: Path, options: Options, device: str) -> list[str]:
    """The same as flags: --name VALUE, --name or --no-name."""
    arguments: list[str] = []
    served = {**engine_arguments(folder, options, device), "enable_prefix_caching": options.prefix_caching}
    for key, value in served.items():
        flag = f"--{'no-' if value is False else ''}{key.replace('_', '-')}"
        text = json.dumps(value) if isinstance(value, dict) else str(value)
        arguments += [flag] if isinstance(value, bool) else [flag, text]
    return arguments


def variables(options: Options, device: str) -> dict[str, str]:
    """Threads of the CPU build; the server, left to itself, binds them to cores of its own choice."""
    if device != "cpu" or not options.threads:
        return {}
    return {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": str(options.threads)}
