"""vLLM's engine in this process with a loaded model, stepped and stamped one step at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.contract.errors import UserError
from bench.contract.hooks import ChoiceScore, DecodeStep, Ended, LogitBlock, Prompt, Question, Session
from bench.engines._batch import check_alone, check_context, check_kv_cache, check_sequences, decode_steps
from bench.engines._choices import longest
from bench.engines._receipts import load_error
from bench.engines.vllm import depth, receipts, scoring
from bench.engines.vllm.options import Options, engine_arguments


class VllmSession(Session):
    """vLLM's engine with a loaded model; `llm` is vLLM's own object."""

    def __init__(self, llm: Any, options: Options, device: str, log: receipts.Log) -> None:
        self.llm, self.options, self.device, self.log = llm, options, device, log
        self.engine = llm.llm_engine
        self.context = int(self.engine.model_config.max_model_len)
        self.batches, self.filled = 0, ""
        self.last_drafts: list[tuple[int, int]] = []
        if options.speculates:
            _count_drafts(self.engine, self.last_drafts)

    def generate(self, prompts: Sequence[Sequence[int]], new_tokens: int) -> Iterator[DecodeStep]:
        """The batch enters the engine whole; it is refused where the KV cache cannot hold it whole."""
        return self._generate(prompts, new_tokens)

    def generate_at_depth(
        self,
        contexts: Sequence[Sequence[int]],
        prompts: Sequence[Sequence[int]],
        new_tokens: int,
        start: Callable[[], None],
    ) -> Iterator[DecodeStep]:
        """Contexts are read anew for each batch, in chunks as the scheduler's, the last of which ends with them."""
        whole = [[*context, *prompt] for context, prompt in zip(contexts, prompts, strict=True)]
        return self._generate(whole, new_tokens, len(contexts[0]), start)

    def _generate(
        self,
        prompts: Sequence[Sequence[int]],
        new_tokens: int,
        depth_tokens: int = 0,
        start: Callable[[], None] | None = None,
    ) -> Iterator[DecodeStep]:
        tokens, cache = len(prompts[0]) + new_tokens, self.engine.vllm_config.cache_config
        check_context(tokens, self.context)
        check_sequences(len(prompts), self.options.sequences)
        check_kv_cache(len(prompts), tokens, cache.block_size, cache.kv_cache_size_tokens, "kv_cache_gib")
        if self.options.speculates:
            check_alone(len(prompts))
            self.last_drafts.clear()
        params = scoring.greedy_deltas(new_tokens)
        self.batches += 1
        names = [f"{self.batches}-{row}" for row in range(len(prompts))]
        for name, prompt in zip(names, prompts, strict=True):
            self.engine.add_request(name, {"prompt_token_ids": list(prompt)}, params)
        try:
            if start is not None:
                depth.fill(self.engine, len(prompts), depth_tokens)
                self._sync()
                self.filled = f"{depth_tokens} tokens x {len(prompts)}"
                start()
            yield from decode_steps(self._arrivals(names), len(prompts))
        finally:
            if self.engine.has_unfinished_requests():
                self.engine.abort_request(names)

    def drafts(self) -> Sequence[tuple[int, int]]:
        return tuple(self.last_drafts)

    def logits(self, ids: Sequence[int]) -> Iterator[LogitBlock]:
        """As the engine computes them for the log-probabilities of a prompt, caught on their way there."""
        check_context(len(ids), self.context)
        return scoring.logits(self.llm, ids, self.context)

    def loglikelihood(self, questions: Sequence[Question]) -> Iterator[tuple[int, list[ChoiceScore]]]:
        """By the engine's own log-probabilities of prompt tokens, a request a choice."""
        check_context(longest(questions) + 2, self.context)  # it is fed the last token too, and makes one more
        return scoring.loglikelihood(self.engine, questions)

    def generate_until(self, prompts: Sequence[Prompt], ended: Ended) -> Iterator[tuple[int, list[int]]]:
        """All of them, as the engine schedules them."""
        check_context(max((len(p.ids) + p.new_tokens for p in prompts), default=0), self.context)
        return scoring.generate_until(self.engine, prompts, ended)

    def receipts(self) -> Mapping[str, str]:
        """What the log says, and from the loaded model what it does not: linear layers, dtypes, threads."""
        import torch

        logged, _ = receipts.read_log(self.log.text)
        loaded, _ = self.llm.apply_model(receipts.read_model)[0]
        cache = {"kv_cache_dtype": str(self.engine.vllm_config.cache_config.cache_dtype)}
        cache |= {"context_in_cache": self.filled} if self.filled else {}
        process = {**cache, "threads": str(torch.get_num_threads()), "device": self.device, "torch": torch.__version__}
        return {"kernel": loaded["layers"], **logged, **loaded, **process}

    def memory(self) -> Mapping[str, int]:
        """`kv_bytes` is the pool, all of it taken at the start. On CUDA also the allocator's peak."""
        import torch

        sizes = {**receipts.read_log(self.log.text)[1], **self.llm.apply_model(receipts.read_model)[0][1]}
        cache = self.engine.vllm_config.cache_config
        if tokens := (cache.num_gpu_blocks or 0) * cache.block_size:
            sizes["kv_token_bytes"] = sizes["kv_bytes"] // tokens
        if self.device.startswith("cuda"):
            sizes["peak_bytes"] = torch.cuda.max_memory_allocated(self.device)
            sizes["reserved_bytes"] = torch.cuda.max_memory_reserved(self.device)
        return sizes

    def _sync(self) -> None:
        """Until what was launched on a GPU is over: a step may return before that."""
        import torch

        if self.device.startswith("cuda"):
            torch.cuda.synchronize(self.device)

    def close(self) -> None:
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


def _count_drafts(engine: Any, drafts: list[tuple[int, int]]) -> None:
    """Let `drafts` have the (proposed, accepted) tokens of each draft that the engine's scheduler is told."""
    scheduler = engine.engine_core.engine_core.scheduler
    original = scheduler.make_spec_decoding_stats

    def counted(*arguments: Any, num_draft_tokens: int, num_accepted_tokens: int, **options: Any) -> Any:
        drafts.append((num_draft_tokens, num_accepted_tokens))
        return original(
            *arguments, num_draft_tokens=num_draft_tokens, num_accepted_tokens=num_accepted_tokens, **options
        )

    scheduler.make_spec_decoding_stats = counted


def load(folder: Path, options: Options, device: str) -> Any:
    """The LLM of vLLM; UserError for files it cannot load, and for a build that is for another device."""
    import torch
    from safetensors import SafetensorError
    from vllm import LLM
    from vllm.platforms import current_platform

    if current_platform.device_type != device.partition(":")[0]:
        raise UserError(f"the cell asks for {device}, and this vLLM runs on {current_platform.device_type}")
    if device == "cpu" and options.threads not in {0, torch.get_num_threads()}:
        torch.set_num_threads(options.threads)
    try:
        return LLM(**engine_arguments(folder, options, device), skip_tokenizer_init=True, disable_log_stats=True)
    except torch.OutOfMemoryError:
        raise
    except (SafetensorError, OSError, ValueError, LookupError, TypeError, RuntimeError, ImportError) as error:
        raise load_error("vLLM", error, folder) from error
