"""vLLM: offline its engine stepped in this process, online its own OpenAI server.

Offline every `step()` is stamped. A prompt may be prefilled in chunks, and the first tokens of a batch may then
come in different steps: a step of the batch ends when the last of its sequences has its token.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from bench.contract.record import Artifact, Hardware, Source
from bench.contract.server import Server
from bench.contract.spec import Cell
from bench.contract.speculation import SINCE
from bench.engines.vllm import depth
from bench.engines.vllm.options import Options, command_line, variables
from bench.engines.vllm.receipts import Log, read_log
from bench.engines.vllm.session import VllmSession, load
from bench.formats import folder as model_folder

__all__ = [
    "DEPTH_MODES",
    "ENV",
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

ENV = "vllm"
VERSION = 1
LOADS = frozenset({"hf", "gptq", "awq", "compressed-tensors", "fp8"})
MODES = frozenset({"offline", "online", "score"})
DEPTH_MODES = frozenset({"offline", "online"})
OPTIONS_SINCE = frozenset({"kv_cache_dtype", "prefix_caching"}) | SINCE
_MODEL = "model"  # the name the server answers to: a path would tell of this machine
_TEMPLATE = "{{messages[0].content}}"  # instead of the model's own, which the server would run at its start
_PACKED = frozenset({"gptq", "awq"})
_QUANTIZED = (7, 5)  # compute capability: Marlin, W8A8Int8 and W8A16Fp8 (get_min_capability, vllm 0.32)
_SCANS = frozenset({"mamba", "falcon_mamba", "jamba"})  # MambaMixer: Mamba 2 has kernels for CPUs
_BLOCKS = ("nvfp4", "mxfp4", "mxfp8")  # schemes of floats in blocks, all with kernels for GPUs alone
_FUSED = ("q_proj", "k_proj", "gate_proj")  # whose outputs vLLM joins with those of layers behind them
_FP8_BLOCK = 128
_GROUPS = frozenset({-1, 32, 64, 128})  # MARLIN_SUPPORTED_GROUP_SIZES; odd shapes are padded, not refused


def unsupported(cell: Cell, artifact_format: str, hardware: Hardware) -> str | None:
    if artifact_format not in LOADS:
        why = ": it needs the torchao package for that, which its environment here lacks"
        message = f"vLLM without plugins loads {', '.join(sorted(LOADS))}, not {artifact_format}"
        return message + (why if artifact_format == "torchao" else "")
    options = Options(**cell.engine.options)  # type: ignore[arg-type]  # validated against Options by the planner
    if reason := depth.unsupported(cell.workload, cell.device, prefix_caching=options.prefix_caching):
        return reason
    dtype = hardware.compute_dtype if options.dtype == "auto" else options.dtype
    on_cpu, packed = cell.device == "cpu", artifact_format in _PACKED
    if packed and dtype == "float32":
        return f"vLLM computes {artifact_format} in 16 bits only: give the engine the option dtype: bfloat16"
    reason = _no_packed_kernel(cell, artifact_format, on_cpu=on_cpu) if packed else _no_float_kernel(cell, hardware)
    if reason:
        return reason
    if on_cpu:
        packed_reason = _unsupported_by_cpu(artifact_format, hardware.isa, packed=_is_packed(cell, artifact_format))
        return packed_reason or _no_cpu_cache(options.kv_cache_dtype, hardware.isa)
    return _unsupported_by_gpu(artifact_format, hardware.gpus[0].compute_capability, dtype)


def _no_packed_kernel(cell: Cell, artifact_format: str, *, on_cpu: bool) -> str | None:
    """What AutoGPTQConfig and AutoAWQConfig refuse (TYPE_MAP and verify_marlin_supported, vllm 0.32)."""
    steps = [step.options for step in cell.recipe.steps]
    widths = {int(options["bits"] or 4) for options in steps if "bits" in options}
    if not widths <= ({4} if on_cpu or artifact_format == "awq" else {4, 8}):
        return f"vLLM has no kernel for {artifact_format} of {max(widths)} bits on this device"
    layouts = {str(options["version"]) for options in steps if "version" in options} - {"gemm"}
    if artifact_format == "awq" and layouts:
        return f"vLLM reads AWQ's layout gemm alone, not {layouts.pop()}: convert the checkpoint"
    if artifact_format != "gptq":
        return None
    if any(options.get("symmetric") is False for options in steps):
        return "vLLM loads gptq with symmetric weights only: set symmetric: true"
    groups = {int(options["group_size"] or 0) for options in steps if "group_size" in options}
    if not on_cpu and not groups <= _GROUPS:
        return f"vLLM's kernel for gptq has groups of 32, 64 or 128 or none, not of {max(groups - _GROUPS)}"
    return None


def _no_float_kernel(cell: Cell, hardware: Hardware) -> str | None:
    """What has no kernel among _POSSIBLE_{NVFP4,MXFP4,MXFP8,FP8_BLOCK}_KERNELS (vllm 0.32); emulation is for ROCm."""
    for scheme in _schemes(cell):
        if scheme.startswith(_BLOCKS) and cell.device == "cpu":
            return f"vLLM has no kernel for {scheme} on a CPU: use hf, which unpacks it to floats"
        if scheme == "fp8-block" and cell.device == "cpu" and "amx_tile" not in hardware.isa:
            return "vLLM's CPU kernel for fp8-block needs AMX: use hf, which unpacks it to floats"
        if scheme.startswith("mxfp4") and hardware.gpus and _version(hardware.gpus[0].compute_capability) < (8, 0):
            return f"vLLM needs a GPU of compute capability 8.0 or newer for {scheme}"
    return None


def _schemes(cell: Cell) -> list[str]:
    """The schemes of compressed-tensors that the recipe's steps, or those of a published checkpoint, name."""
    return [str(step.options["scheme"]) for step in cell.recipe.steps if "scheme" in step.options]


def _version(capability: str) -> tuple[int, ...]:
    return tuple(int(part) for part in capability.split("."))


def _unsupported_by_gpu(artifact_format: str, capability: str, dtype: str) -> str | None:
    """By compute capability. 8-bit floats run below 8.9 too, as weights alone (CompressedTensorsW8A16Fp8)."""
    version = _version(capability)
    least = (7, 0) if artifact_format == "hf" else _QUANTIZED
    if version < least:
        return f"vLLM needs a GPU of compute capability {least[0]}.{least[1]} or newer for {artifact_format}"
    if dtype == "bfloat16" and version < (8, 0):
        return "bfloat16 needs compute capability 8.0: ask for float16"
    return None


def _unsupported_by_cpu(artifact_format: str, isa: Sequence[str], *, packed: bool) -> str | None:
    """The CPU build has kernels of packed weights (cpu_gemm_wna16) in its cores for AVX-512 only; of FP8 for AMX."""
    if "neon" in isa:
        return None
    if "avx2" not in isa:
        return "vLLM's CPU build needs AVX2"
    if artifact_format == "fp8" and "amx_tile" not in isa:
        return "vLLM's CPU kernel for block FP8 needs AMX: use hf, which expands it to floats"
    weights = artifact_format if artifact_format in _PACKED else f"{artifact_format} of 4 bits"
    return f"vLLM's CPU kernel for {weights} needs AVX-512" if packed and "avx512f" not in isa else None


def _no_cpu_cache(kv_cache_dtype: str, isa: Sequence[str]) -> str | None:
    """What CPUAttentionBackend keeps keys and values in (supported_kv_cache_dtypes, _get_attn_isa; vllm 0.32)."""
    if kv_cache_dtype in ("float16", "bfloat16"):
        return f"vLLM on a CPU keeps no {kv_cache_dtype} cache but that of its dtype: leave kv_cache_dtype auto, or fp8"
    if kv_cache_dtype != "auto" and not {"avx512f", "amx_tile"} & set(isa):
        return f"vLLM on a CPU keeps an {kv_cache_dtype} cache with AVX-512 or AMX only: leave kv_cache_dtype auto"
    return None


def unsupported_model(source: Source, cell: Cell, artifact_format: str, hardware: Hardware) -> str | None:
    """What the CPU build has no kernels for: CPUExpertsInt4 takes tiles of AMX, and no selective_scan is in it.

    On any device: blocks of FP8 that begin in one of the layers that are joined and end in another.
    """
    if "fp8-block" in _schemes(cell):
        for name, (outputs, _) in source.linears.items():
            if name.endswith(_FUSED) and outputs % _FP8_BLOCK:
                return (
                    f"vLLM joins {name} with other layers, and its {outputs} outputs are no multiple of fp8-block's "
                    f"{_FP8_BLOCK}: use fp8-dynamic"
                )
    if cell.device != "cpu":
        return None
    model_type = str(source.config.get("model_type"))
    if model_type in _SCANS:
        return f"vLLM scans the state of {model_type} by a CUDA kernel, which its CPU build lacks: use hf"
    is_x86 = "neon" not in hardware.isa
    if model_folder.expert_count(source.config) and _is_packed(cell, artifact_format) and is_x86:
        return None if "amx_tile" in hardware.isa else "vLLM's CPU kernel for experts of 4 bits needs AMX: use gguf"
    return None


def _is_packed(cell: Cell, artifact_format: str) -> bool:
    """Whether the weights are of 4 bits, in any of the formats."""
    return artifact_format in _PACKED or "w4a16" in _schemes(cell)


@contextmanager
def open(folder: Path, artifact: Artifact, options: Options, device: str) -> Iterator[VllmSession]:  # noqa: A001
    """Start vLLM's engine in this process; UserError for files it cannot load, and for the wrong build."""
    model_folder.require_weights(folder)
    os.environ.update({**variables(options, device), "VLLM_ENABLE_V1_MULTIPROCESSING": "0"})
    with closing(Log()) as log, closing(VllmSession(load(folder, options, device), options, device, log)) as session:
        yield session


def serve(folder: Path, artifact: Artifact, options: Options, python: str, port: int, device: str) -> Server:
    """The command line of vLLM's own server, with the settings that `open` gives the engine."""
    model_folder.require_weights(folder)
    program = (python, "-m", "vllm.entrypoints.openai.api_server", *command_line(folder, options, device))
    address = ("--served-model-name", _MODEL, "--host", "127.0.0.1", "--port", str(port))
    quiet = ("--no-enable-log-requests", "--disable-uvicorn-access-log")
    argv = (*program, *address, *quiet, "--enable-prompt-tokens-details", "--chat-template", _TEMPLATE)
    extra: dict[str, object] = {"skip_special_tokens": False}  # else an answer of end tokens alone has no text
    if options.speculates:  # a chunk has the tokens of a pass
        extra |= {"return_token_ids": True}
    return Server(
        argv,
        _MODEL,
        variables(options, device),
        extra=extra,
        prompt_logprobs="prompt_logprobs",
        scored={"skip_special_tokens": True},
    )
