"""A model loaded by Transformers, and what is computed with it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bench.contract.errors import UserError
from bench.contract.hooks import ChoiceScore, DecodeStep, Ended, LogitBlock, Prompt, Question, Session
from bench.contract.speculation import SpeculationOptions
from bench.engines._batch import check_alone, check_context
from bench.engines._choices import longest
from bench.engines._logits import blocks, rows_per_block
from bench.engines._receipts import load_error
from bench.engines.hf import compressed, layers, packed, receipts, scoring, speculation, torchao
from bench.formats import folder as model_folder

# Methods where Transformers leaves some floats in the type that they are stored in, whatever is asked for: 5.17 what it
# renames, as GPT-NeoX's head; 5.23 all that block FP8 does not pack.
_STORED_TYPES = ("compressed-tensors", "fp8")


@dataclass(frozen=True)
class Options(SpeculationOptions):
    """`dtype`: of activations and unquantized weights. `threads` 0: one per physical core.

    `attention` sdpa is eager where the architecture has no scaled dot products. `exact`: multiply by GPTQ and AWQ
    weights in float32 as they are stored, where a CPU's kernel rounds to bfloat16; slow, for scores.

    Of the server alone: `continuous_batching` computes requests together over a paged cache, else one waits
    for the other; auto is on unless `cache` is static. On a CPU it makes the same tokens. `kv_blocks`: that
    cache's size in blocks of 256 tokens; 0 is 128 on a CPU, on a GPU what the memory leaves.
    """

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    attention: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    cache: Literal["dynamic", "static", "quantized"] = "dynamic"
    threads: int = 0
    continuous_batching: Literal["auto", "on", "off"] = "auto"
    kv_blocks: int = 0
    exact: bool = False

    def dtype_on(self, device: str) -> str:
        """A CPU computes in float32 unless told otherwise."""
        return "float32" if self.dtype == "auto" and device == "cpu" else self.dtype


class HfSession(Session):
    """A loaded model; `model` is the Transformers object."""

    def __init__(self, model: Any, options: Options, device: str) -> None:
        """Loads the draft model too, where the options have one."""
        config = model.config.get_text_config()
        self.model, self.options, self.device = model, options, device
        self.context: int | None = getattr(config, "max_position_embeddings", None)
        self.rows = rows_per_block(config.vocab_size)
        self.kv_cache: list[tuple[Any, int]] = []  # dtype and bytes of each tensor, after the last `generate`
        self.kv_token_bytes = 0  # of a token in it, 0 where it has none for each
        self.choice_scorer: scoring.ChoiceScorer | None = None
        self.filled: tuple[Sequence[Sequence[int]], Any] = ((), None)  # contexts, and the cache that has them
        self.assistant = _assistant(options, device)
        self.counted = speculation.Drafts(model) if options.speculates else None

    def generate(self, prompts: Sequence[Sequence[int]], new_tokens: int) -> Iterator[DecodeStep]:
        """One call of `model.generate`; the steps, with their times, are yielded when it has returned."""
        import torch

        check_context(len(prompts[0]) + new_tokens, self.context)
        if self.counted is not None:
            check_alone(len(prompts))
            self.counted.pairs = []
        ids, arguments = torch.tensor(prompts, device=self.device), speculation.arguments(self.options, self.assistant)
        yield from self._generate(ids, new_tokens, **arguments)

    def generate_at_depth(
        self,
        contexts: Sequence[Sequence[int]],
        prompts: Sequence[Sequence[int]],
        new_tokens: int,
        start: Callable[[], None],
    ) -> Iterator[DecodeStep]:
        """The contexts stay for the next call, but for layers with a window, which have forgotten some of them."""
        import torch

        check_context(len(contexts[0]) + len(prompts[0]) + new_tokens, self.context)
        if scoring.keeps_state(self.model):
            raise UserError("Transformers does not wind back the state that this model keeps: leave depth_tokens out")
        cache = self._fill(contexts)
        joined = [[*context, *prompt] for context, prompt in zip(contexts, prompts, strict=True)]
        ids = torch.tensor(joined, device=self.device)
        if self.device != "cpu":
            torch.cuda.synchronize(self.device)
        start()
        yield from self._generate(ids, new_tokens, past_key_values=cache)

    def drafts(self) -> Sequence[tuple[int, int]]:
        return self.counted.pairs if self.counted is not None else ()

    def logits(self, ids: Sequence[int]) -> Iterator[LogitBlock]:
        """Blocks of at most 64 MiB; several are chunks over a KV cache, equal to one pass up to rounding.

        A model that keeps a state besides is read in one pass: Jamba and Bamba forget it where a chunk ends.
        """
        check_context(len(ids), self.context)
        if scoring.keeps_state(self.model):
            yield from blocks("Transformers", self._forward(ids, None, cached=False)[0], len(ids))
            return
        cache = None
        for start in range(0, len(ids), self.rows):
            logits, cache = self._forward(ids[start : start + self.rows], cache, cached=len(ids) > self.rows)
            yield LogitBlock(start, logits)

    def loglikelihood(self, questions: Sequence[Question]) -> Iterator[tuple[int, list[ChoiceScore]]]:
        """In batches, each context fed once."""
        check_context(longest(questions), self.context)
        self.choice_scorer = scoring.ChoiceScorer(self.model, self.device)
        return self.choice_scorer.scores(questions)

    def generate_until(self, prompts: Sequence[Prompt], ended: Ended) -> Iterator[tuple[int, list[int]]]:
        """In batches, each of them until its last prompt has ended."""
        check_context(max((len(p.ids) + p.new_tokens for p in prompts), default=0), self.context)
        return scoring.generate_until(self.model, self.device, prompts, ended)

    def layers(self, model: Any) -> Mapping[str, Any]:
        """On a CPU packed layers are unpacked to float32 from now on, which no kernel of theirs rounds."""
        return layers.matrices(self.model, model, self.device)

    def other_parameters(self, model: Any) -> Mapping[str, Any]:
        return layers.others(self.model, model)

    def receipts(self) -> Mapping[str, str]:
        import torch
        import transformers

        linears = receipts.linears(self.model)
        activations = torchao.activations(linears)
        return {
            "architecture": type(self.model).__name__,
            "kernel": receipts.kernels(linears),
            "weight_dtype": receipts.dtype_shares((t.dtype, t.nbytes) for t in receipts.tensors(self.model)),
            "compute_dtype": receipts.compute_dtypes(self.model, linears),
            **({"activations": activations} if activations else {}),
            **receipts.product_dtype(self.model, linears, activations),
            **compressed.receipts(self.model),
            "attention": str(self.model.config._attn_implementation),  # noqa: SLF001  (the only place that tells)
            "cache": self.options.cache,
            "decode": "compiled" if hasattr(self.model, "_compiled_call") else "eager",
            "kv_dtype": receipts.dtype_shares(self.kv_cache) or "none yet",
            **({"choices": self.choice_scorer.receipt} if self.choice_scorer else {}),
            **speculation.receipts(self.options, self.assistant),
            "threads": str(torch.get_num_threads()),
            "device": self.device
            if self.device == "cpu"
            else f"{self.device} {torch.cuda.get_device_name(self.device)}",
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        }

    def memory(self) -> Mapping[str, int]:
        """`kv_bytes`: the cache after the last `generate`. On CUDA also the peaks since the load."""
        import torch

        sizes = {"weights_bytes": sum(t.nbytes for t in receipts.tensors(self.model))}
        sizes |= receipts.unread_bytes(self.model)
        if self.assistant is not None:
            sizes["draft_bytes"] = sum(t.nbytes for t in receipts.tensors(self.assistant))
        if self.kv_cache:
            sizes["kv_bytes"] = sum(size for _, size in self.kv_cache)
        if self.kv_token_bytes:
            sizes["kv_token_bytes"] = self.kv_token_bytes
        if self.device != "cpu":
            sizes["peak_bytes"] = torch.cuda.max_memory_allocated(self.device)
            sizes["reserved_bytes"] = torch.cuda.max_memory_reserved(self.device)
        return sizes

    def _generate(self, ids: Any, new_tokens: int, **options: Any) -> Iterator[DecodeStep]:
        import torch

        clock = _Clock()
        output = self.model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=new_tokens,
            streamer=clock,
            return_dict_in_generate=True,
            **options,
        )
        tensors = receipts.cache_tensors(output.past_key_values)
        self.kv_cache = [(t.dtype, t.nbytes) for t in tensors]
        self.kv_token_bytes = receipts.kv_token_bytes(tensors)
        for time_s, tokens in clock.steps[1:]:
            if tokens.dim() == 1:
                yield DecodeStep(time_s, tuple(tokens.tolist()))
            else:  # those of one pass, of the only sequence
                yield from (DecodeStep(time_s, (token,)) for token in tokens[0].tolist())

    def _fill(self, contexts: Sequence[Sequence[int]]) -> Any:
        """A cache that holds just these."""
        import torch

        filled, cache = self.filled
        if filled == contexts and not any(cache.is_sliding):
            cache.crop(len(contexts[0]) - cache.get_seq_length())
            return cache
        cache, ids = None, torch.tensor(contexts, device=self.device)
        with torch.no_grad():
            for part in ids.split(self.rows, dim=1):
                cache = self.model(part, past_key_values=cache, use_cache=True).past_key_values
        self.filled = contexts, cache
        return cache

    def _forward(self, ids: Sequence[int], cache: Any, *, cached: bool) -> tuple[Any, Any]:
        """float32 NumPy logits [len(ids), vocab] and the cache that now holds these ids too."""
        import torch

        with torch.no_grad():
            input_ids = torch.tensor([ids], device=self.device)
            past = {"past_key_values": cache} if cached else {}
            output = self.model(input_ids=input_ids, use_cache=cached, **past)
            return output.logits[0].float().cpu().numpy(), output.past_key_values if cached else None


class _Clock:
    """The streamer of `generate`: the prompt, then each step's tokens, copied to the host before, and so in sync."""

    def __init__(self) -> None:
        self.steps: list[tuple[float, Any]] = []

    def put(self, tokens: Any) -> None:
        self.steps.append((time.perf_counter(), tokens))

    def end(self) -> None:
        pass


def load(folder: Path, options: Options, device: str) -> Any:
    """The model in eval mode, its generation settings replaced by greedy decoding without an end token."""
    import torch
    from safetensors import SafetensorError
    from transformers import GenerationConfig

    model_folder.require_weights(folder)
    try:
        model, loading_info = _pretrained(folder, options, device)
    except torch.OutOfMemoryError:
        raise
    except SafetensorError as error:
        raise UserError(
            f"a .safetensors file of the artifact is damaged ({error}): make or download it again"
        ) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, ImportError) as error:
        raise load_error("Transformers", error, folder) from error
    _check_complete(loading_info)
    torchao.check_dtype(model)
    if options.exact:
        packed.make_exact(model)
    # What the checkpoint suggests (sampling, repetition penalty, end tokens) is not what is measured.
    cache = "static" if options.cache == "static" else None
    model.generation_config = GenerationConfig(do_sample=False, cache_implementation=cache)
    return model.eval()


def _assistant(options: Options, device: str) -> Any:
    """The draft model, loaded as the model itself is; None where there is none."""
    if options.speculative_method != "draft":
        return None
    return speculation.drafting(load(Path(options.draft_path), options, device), options.speculative_tokens)


def _pretrained(folder: Path, options: Options, device: str) -> Any:
    """(model, what was missing from its files)."""
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # LLM.int8 logs a line per layer and step
    local = {"local_files_only": True, "trust_remote_code": False}
    dtype = options.dtype_on(device)
    config = AutoConfig.from_pretrained(folder, **local)
    quantization = getattr(config, "quantization_config", None)
    if isinstance(quantization, dict) and quantization.get("load_in_4bit") and dtype != "auto":
        quantization["bnb_4bit_compute_dtype"] = dtype
    method = quantization.get("quant_method") if isinstance(quantization, dict) else None
    with torchao.static_scales() if method == "torchao" else nullcontext():
        model, loading_info = AutoModelForCausalLM.from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            attn_implementation=_attention(options, config),
            device_map={"": device},
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # reported in the second result, and refused with a clearer message
            output_loading_info=True,
            **local,
        )
    if method in _STORED_TYPES and dtype != "auto":
        _cast(model, dtype)
    if method == "compressed-tensors":
        compressed.unpack(model)
    return model, loading_info


def _cast(model: Any, dtype: str) -> None:
    """Give all floats the type of the computation."""
    import torch

    target = getattr(torch, dtype)
    for parameter in model.parameters():
        if parameter.dtype in (torch.float32, torch.bfloat16, torch.float16):
            parameter.data = parameter.data.to(target)


def _attention(options: Options, config: Any) -> str:
    """What is asked for, but eager where sdpa is and the architecture has none (Mamba, Gemma 2, GPT-J, BLOOM)."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    model = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    return "eager" if options.attention == "sdpa" and not getattr(model, "_supports_sdpa", True) else options.attention


def _check_complete(loading_info: Mapping[str, Any]) -> None:
    """UserError when the files lack a tensor: Transformers fills it with random numbers and only logs it."""
    for kind, fault in (("missing_keys", "lack"), ("mismatched_keys", "have the wrong shape for")):
        if keys := sorted(key if isinstance(key, str) else key[0] for key in loading_info.get(kind) or ()):
            raise UserError(f"the artifact's weights {fault} {len(keys)} tensors of its config.json, first {keys[0]}")
