"""TensorRT-LLM on NVIDIA GPUs, its PyTorch backend: in process through its LLM API, served by trtllm-serve.

Written against the documentation and the source of release 1.2 and never run, for want of a GPU. Tests cover
what needs none: settings, command line, log and streams.

Only unquantized checkpoints: the backend ignores what this suite's gptq and awq write to config.json
(ModelConfig.load_hf_quant_config reads fp8 and mxfp4, and takes any 8-bit compressed-tensors for FP8), and would
load them wrongly. Its 4-bit kernels are for ModelOpt's files.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bench.contract.errors import UserError
from bench.contract.hooks import DecodeStep, LogitBlock, Session
from bench.contract.record import Artifact, Hardware
from bench.contract.server import Server
from bench.contract.spec import Cell
from bench.engines._batch import check_context, check_kv_cache, check_sequences, decode_steps
from bench.engines._logits import blocks
from bench.engines._receipts import captured_output, gib_sizes, last_matches, load_error
from bench.formats import folder as model_folder

ENV = "tensorrt_llm"
VERSION = 1
LOADS = frozenset({"hf"})
MODES = frozenset({"offline", "online", "score"})
_BATCHED_TOKENS = 8192  # of one forward pass: the library's default
_NEEDS = "TensorRT-LLM needs an NVIDIA GPU of compute capability 8.0 or newer"
_GREEDY = {"temperature": 0.0, "ignore_eos": True, "detokenize": False}
# trtllm-serve takes most settings from a file only: it is written into the server's own, empty folder.
_START = (
    "import pathlib, sys; pathlib.Path('settings.yaml').write_text(sys.argv.pop(1)); "
    "from tensorrt_llm.commands.serve import main; main()"
)
_RECEIPTS = {
    "tensorrt_llm": re.compile(r"TensorRT[- ]LLM version: (\S+)"),
    "backend": re.compile(r"Using LLM with (\w+) backend"),
    "attention": re.compile(r"\battn_backend='(\w+)'"),
    "context": re.compile(r"\bmax_seq_len=(\d+), max_num_requests="),
    "batched_tokens": re.compile(r"\bmax_num_tokens=(\d+), max_batch_size="),
    "sequences": re.compile(r"\bmax_num_tokens=\d+, max_batch_size=(\d+)"),
    "kv_block_tokens": re.compile(r"Number of tokens per block: (\d+)"),
    "kv_tokens": re.compile(r"Allocated [\d.]+ GiB for max tokens in paged KV cache \((\d+)\)"),
}
_SIZES = {
    "weights_bytes": re.compile(r"after loading model weights \(inside torch\)[^:]*: ([\d.]+) GiB"),
    "kv_bytes": re.compile(r"Allocated ([\d.]+) GiB for max tokens in paged KV cache"),
    "peak_bytes": re.compile(r"Peak memory during memory usage profiling \([^)]*\): ([\d.]+) GiB"),
}


@dataclass(frozen=True)
class Options:
    """`context` 0: the model's. `gpu_memory_fraction`: of what the weights leave, for the KV cache.

    `sequences`: the most that run at a time.
    """

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    context: int = 0
    gpu_memory_fraction: float = 0.9
    sequences: int = 256


def unsupported(cell: Cell, artifact_format: str, hardware: Hardware) -> str | None:
    if artifact_format not in LOADS:
        return f"TensorRT-LLM loads no {artifact_format}: unquantized weights, and files of ModelOpt"
    if not cell.device.startswith("cuda"):
        return f"{_NEEDS}, and its packages cannot be installed without one"
    capability = hardware.gpus[0].compute_capability
    if tuple(int(part) for part in capability.split(".")) < (8, 0):
        return f"{_NEEDS}, this one has {capability}"
    options = Options(**cell.engine.options)  # type: ignore[arg-type]  # validated against Options by the planner
    dtype = hardware.compute_dtype if options.dtype == "auto" else options.dtype
    if dtype == "float32":
        return "TensorRT-LLM's fused attention computes in 16 bits: ask for bfloat16 or float16"
    return None


@contextmanager
def open(folder: Path, artifact: Artifact, options: Options, device: str) -> Iterator[_Session]:  # noqa: A001
    """Load the model on the first GPU the process sees; UserError for files TensorRT-LLM cannot load."""
    model_folder.require_weights(folder)
    with captured_output(1, 2) as log:
        llm = _load(folder, options)
    session = _Session(llm, options, device, log[0], _context(folder, options))
    try:
        yield session
    finally:
        llm.shutdown()


class _Session(Session):
    """TensorRT-LLM's LLM with a loaded model, and what it said while it loaded."""

    def __init__(self, llm: Any, options: Options, device: str, log: str, context: int) -> None:
        self.llm, self.options, self.device, self.context = llm, options, device, context
        self.logged, self.sizes = read_log(log)

    def generate(self, prompts: Sequence[Sequence[int]], new_tokens: int) -> Iterator[DecodeStep]:
        """A stream a prompt, all asked for at once; the scheduler decides which start together."""
        from tensorrt_llm import SamplingParams

        tokens = len(prompts[0]) + new_tokens
        check_context(tokens, self.context)
        check_sequences(len(prompts), self.options.sequences)
        block, capacity = (int(self.logged.get(key, 0)) for key in ("kv_block_tokens", "kv_tokens"))
        if capacity:
            check_kv_cache(len(prompts), tokens, block or 1, capacity, "gpu_memory_fraction")
        params = SamplingParams(max_tokens=new_tokens, **_GREEDY)
        arrivals: list[tuple[float, list[tuple[int, Sequence[int]]]]] = []

        async def follow(row: int, prompt: Sequence[int]) -> None:
            inputs, count = {"prompt_token_ids": list(prompt)}, 0
            async for output in self.llm.generate_async(inputs, params, streaming=True):
                ids = output.outputs[0].token_ids
                arrivals.append((time.perf_counter(), [(row, list(ids[count:]))]))
                count = len(ids)

        async def follow_all() -> None:
            await asyncio.gather(*(follow(row, prompt) for row, prompt in enumerate(prompts)))

        asyncio.run(follow_all())
        yield from decode_steps(arrivals, len(prompts))

    def logits(self, ids: Sequence[int]) -> Iterator[LogitBlock]:
        """The engine's context logits; for all but the last id where the ids leave no room for a token."""
        from tensorrt_llm import SamplingParams

        check_context(len(ids), self.context)
        fed = list(ids) if len(ids) < self.context else list(ids[:-1])
        params = SamplingParams(max_tokens=1, return_context_logits=True, **_GREEDY)
        output = self.llm.generate({"prompt_token_ids": fed}, params, use_tqdm=False)
        yield from blocks("TensorRT-LLM", output.context_logits, len(fed))

    def receipts(self) -> Mapping[str, str]:
        """From its log, and from its arguments as it settled them where the log is silent."""
        import torch

        args = self.llm.args
        kv = str(getattr(args.kv_cache_config, "dtype", "auto"))
        return {
            "kernel": f"{args.attn_backend} attention, PyTorch backend",
            "attention": str(args.attn_backend),
            "weight_dtype": f"{args.dtype}, as asked",
            "compute_dtype": f"{args.dtype}, as asked",
            "kv_dtype": f"{args.dtype if kv == 'auto' else kv}, as asked",
            "cuda_graphs": "off" if args.cuda_graph_config is None else "on",
            **self.logged,
            "threads": str(torch.get_num_threads()),
            "device": f"{self.device} ({torch.cuda.get_device_name(0)})",
            "torch": torch.__version__,
        }

    def memory(self) -> Mapping[str, int]:
        """From its log, in hundredths of a GiB. `kv_bytes` is the pool, all of it taken at the start."""
        return self.sizes


def serve(folder: Path, artifact: Artifact, options: Options, python: str, port: int, device: str) -> Server:
    """trtllm-serve with the settings that `open` gives the engine; its model's name is that of the folder."""
    model_folder.require_weights(folder)
    settings = json.dumps(_settings(folder, options), sort_keys=True)
    address = ("--host", "127.0.0.1", "--port", str(port))
    flags = ("--backend", "pytorch", *address, "--log_level", "info", "--extra_llm_api_options", "settings.yaml")
    return Server((python, "-c", _START, settings, "serve", str(folder), *flags), folder.name)


def read_log(text: str) -> tuple[dict[str, str], dict[str, int]]:
    """(receipts, bytes) that the log names; of the KV cache's two allocations the last, the first is a trial."""
    return last_matches(_RECEIPTS, text), gib_sizes(_SIZES, text)


def _settings(folder: Path, options: Options) -> dict[str, Any]:
    """Arguments of the LLM, JSON values all: what matters for a number, none left to the checkpoint.

    No reuse of blocks, which would skip scored positions; no chunked prefill, and so a pass as long as the context.
    """
    context = _context(folder, options)
    return {
        "dtype": options.dtype,
        "max_batch_size": options.sequences,
        "max_num_tokens": max(_BATCHED_TOKENS, context),
        "max_seq_len": context,
        "kv_cache_config": {"enable_block_reuse": False, "free_gpu_memory_fraction": options.gpu_memory_fraction},
        "enable_chunked_prefill": False,
        "stream_interval": 1,
        "tensor_parallel_size": 1,
        "trust_remote_code": False,
    }


def _load(folder: Path, options: Options) -> Any:
    import torch
    from tensorrt_llm import LLM
    from tensorrt_llm.llmapi import KvCacheConfig

    settings = _settings(folder, options)
    settings["kv_cache_config"] = KvCacheConfig(**settings["kv_cache_config"])
    try:
        return LLM(str(folder), backend="pytorch", skip_tokenizer_init=True, **settings)
    except torch.OutOfMemoryError:
        raise
    except (OSError, ValueError, LookupError, TypeError, RuntimeError, ImportError) as error:
        raise load_error("TensorRT-LLM", error, folder) from error


def _context(folder: Path, options: Options) -> int:
    """The most tokens of a sequence: the model's, by its config, or the option where that is less."""
    model = model_folder.context_length(model_folder.read_config(folder))
    lengths = [length for length in (model, options.context) if length]
    if not lengths:
        raise UserError("config.json names no context: give the engine the option context")
    return min(lengths)
