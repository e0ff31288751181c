"""A context in vLLM's KV cache before a clock starts: in process by the scheduler, behind the server in whole blocks.

In process each request is its context and its prompt, and the scheduler hands out no more tokens a step than end with
the context: its own chunked prefill, by `max_num_scheduled_tokens` and `long_prefill_token_threshold`, which it reads
at every step (vllm/v1/core/sched/scheduler.py, 0.32). Nothing of a prefix cache is in what follows.
"""

from __future__ import annotations

from typing import Any

from bench.contract.errors import UserError
from bench.contract.workload import Sweep, Workload

_BLOCKS = {"cpu": 128, "cuda": 16}  # tokens of a block that vLLM keeps prefixes in, unless its attention wants others


def unsupported(load: Workload | None, device: str, *, prefix_caching: bool) -> str | None:
    """Why vLLM's server cannot have a load's context in its cache; None where it can, and in process."""
    if load is None or not load.online or not load.deepest:
        return None
    if not prefix_caching:
        return (
            "vLLM's server keeps a context by prefix caching alone: give the engine prefix_caching: true, or measure "
            "the depth in process"
        )
    block = _BLOCKS[device.partition(":")[0]]
    depths = {load.depth_tokens, load.deepest} if isinstance(load, Sweep) else {load.deepest}
    if uneven := sorted(depth for depth in depths if depth % block):
        return f"vLLM's server keeps a context in blocks of {block} tokens: ask for a multiple, not for {uneven[0]}"
    return None


def fill(engine: Any, rows: int, depth: int) -> None:
    """Step the engine until all its requests have `depth` tokens in the KV cache, and no more.

    UserError where its scheduler does otherwise.
    """
    scheduler = engine.engine_core.engine_core.scheduler
    budget, config = scheduler.max_num_scheduled_tokens, scheduler.scheduler_config
    threshold, computed = config.long_prefill_token_threshold, 0
    try:
        while computed < depth:
            chunk = min(depth - computed, budget // rows)
            scheduler.max_num_scheduled_tokens, config.long_prefill_token_threshold = chunk * rows, chunk
            engine.step()
            counts = {int(request.num_computed_tokens) for request in scheduler.requests.values()}
            if counts != {computed + chunk} or len(scheduler.requests) != rows:
                raise UserError(
                    f"vLLM's scheduler read {sorted(counts)} tokens of {len(scheduler.requests)} contexts where "
                    f"{computed + chunk} of {rows} were asked for: leave depth_tokens out"
                )
            computed += chunk
    finally:
        scheduler.max_num_scheduled_tokens, config.long_prefill_token_threshold = budget, threshold
