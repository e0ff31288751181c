"""A GGUF model loaded by llama.cpp, and what is computed with it."""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bench.contract.errors import UserError
from bench.contract.hooks import ChoiceScore, DecodeStep, LogitBlock, Question, Session
from bench.contract.speculation import SpeculationOptions
from bench.engines._batch import check_alone, check_context
from bench.engines._choices import longest
from bench.engines._logits import rows_per_block
from bench.engines.llamacpp import layers, receipts, speculation
from bench.engines.llamacpp.choices import ChoiceScorer
from bench.engines.llamacpp.context import PAD, Context
from bench.engines.llamacpp.log import Log

KvType = Literal["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl"]


@dataclass(frozen=True)
class Options(SpeculationOptions):
    """`n_gpu_layers` -1: every layer, on a CUDA device. `threads` 0: one per physical core.

    `kv_dtype_k`, `kv_dtype_v`: of keys and of values where they differ from `kv_dtype`. `context`: tokens per
    sequence; 0: what the workload needs. `batch`, `ubatch`: the most tokens of one call, and of one pass over the
    weights. `prefix_caching`: of the server; in process every prompt is computed whole.
    """

    n_gpu_layers: int = -1
    threads: int = 0
    flash_attention: Literal["auto", "on", "off"] = "auto"
    kv_dtype: KvType = "f16"
    context: int = 0
    batch: int = 2048
    ubatch: int = 512
    kv_dtype_k: KvType | Literal[""] = ""
    kv_dtype_v: KvType | Literal[""] = ""
    prefix_caching: bool = False

    def __post_init__(self) -> None:
        """One way of writing each pair of types, so that a digest has one: `kv_dtype` is f16 where they differ."""
        super().__post_init__()
        keys, values = self.kv_dtype_k or self.kv_dtype, self.kv_dtype_v or self.kv_dtype
        both = keys if keys == values else "f16"
        for name, kind in {"kv_dtype": both, "kv_dtype_k": keys, "kv_dtype_v": values}.items():
            object.__setattr__(self, name, "" if name != "kv_dtype" and kind == both else kind)

    @property
    def key_type(self) -> str:
        return self.kv_dtype_k or self.kv_dtype

    @property
    def value_type(self) -> str:
        return self.kv_dtype_v or self.kv_dtype

    @property
    def needs_flash_attention(self) -> bool:
        """Whether values are in blocks of several tokens' numbers, which only flash attention reads."""
        return self.value_type not in ("f32", "f16", "bf16")


class LlamaSession(Session):
    """A loaded model, and the one context that is in use: another batch or length makes another."""

    def __init__(self, lib: Any, model: Any, options: Options, device: str, log: Log, file: Path) -> None:
        self.file, self.on_gpu = file, device.startswith("cuda")
        self.lib, self.model, self.options, self.device, self.log = lib, model, options, device, log
        self.vocab = lib.llama_model_get_vocab(model)
        self.vocab_size = int(lib.llama_vocab_n_tokens(self.vocab))
        self.trained_context = int(lib.llama_model_n_ctx_train(model))
        self.threads = options.threads or os.cpu_count() or 1
        self.load_log = log.text
        self.context: Context | None = None
        self.draft: speculation.DraftModel | None = None
        self.propose: speculation.Propose | None = None
        self.last_drafts: list[tuple[int, int]] = []

    def speculate(self, draft: Any) -> None:
        """From now on as the options say; `draft`: a loaded model, or None. UserError for another vocabulary."""
        if draft:
            self.draft = speculation.DraftModel(self, draft)
            self.propose = self.draft.propose
        elif self.options.speculates:
            self.propose = speculation.lookup(self.options)

    def generate(self, prompts: Sequence[Sequence[int]], new_tokens: int) -> Iterator[DecodeStep]:
        """The KV cache is emptied first: no prompt finds its prefix there."""
        context = self._context(len(prompts), len(prompts[0]) + new_tokens, self.options.batch)
        if self.propose is None:
            yield from _decode(context, prompts, 0, new_tokens)
            return
        check_alone(len(prompts))
        self.last_drafts = []
        if self.draft is not None:
            self.draft.forget()
        most = self.options.speculative_tokens
        yield from speculation.generate(context, prompts[0], new_tokens, most, self.propose, self.last_drafts)

    def generate_at_depth(
        self,
        contexts: Sequence[Sequence[int]],
        prompts: Sequence[Sequence[int]],
        new_tokens: int,
        start: Callable[[], None],
    ) -> Iterator[DecodeStep]:
        """Contexts stay for the next call where the cache forgets nothing: neither by a window nor in a state."""
        depth = len(contexts[0])
        context = self._context(len(prompts), depth + len(prompts[0]) + new_tokens, self.options.batch, clear=False)
        context.fill(contexts, keeps=not self.lib.llama_model_n_swa(self.model))
        start()
        yield from _decode(context, prompts, depth, new_tokens)

    def drafts(self) -> Sequence[tuple[int, int]]:
        return self.last_drafts

    def logits(self, ids: Sequence[int]) -> Iterator[LogitBlock]:
        """Blocks of at most 64 MiB, each one call over the KV cache of those before it."""
        rows = min(self.options.batch, rows_per_block(self.vocab_size))
        context = self._context(1, len(ids), rows)
        for start in range(0, len(ids), rows):
            yield LogitBlock(start, context.score(ids[start : start + rows], start))

    def loglikelihood(self, questions: Sequence[Question]) -> Iterator[tuple[int, list[ChoiceScore]]]:
        """Each context fed once for all its choices, or for each where the model keeps a state, which is not shared."""
        check_context(longest(questions), self.options.context or self.trained_context)
        has_state = self.lib.llama_model_is_recurrent(self.model) or self.lib.llama_model_is_hybrid(self.model)
        self.close()
        self.log.text = self.load_log
        scorer = ChoiceScorer(self, questions, shares_context=not has_state)
        self.context = scorer.context
        yield from scorer.scores()

    def encode(self, text: str) -> tuple[list[int], list[int]]:
        """By the vocabulary in the file; the space that some of them put before a text counts for nothing."""
        data = text.encode()
        capacity = len(data) + 8
        tokens = (self.lib.llama_token * capacity)()
        count = self.lib.llama_tokenize(self.vocab, data, len(data), tokens, capacity, True, False)  # noqa: FBT003  (C)
        if count < 0:
            raise UserError("llama.cpp cannot tokenize the text with the vocabulary of the file")
        ids = list(tokens[:count])
        sizes = [self._piece_bytes(token) for token in ids]
        surplus = sum(sizes) - len(data)
        first = next((i for i, size in enumerate(sizes) if size), None)
        if first is not None and 0 < surplus <= sizes[first]:
            sizes[first] -= surplus
        elif surplus:
            raise UserError(
                f"the file's vocabulary spells the text in {sum(sizes)} bytes where it has {len(data)}: "
                "score the model in a folder with its tokenizer.json, by which bytes can be counted"
            )
        return ids, sizes

    def layers(self, model: Any) -> Mapping[str, Any]:
        """With weights as the file has them: what llama.cpp rounds of activations is not in them."""
        return layers.matrices(self.file, model)

    def other_parameters(self, model: Any) -> Mapping[str, Any]:
        return layers.vectors(self.file, model)

    def receipts(self) -> Mapping[str, str]:
        system = " ".join(self.lib.llama_print_system_info().decode().split())
        return {
            "kv_dtype": "none",
            **self.log.receipts(),
            "compute_dtype": "float32 activations",
            "product_dtype": receipts.product_dtype(self.log.types(), system, on_gpu=self.on_gpu),
            "buffers": ", ".join(sorted({name for name, _, size in self.log.buffers() if size})),
            "flash_attention": self._flash(),
            "threads": str(self.threads),
            "context": f"{self.context.length} tokens x {self.context.sequences}" if self.context else "none",
            "batch": f"{self.options.batch}, ubatch {self.options.ubatch}",
            "device": self.log.find(r"using device (CUDA\d+ \([^)]+\))", self.device),
            **speculation.receipts(self.options, self.draft),
            "system": system,
            "llama_cpp_python": importlib.metadata.version("llama-cpp-python"),
        }

    def memory(self) -> Mapping[str, int]:
        sizes = self.log.memory(on_gpu=self.on_gpu)
        sizes |= {"draft_bytes": self.draft.bytes} if self.draft else {}
        return sizes | receipts.unread_bytes(self.lib, self.model, self.file, sizes, on_gpu=self.on_gpu)

    def close(self) -> None:
        if self.draft is not None:
            self.draft.close()
        if self.context is not None:
            self.lib.llama_free(self.context.handle)
            self.context = None

    def _context(self, sequences: int, tokens: int, batch: int, *, clear: bool = True) -> Context:
        """A context for `sequences` of `tokens` each, the one in use where it fits; empty unless not to `clear` it."""
        length = self.options.context or -(-tokens // PAD) * PAD
        check_context(tokens, self.trained_context)
        if self.options.context > self.trained_context:
            raise UserError(f"the option context exceeds the model's context of {self.trained_context}: lower it")
        if tokens > length:
            raise UserError(f"{tokens} tokens exceed the option context, {length}: raise it, or use shorter prompts")
        context = self.context
        if context is None or context.shape != (sequences, length, batch, False):
            self.close()
            self.log.text = self.load_log
            self.context = context = Context(self, sequences, length, batch)
        if clear:
            context.clear()
        return context

    def _flash(self) -> str:
        auto = self.options.flash_attention == "auto"
        off = "Flash Attention not supported" in self.log.text
        return f"{'off' if off else 'on'}, chosen by the library" if auto else self.options.flash_attention

    def _piece_bytes(self, token: int) -> int:
        buffer = ctypes.create_string_buffer(256)
        size: int = self.lib.llama_token_to_piece(self.vocab, token, buffer, len(buffer), 0, False)  # noqa: FBT003  (C)
        return abs(size)  # below zero: the bytes it would have needed


def _decode(context: Context, prompts: Sequence[Sequence[int]], depth: int, new_tokens: int) -> Iterator[DecodeStep]:
    """The steps of prompts that follow `depth` tokens in the context."""
    tokens = context.prefill(prompts, depth)
    yield DecodeStep(time.perf_counter(), tuple(tokens))
    position = depth + len(prompts[0])
    for step in range(new_tokens - 1):
        tokens = context.step(tokens, position + step)
        yield DecodeStep(time.perf_counter(), tuple(tokens))
