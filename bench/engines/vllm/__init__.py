"""vLLM: offline its engine stepped in this process, online its own OpenAI server.

Offline every `step()` is stamped, so that TTFT and TPOT are times of tokens and not differences of means. A
prompt may be fed in pieces, and the first tokens of a batch may then come in different steps: a step of the
batch is over when the last of its sequences has its token. Scores come from the same engine in this process.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bench.contract.errors import UserError
from bench.contract.hooks import ChoiceScore, DecodeStep, Ended, LogitBlock, Prompt, Question, Server, Session
from bench.contract.record import Artifact, Hardware
from bench.contract.spec import Cell
from bench.engines.vllm import scoring
from bench.engines.vllm.receipts import Log, made_of
from bench.engines.vllm.receipts import read_log as _read_log
from bench.formats import folder as model_folder

ENV = "vllm"
VERSION = 1
LOADS = frozenset({"hf", "gptq", "awq", "compressed-tensors"})
MODES = frozenset({"offline", "online", "score"})
_GIB = 1 << 30
_CPU_KV_GIB = 1.0
_MODEL = "model"  # the name the server answers to: a path would tell of this machine
_PACKED = frozenset({"gptq", "awq"})
_QUANTIZED = (7, 5)  # compute capability: Marlin, W8A8Int8 and W8A16Fp8 (get_min_capability, vllm 0.32)
_GROUPS = frozenset({-1, 32, 64, 128})  # MARLIN_SUPPORTED_GROUP_SIZES; odd shapes are padded, not refused


@dataclass(frozen=True)
class Options:
    """`compile` auto: torch.compile and CUDA graphs on a GPU, neither on a CPU. `context` 0: the model's.

    `kv_cache_gib` 0: 1 GiB on a CPU, on a GPU what `gpu_memory_utilization` leaves. `sequences`: the most
    that run at a time. `threads` 0: one per physical core.
    """

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    compile: Literal["auto", "on", "off"] = "auto"
    context: int = 0
    kv_cache_gib: float = 0.0
    gpu_memory_utilization: float = 0.9
    sequences: int = 256
    threads: int = 0


def unsupported(cell: Cell, artifact_format: str, hardware: Hardware) -> str | None:
    if artifact_format not in LOADS:
        why = ": it needs the torchao package for that, which its environment here lacks"
        said = f"vLLM without plugins loads {', '.join(sorted(LOADS))}, not {artifact_format}"
        return said + (why if artifact_format == "torchao" else "")
    options = Options(**cell.engine.options)  # type: ignore[arg-type]  # validated against Options by the planner
    dtype = hardware.compute_dtype if options.dtype == "auto" else options.dtype
    on_cpu, packed = cell.device == "cpu", artifact_format in _PACKED
    if packed and dtype == "float32":
        return f"vLLM computes {artifact_format} in 16 bits only: give the engine the option dtype: bfloat16"
    if packed and (reason := _unpackable(cell, artifact_format, on_cpu=on_cpu)):
        return reason
    packed |= any(step.options.get("scheme") == "w4a16" for step in cell.recipe.steps)
    if on_cpu:
        return _against_cpu(artifact_format, hardware.isa, packed=packed)
    return _against_gpu(artifact_format, hardware.gpus[0].compute_capability, dtype)


def _unpackable(cell: Cell, artifact_format: str, *, on_cpu: bool) -> str | None:
    """What AutoGPTQConfig and AutoAWQConfig refuse (TYPE_MAP and verify_marlin_supported, vllm 0.32)."""
    asked = [step.options for step in cell.recipe.steps]
    widths = {int(options["bits"] or 4) for options in asked if "bits" in options}
    if not widths <= ({4} if on_cpu or artifact_format == "awq" else {4, 8}):
        return f"vLLM has no kernel for {artifact_format} of {max(widths)} bits on this device"
    if artifact_format != "gptq":
        return None
    if any(options.get("symmetric") is False for options in asked):
        return "vLLM loads gptq with symmetric weights only: set symmetric: true"
    groups = {int(options["group_size"] or 0) for options in asked if "group_size" in options}
    if not on_cpu and not groups <= _GROUPS:
        return f"vLLM's kernel for gptq has groups of 32, 64 or 128 or none, not of {max(groups - _GROUPS)}"
    return None


def _against_gpu(artifact_format: str, capability: str, dtype: str) -> str | None:
    """By compute capability. 8-bit floats run below 8.9 too, as weights alone (CompressedTensorsW8A16Fp8)."""
    found = tuple(int(part) for part in capability.split("."))
    least = (7, 0) if artifact_format == "hf" else _QUANTIZED
    if found < least:
        return f"vLLM needs a GPU of compute capability {least[0]}.{least[1]} or newer for {artifact_format}"
    if dtype == "bfloat16" and found < (8, 0):
        return "bfloat16 needs compute capability 8.0: ask for float16"
    return None


def _against_cpu(artifact_format: str, isa: Sequence[str], *, packed: bool) -> str | None:
    """The CPU build has kernels of packed weights (cpu_gemm_wna16) in its cores for AVX-512 only."""
    if "neon" in isa:
        return None
    if "avx2" not in isa:
        return "vLLM's CPU build needs AVX2"
    what = artifact_format if artifact_format in _PACKED else f"{artifact_format} of 4 bits"
    return f"vLLM's CPU kernel for {what} needs AVX-512" if packed and "avx512f" not in isa else None


@contextmanager
def open(  # noqa: A001  (the protocol's word)
    folder: Path, artifact: Artifact, options: Options, device: str
) -> Iterator[VllmSession]:
    """Start vLLM's engine in this process; UserError for files it cannot load, and for the wrong build."""
    del artifact
    model_folder.require_weights(folder)
    os.environ.update({**variables(options, device), "VLLM_ENABLE_V1_MULTIPROCESSING": "0"})
    log = Log()
    try:
        session = VllmSession(_start(folder, options, device), options, device, log)
        try:
            yield session
        finally:
            session.close()
    finally:
        log.close()


class VllmSession(Session):
    """vLLM's engine with a loaded model; `llm` is vLLM's own object."""

    def __init__(self, llm: Any, options: Options, device: str, log: Log) -> None:
        self.llm, self.options, self.device, self.log = llm, options, device, log
        self.engine = llm.llm_engine
        self.context = int(self.engine.model_config.max_model_len)
        self.requests = 0

    def generate(self, prompts: Sequence[Sequence[int]], new_tokens: int) -> Iterator[DecodeStep]:
        """The batch enters the engine whole; it is refused where the KV cache cannot hold it whole."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        self._room_for(len(prompts), len(prompts[0]) + new_tokens)
        # No min_tokens: it forbids the end token where ignore_eos only goes on after it.
        asked = SamplingParams(
            temperature=0.0,
            max_tokens=new_tokens,
            ignore_eos=True,
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,
        )
        self.requests += 1
        names = [f"{self.requests}-{row}" for row in range(len(prompts))]
        for name, prompt in zip(names, prompts, strict=True):
            self.engine.add_request(name, {"prompt_token_ids": list(prompt)}, asked)
        try:
            yield from together(self._arrivals(names), len(prompts))
        finally:
            if self.engine.has_unfinished_requests():
                self.engine.abort_request(names)

    def logits(self, ids: Sequence[int]) -> Iterator[LogitBlock]:
        """As the engine computes them for the log-probabilities of a prompt, caught on their way there."""
        self._fits(len(ids))
        return scoring.logits(self.llm, ids, self.context)

    def loglikelihood(self, questions: Sequence[Question]) -> Iterator[tuple[int, list[ChoiceScore]]]:
        """By the engine's own log-probabilities of prompt tokens, a request a choice."""
        longest = max((len(q.context) + len(c) for q in questions for c in q.choices), default=0)
        self._fits(longest + 1)  # the engine makes a token of each request
        return scoring.loglikelihood(self.engine, questions)

    def generate_until(self, prompts: Sequence[Prompt], ended: Ended) -> Iterator[tuple[int, list[int]]]:
        """All of them, as the engine schedules them."""
        self._fits(max((len(p.ids) + p.new_tokens for p in prompts), default=0))
        return scoring.generate_until(self.engine, prompts, ended)

    def receipts(self) -> Mapping[str, str]:
        """What the log says, and from the loaded model what it does not: linear layers, dtypes, threads."""
        import torch

        said, seen = _read_log(self.log.text)[0], self.llm.apply_model(made_of)[0][0]
        here = {"threads": str(torch.get_num_threads()), "device": self.device, "torch": torch.__version__}
        return {"kernel": seen["layers"], **said, **seen, **here}

    def memory(self) -> Mapping[str, int]:
        """`kv_bytes` is the pool, all of it taken at the start. On CUDA also the allocator's peak."""
        import torch

        found = {**_read_log(self.log.text)[1], **self.llm.apply_model(made_of)[0][1]}
        if self.device.startswith("cuda"):
            found["peak_bytes"] = torch.cuda.max_memory_allocated(self.device)
            found["reserved_bytes"] = torch.cuda.max_memory_reserved(self.device)
        return found

    def close(self) -> None:
        """Stop the engine and give its memory back."""
        from vllm.distributed import cleanup_dist_env_and_memory

        self.engine.engine_core.shutdown()
        del self.llm, self.engine
        cleanup_dist_env_and_memory()

    def _arrivals(self, names: Sequence[str]) -> Iterator[tuple[float, list[tuple[int, Sequence[int]]]]]:
        """After each step: when it returned, with its tokens on the host, and whose tokens they are."""
        rows = {name: row for row, name in enumerate(names)}
        while self.engine.has_unfinished_requests():
            outputs = self.engine.step()
            time_s = time.perf_counter()
            yield time_s, [(rows[out.request_id], out.outputs[0].token_ids) for out in outputs]

    def _fits(self, tokens: int) -> None:
        if tokens > self.context:
            raise UserError(f"{tokens} tokens exceed the model's context of {self.context}: use shorter prompts")

    def _room_for(self, batch: int, tokens: int) -> None:
        """UserError when a sequence exceeds the context, or when vLLM would run the batch in parts."""
        self._fits(tokens)
        if batch > (most := self.options.sequences):
            raise UserError(f"a batch of {batch} exceeds {most}, the option sequences: raise it")
        cache = self.engine.vllm_config.cache_config
        held = -(-tokens // cache.block_size) * cache.block_size * batch
        if held > (room := cache.kv_cache_size_tokens):
            raise UserError(f"the batch takes {held} tokens of a KV cache of {room}: raise kv_cache_gib")


Arrivals = Iterable[tuple[float, Iterable[tuple[int, Sequence[int]]]]]


def together(arrivals: Arrivals, rows: int) -> Iterator[DecodeStep]:
    """The steps of a batch from the tokens of its sequences as they come: (time, [(row, tokens)]).

    Step k is over when the last sequence has its k-th token, however far ahead the others are.
    """
    waiting: list[deque[int]] = [deque() for _ in range(rows)]
    for time_s, tokens in arrivals:
        for row, made in tokens:
            waiting[row].extend(made)
        while all(waiting):
            yield DecodeStep(time_s, tuple(row.popleft() for row in waiting))


def serve(folder: Path, artifact: Artifact, options: Options, python: str, port: int, device: str) -> Server:
    """The command line of vLLM's own server, with the settings that `open` gives the engine."""
    del artifact
    model_folder.require_weights(folder)
    argv = (
        python,
        "-m",
        "vllm.entrypoints.openai.api_server",
        *flags(folder, options, device),
        "--served-model-name",
        _MODEL,
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--no-enable-log-requests",
        "--disable-uvicorn-access-log",
    )
    shown = {"skip_special_tokens": False}  # else an answer of end tokens alone bears no text, and no time
    return Server(argv=argv, model=_MODEL, variables=variables(options, device), extra=shown)


def read_log(text: str) -> tuple[Mapping[str, str], Mapping[str, int]]:
    """What the server's log names: the same words that the engine in the worker says."""
    return _read_log(text)


def _start(folder: Path, options: Options, device: str) -> Any:
    import torch
    from safetensors import SafetensorError
    from vllm import LLM
    from vllm.platforms import current_platform

    if current_platform.device_type != device.partition(":")[0]:
        raise UserError(f"the cell asks for {device}, and this vLLM runs on {current_platform.device_type}")
    if device == "cpu" and options.threads not in {0, torch.get_num_threads()}:
        torch.set_num_threads(options.threads)
    try:
        return LLM(**settings(folder, options, device), skip_tokenizer_init=True, disable_log_stats=True)
    except torch.OutOfMemoryError:
        raise
    except (SafetensorError, OSError, ValueError, LookupError, TypeError, RuntimeError, ImportError) as error:
        raise UserError(f"vLLM cannot load the artifact: {_sentence(error, folder)}") from error


def settings(folder: Path, options: Options, device: str) -> dict[str, Any]:
    """Arguments of vLLM's engine, all that matters for a number among them, none left to the checkpoint."""
    on_cpu = device == "cpu"
    eager = options.compile == "off" or (options.compile == "auto" and on_cpu)
    found = {
        "model": str(folder),
        "dtype": "float32" if options.dtype == "auto" and on_cpu else options.dtype,
        "load_format": "safetensors",
        "max_num_seqs": options.sequences,
        "gpu_memory_utilization": options.gpu_memory_utilization,
        "tensor_parallel_size": 1,
        "seed": 0,
        "generation_config": "vllm",
        "enable_prefix_caching": False,
        "enforce_eager": eager,
    }
    if gib := options.kv_cache_gib or (_CPU_KV_GIB if on_cpu else 0.0):
        found["kv_cache_memory_bytes"] = int(gib * _GIB)
    model_context = model_folder.context_length(model_folder.read_config(folder))
    if lengths := [n for n in (model_context, options.context) if n]:
        found["max_model_len"] = min(lengths)
    return found


def flags(folder: Path, options: Options, device: str) -> list[str]:
    """The settings as words of a command line: --name VALUE, --name or --no-name."""
    words: list[str] = []
    for key, value in settings(folder, options, device).items():
        name = key.replace("_", "-")
        flag = f"--{'no-' if value is False else ''}{name}"
        words += [flag] if isinstance(value, bool) else [flag, str(value)]
    return words


def variables(options: Options, device: str) -> dict[str, str]:
    """Threads of the CPU build; the server, left to itself, binds them to cores of its own choice."""
    if device != "cpu" or not options.threads:
        return {}
    return {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": str(options.threads)}


def _sentence(error: Exception, folder: Path) -> str:
    """The first sentence of an error after pydantic's own line, without paths, at most 200 characters."""
    lines = [line.strip() for line in str(error).replace(str(folder), "its folder").splitlines()]
    lines = [line.removeprefix("Value error, ") for line in lines if line and " validation error" not in line]
    return (lines[0].split(". ")[0] if lines else type(error).__name__)[:200]
