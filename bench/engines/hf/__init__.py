"""Hugging Face Transformers: the engine every model and every PyTorch quantizer runs on first.

Offline, tokens come from `model.generate` itself, stamped by its own streamer hook: TTFT and TPOT are what a
user of `generate` gets. Online it is `transformers serve`. GPTQ, AWQ, bitsandbytes and torchao artifacts
load by the quantization_config in their own folder.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bench.contract.errors import UserError
from bench.contract.hooks import ChoiceScore, DecodeStep, Ended, LogitBlock, Prompt, Question, Server
from bench.contract.record import Artifact, Hardware
from bench.contract.spec import Cell
from bench.engines.hf import receipts as _hf_seen
from bench.engines.hf import scoring
from bench.engines.hf import torchao as _hf_torchao
from bench.formats import folder as model_folder

ENV = "hf"
VERSION = 1
LOADS = frozenset({"hf", "gptq", "awq", "bnb", "torchao", "compressed-tensors"})
ENV_BY_FORMAT = {"compressed-tensors": "llmcompressor"}  # needs a package that the environment hf does not have
MODES = frozenset({"offline", "online", "score"})
_BLOCK_BYTES = 64 << 20
_AMPERE = (8, 0)
_PACKED = frozenset({"gptq", "awq"})  # whose kernels on CUDA are gptqmodel's: all are for 16 bits
_CACHES = "continuous batching has a cache of its own: turn it off, or leave cache dynamic"
_CPU_KV_BLOCKS, _CPU_BATCH_TOKENS = 128, 2048
# -1 ends nothing; null would be filled in from the checkpoint's settings, as whatever is not named here.
_GREEDY = {
    "do_sample": False,
    "num_beams": 1,
    "eos_token_id": -1,
    "repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "min_length": 0,
}


@dataclass(frozen=True)
class Options:
    """`dtype`: of activations and unquantized weights. `threads` 0: one per physical core.

    Of the server alone: `continuous_batching` computes requests together over a paged cache, else one waits
    for the other; auto is on unless `cache` is static. On a CPU it makes the same tokens. `kv_blocks`: that
    cache's size in blocks of 256 tokens; 0 is 128 on a CPU, on a GPU what the memory leaves.
    """

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    attention: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    cache: Literal["dynamic", "static"] = "dynamic"
    threads: int = 0
    continuous_batching: Literal["auto", "on", "off"] = "auto"
    kv_blocks: int = 0


def unsupported(cell: Cell, artifact_format: str, hardware: Hardware) -> str | None:
    if artifact_format not in LOADS:
        return f"Transformers here loads {', '.join(sorted(LOADS))}, not {artifact_format}"
    options = Options(**cell.engine.options)  # type: ignore[arg-type]  # validated against Options by the planner
    if options.continuous_batching == "on" and options.cache == "static" and cell.workload and cell.workload.online:
        return _CACHES
    dtype = hardware.compute_dtype if options.dtype == "auto" else options.dtype
    if hardware.gpus and artifact_format in _PACKED and dtype == "float32":
        return f"gptqmodel computes {artifact_format} on a GPU in 16 bits only: ask for float16 or bfloat16"
    return _no_flash(hardware, dtype) if options.attention == "flash_attention_2" else None


def _no_flash(hardware: Hardware, dtype: str) -> str | None:
    if not hardware.gpus:
        return "flash_attention_2 runs on CUDA GPUs only"
    if _capability(hardware) < _AMPERE:
        return "flash_attention_2 needs a GPU of compute capability 8.0 or newer"
    return "flash_attention_2 computes in 16 bits only" if dtype == "float32" else None


@contextmanager
def open(  # noqa: A001  (the protocol's word)
    folder: Path, artifact: Artifact, options: Options, device: str
) -> Iterator[HfSession]:
    """Load the weights onto `device` ("cpu", "cuda", "cuda:N"); UserError for unfit files, no such device."""
    del artifact
    import torch

    on_cpu = torch.device(device).type == "cpu"
    if not on_cpu and not torch.cuda.is_available():
        raise UserError(f"the cell asks for {device}, but PyTorch {torch.__version__} sees no CUDA device")
    if options.threads:
        torch.set_num_threads(options.threads)
    model = _load(folder, options, device)
    if not on_cpu:
        torch.cuda.reset_peak_memory_stats(device)
    yield HfSession(model, options, device)


class HfSession:
    """A loaded model. `model` is the Transformers object, for whoever measures this engine's own cost."""

    def __init__(self, model: Any, options: Options, device: str) -> None:
        text = model.config.get_text_config()
        self.model = model
        self.options = options
        self.device = device
        self.context: int | None = getattr(text, "max_position_embeddings", None)
        self.rows = max(1, _BLOCK_BYTES // (4 * text.vocab_size))
        self.kv: list[Any] = []
        self.chooser: scoring.Chooser | None = None

    def generate(self, prompts: Sequence[Sequence[int]], new_tokens: int) -> Iterator[DecodeStep]:
        """One call of `model.generate`; the steps, with their times, are yielded when it has returned."""
        import torch

        self._room_for(len(prompts[0]) + new_tokens)
        clock = _Clock()
        ids = torch.tensor(prompts, device=self.device)
        made = self.model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=new_tokens,
            streamer=clock,
            return_dict_in_generate=True,
        )
        self.kv = [(t.dtype, t.nbytes) for t in _hf_seen.cache_tensors(made.past_key_values)]
        for time_s, tokens in clock.steps[1:]:
            yield DecodeStep(time_s, tuple(tokens.tolist()))

    def logits(self, ids: Sequence[int]) -> Iterator[LogitBlock]:
        """Blocks of at most 64 MiB; several are chunks over a KV cache, equal to one pass up to rounding."""
        self._room_for(len(ids))
        cache = None
        for start in range(0, len(ids), self.rows):
            logits, cache = self._forward(ids[start : start + self.rows], cache, cached=len(ids) > self.rows)
            yield LogitBlock(start, logits)

    def loglikelihood(self, questions: Sequence[Question]) -> Iterator[tuple[int, list[ChoiceScore]]]:
        """In batches, each context fed once."""
        self._room_for(max((len(q.context) + len(c) - 1 for q in questions for c in q.choices), default=0))
        self.chooser = scoring.Chooser(self.model, self.device)
        return self.chooser.scores(questions)

    def generate_until(self, prompts: Sequence[Prompt], ended: Ended) -> Iterator[tuple[int, list[int]]]:
        """In batches, each of them until its last prompt has ended."""
        self._room_for(max((len(p.ids) + p.new_tokens for p in prompts), default=0))
        return scoring.generate_until(self.model, self.device, prompts, ended)

    def encode(self, text: str) -> tuple[list[int], list[int]]:
        del text
        raise UserError("the artifact has no tokenizer.json: a score needs the model's own fast tokenizer")

    def receipts(self) -> Mapping[str, str]:
        import torch
        import transformers

        linears = _hf_seen.linears(self.model)
        activations = _hf_torchao.activations(linears)
        return {
            "architecture": type(self.model).__name__,
            "kernel": _hf_seen.kernels(linears),
            "weight_dtype": _hf_seen.shares([(t.dtype, t.nbytes) for t in _hf_seen.tensors(self.model)]),
            "compute_dtype": _hf_seen.computed(self.model, linears),
            **({"activations": activations} if activations else {}),
            **_hf_seen.products(linears, activations),
            "attention": str(self.model.config._attn_implementation),  # noqa: SLF001  (the only place that tells)
            "cache": self.options.cache,
            "decode": "compiled" if hasattr(self.model, "_compiled_call") else "eager",
            "kv_dtype": _hf_seen.shares(self.kv) or "none yet",
            **({"choices": self.chooser.way} if self.chooser else {}),
            "threads": str(torch.get_num_threads()),
            "device": _device_name(self.device),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        }

    def memory(self) -> Mapping[str, int]:
        """`kv_bytes`: the cache after the last `generate`. On CUDA also the peaks since the load."""
        import torch

        weights = sum(t.nbytes for t in _hf_seen.tensors(self.model))
        found = {"weights_bytes": weights, **_hf_seen.unread(self.model)}
        if self.kv:
            found["kv_bytes"] = sum(size for _, size in self.kv)
        if torch.device(self.device).type == "cuda":
            found["peak_bytes"] = torch.cuda.max_memory_allocated(self.device)
            found["reserved_bytes"] = torch.cuda.max_memory_reserved(self.device)
        return found

    def _forward(self, ids: Sequence[int], cache: Any, *, cached: bool) -> tuple[Any, Any]:
        """float32 NumPy logits [len(ids), vocab] and the cache that now holds these ids too."""
        import torch

        with torch.no_grad():
            fed = torch.tensor([ids], device=self.device)
            out = self.model(input_ids=fed, past_key_values=cache, use_cache=cached)
            return out.logits[0].float().cpu().numpy(), out.past_key_values if cached else None

    def _room_for(self, tokens: int) -> None:
        if self.context is not None and tokens > self.context:
            raise UserError(f"{tokens} tokens do not fit the model's context of {self.context}: use shorter prompts")


def serve(folder: Path, artifact: Artifact, options: Options, python: str, port: int, device: str) -> Server:
    """`transformers serve`, bound to this model; each request says itself that it is greedy and has no end.

    It answers to no other name than the folder's path, and takes no ids. UserError for what it would do
    otherwise than `open`.
    """
    del artifact
    model_folder.require_weights(folder)
    dtype = "float32" if options.dtype == "auto" and device == "cpu" else options.dtype
    _same_compute(folder, dtype)
    batching = {"on": True, "off": False, "auto": options.cache == "dynamic"}[options.continuous_batching]
    if batching and options.cache == "static":
        raise UserError(_CACHES)
    words = {
        "--host": "127.0.0.1",
        "--port": port,
        "--device": device,
        "--dtype": dtype,
        "--attn-implementation": options.attention,
        "--log-level": "warning",
    }
    if batching and (blocks := options.kv_blocks or (_CPU_KV_BLOCKS if device == "cpu" else 0)):
        words["--cb-num-blocks"] = blocks
    if batching and device == "cpu":  # the attention mask grows with both, and Transformers would take 60%
        words["--cb-max-batch-tokens"] = _CPU_BATCH_TOKENS
    argv = (
        python,
        "-m",
        "transformers.cli.transformers",
        "serve",
        str(folder),
        *(str(word) for pair in words.items() for word in pair),
        *(["--continuous-batching"] * batching),
    )
    variables = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_UPDATE_CHECK": "1"}
    if options.threads:
        variables["OMP_NUM_THREADS"] = str(options.threads)
    asked = _GREEDY if options.cache == "dynamic" else {**_GREEDY, "cache_implementation": "static"}
    extra = {"ignore_eos": None, "generation_config": json.dumps(asked)}
    return Server(argv, str(folder), variables, takes_ids=False, extra=extra)


def read_log(text: str) -> tuple[dict[str, str], dict[str, int]]:
    """(receipts, {}) from the server's log, which says little; UserError when it made up weights."""
    if lacking := re.search(r"^(\S+)\s*\|\s*MISSING\b", text, re.MULTILINE):
        raise UserError(f"the artifact's weights do not fill the model, first {lacking[1]}")
    receipts = {}
    if said := re.findall(r"\[Request received\] .*, CB: (True|False)", text):
        receipts["continuous_batching"] = "on" if said[-1] == "True" else "off"
    if said := re.findall(r"Switching from \w+ to (\w+)", text):
        receipts["attention"] = said[-1]
    return receipts, {}


class _Clock:
    """The streamer of `generate`, which puts the prompt first, then each step's tokens.

    It copies them to the host before, and that copy waits for the device: the stamp needs no other sync.
    """

    def __init__(self) -> None:
        self.steps: list[tuple[float, Any]] = []

    def put(self, tokens: Any) -> None:
        self.steps.append((time.perf_counter(), tokens))

    def end(self) -> None:
        pass


def _load(folder: Path, options: Options, device: str) -> Any:
    """The model in eval mode, its generation settings replaced by greedy decoding without an end token."""
    import torch
    from safetensors import SafetensorError
    from transformers import GenerationConfig

    model_folder.require_weights(folder)
    try:
        model, info = _pretrained(folder, options, device)
    except torch.OutOfMemoryError:
        raise
    except SafetensorError as error:
        raise UserError(
            f"a .safetensors file of the artifact is damaged ({error}): make or download it again"
        ) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, ImportError) as error:
        raise UserError(f"Transformers cannot load the artifact: {_sentence(error, folder)}") from error
    _whole(info)
    _hf_torchao.same_dtype(model)
    # What the checkpoint suggests (sampling, repetition penalty, end tokens) is not what is measured.
    static = "static" if options.cache == "static" else None
    model.generation_config = GenerationConfig(do_sample=False, cache_implementation=static)
    return model.eval()


def _pretrained(folder: Path, options: Options, device: str) -> Any:
    """(model, what was missing from its files). The CPU computes in float32 unless told otherwise."""
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.utils import logging as chatter

    chatter.set_verbosity_error()
    chatter.disable_progress_bar()
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # LLM.int8 logs a line per layer and step
    local = {"local_files_only": True, "trust_remote_code": False}
    dtype = "float32" if options.dtype == "auto" and device == "cpu" else options.dtype
    config = AutoConfig.from_pretrained(folder, **local)
    quantization = getattr(config, "quantization_config", None)
    if isinstance(quantization, dict) and "bnb_4bit_compute_dtype" in quantization and dtype != "auto":
        quantization["bnb_4bit_compute_dtype"] = dtype
    torchao = isinstance(quantization, dict) and quantization.get("quant_method") == "torchao"
    with _hf_torchao.static_scales() if torchao else nullcontext():
        return AutoModelForCausalLM.from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            attn_implementation=options.attention,
            device_map={"": device},
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # reported in the second result, and refused with a clearer word
            output_loading_info=True,
            **local,
        )


def _same_compute(folder: Path, dtype: str) -> None:
    """UserError when the server would compute in what the artifact says; `open` can tell it otherwise."""
    settings = model_folder.read_config(folder)
    stored = model_folder.quantization(settings)
    if stored.get("quant_method") == "torchao":
        _hf_torchao.serves(settings, dtype)
    compute = stored.get("bnb_4bit_compute_dtype", dtype) if stored.get("load_in_4bit") else dtype
    if dtype not in {"auto", compute}:
        raise UserError(f"transformers serve computes this artifact in {compute} only, not in {dtype}")


def _whole(info: Mapping[str, Any]) -> None:
    """UserError when the files lack a tensor: Transformers fills it with random numbers and only logs it."""
    for kind, word in (("missing_keys", "lack"), ("mismatched_keys", "have the wrong shape for")):
        if keys := sorted(key if isinstance(key, str) else key[0] for key in info.get(kind) or ()):
            raise UserError(f"the artifact's weights {word} {len(keys)} tensors of its config.json, first {keys[0]}")


def _sentence(error: Exception, folder: Path) -> str:
    """The first sentence of an error, without this machine's paths, at most 200 characters."""
    lines = [line.strip() for line in str(error).replace(str(folder), "its folder").splitlines() if line.strip()]
    return (lines[0].split(". ")[0] if lines else type(error).__name__)[:200]


def _device_name(device: str) -> str:
    import torch

    return "cpu" if torch.device(device).type == "cpu" else f"{device} {torch.cuda.get_device_name(device)}"


def _capability(hardware: Hardware) -> tuple[int, ...]:
    return tuple(int(part) for part in hardware.gpus[0].compute_capability.split("."))
