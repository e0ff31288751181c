"""What a cell took of its device's memory, from the engine's own accounting and from outside.

Facts read, all in bytes and all optional:

| key | meaning | from |
|---|---|---|
| weights_bytes | weights as the engine holds them | Session.memory |
| kv_bytes | KV cache or state, as allocated: a pool counts whole | Session.memory |
| kv_token_bytes | keys and values of one token in all layers, by the size of what they are kept in | Session.memory |
| graphs_bytes | CUDA graphs | Session.memory |
| peak_device_bytes, or peak_bytes | peak of the engine's allocator on the GPU | Session.memory |
| reserved_bytes | the most that this allocator took from the driver, used or not | Session.memory |
| nvml_process_peak_bytes | NVML's sampled peak over the process tree, CUDA context included | probe |
| peak_rss_bytes | largest sampled sum of RSS over the tree; shared pages count in each process | probe |
| hwm_bytes, worker_hwm_bytes | VmHWM of the main process: no gap between samples | probe; worker at its end |

`architecture` (bench.contract.record) and the receipt `kv_dtype` give what a token's keys and values take.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench.contract import wire
from bench.contract.record import Architecture, Result
from bench.contract.workload import Closed, Offline, Workload

# Bytes of one number, scales included, by the first of these that an engine's name of its type begins with.
_WIDTHS = {
    **dict.fromkeys(("float32", "f32"), 4.0),
    **dict.fromkeys(("float16", "bfloat16", "f16", "bf16", "half"), 2.0),
    **dict.fromkeys(("float8", "fp8", "f8", "u8", "i8", "int8", "uint8"), 1.0),
    "q8_0": 34 / 32,
    "q5_1": 24 / 32,
    "q5_0": 22 / 32,
    "q4_1": 20 / 32,
    **dict.fromkeys(("q4_0", "iq4_nl"), 18 / 32),
    **dict.fromkeys(("u4", "i4"), 0.5),
}
BUDGET = 0.9  # of a device's memory, where the engine states no share of its own
_SHARE = "gpu_memory_utilization"  # the option by which one does


def memory_metrics(facts: Mapping[str, Any], device: str) -> dict[str, float]:
    """`peak_memory_bytes`, and the parts that are known: weights, KV, workspace; on CUDA also the context.

    CPU: the peak is host_peak_bytes(facts). CUDA: the allocator's; where the engine has none, NVML's
    process figure, which holds more (sanity.marks says so). `workspace_bytes` = peak - weights - KV: on a CPU
    the rest of RSS, the interpreter and its libraries included. `context_bytes` = NVML's figure - what the
    allocator took from the driver: CUDA context, loaded kernels. `graphs_bytes` lie within the others.
    Unknown is absent, as is a part that would be negative.
    """
    parts, graphs = _known(facts, "weights_bytes", "kv_bytes"), _known(facts, "graphs_bytes")
    if not device.startswith("cuda"):
        host_peak = host_peak_bytes(facts)
        peak = {"peak_memory_bytes": host_peak} if host_peak else {}
        return {**peak, **parts, **_rest("workspace_bytes", peak.get("peak_memory_bytes"), parts)}
    allocator, nvml = allocator_peak(facts), _known(facts, "nvml_process_peak_bytes")
    process_peak = next(iter(nvml.values()), None)
    highest = process_peak if allocator is None else allocator
    peak = {} if highest is None else {"peak_memory_bytes": highest}
    reserved = _known(facts, "reserved_bytes") or ({} if allocator is None else {"peak_bytes": allocator})
    rest = {**_rest("workspace_bytes", allocator, parts), **_rest("context_bytes", process_peak, reserved)}
    return {**peak, **parts, **graphs, **nvml, **rest}


def kv_metrics(result: Result) -> dict[str, float]:
    """What the workload's keys and values take, and how many tokens of them would fit the device.

    `kv_needed_bytes`: of the tokens that are in memory at once, to the last one (an offline batch, the
    requests in flight of a closed loop). `kv_token_bytes`: of one token, where the engine tells. `kv_tokens_fit`:
    what is left of `memory_budget_bytes` after weights, workspace and context, over the bytes of a token. The budget
    is the share of the device's memory that the engine was given, else 0.9 of it; engines round to blocks, and may
    take less than fits.
    """
    token_bytes = _token_bytes(result)
    memory, metrics = memory_metrics(result.facts, result.cell.device), _known(result.facts, "kv_token_bytes")
    if token_bytes is None:
        return metrics
    if tokens := _tokens(result.cell.workload, int(result.facts["architecture"].get("window", 0))):
        metrics["kv_needed_bytes"] = tokens * token_bytes
    if (used := _besides_kv(memory)) is not None and result.hardware.memory_bytes:
        budget = result.hardware.memory_bytes * float(result.cell.engine.options.get(_SHARE) or BUDGET)
        metrics["memory_budget_bytes"] = budget
        metrics["kv_tokens_fit"] = float(max(0, int((budget - used) // token_bytes)))
    return metrics


def host_peak_bytes(facts: Mapping[str, Any]) -> float:
    """The most that is known of a worker's host memory, 0 where nothing is.

    The samples count children too; the marks count what comes and goes between samples, and the worker's own
    also what a worker did that ended before the second sample.
    """
    return max(_known(facts, "peak_rss_bytes", "hwm_bytes", "worker_hwm_bytes").values(), default=0.0)


def allocator_peak(facts: Mapping[str, Any]) -> float | None:
    """The peak on the GPU that the engine itself reports, if it does."""
    return next(iter(_known(facts, "peak_device_bytes", "peak_bytes").values()), None)


def widths_bytes(dtypes: str) -> list[float]:
    """Bytes of one number by an engine's names of its types, e.g. "q8_0" or "bfloat16 90%, float32 10%"."""
    names = [part.strip() for part in dtypes.split(",")]
    widths = (next((w for prefix, w in _WIDTHS.items() if name.startswith(prefix)), None) for name in names)
    return [width for width in widths if width is not None]


def apart_width_bytes(names: Mapping[str, Any]) -> float | None:
    """Mean bytes of a key and a value by `kv_dtype_k` and `kv_dtype_v`; None where one is not named, or not known."""
    widths = [widths_bytes(str(names.get(key) or ""))[:1] for key in ("kv_dtype_k", "kv_dtype_v")]
    return sum(widths[0] + widths[1]) / 2 if all(widths) else None


def _token_bytes(result: Result) -> float | None:
    """Bytes of one token's keys and values over all layers, by the types that the engine keeps them in."""
    architecture, receipts = result.facts.get("architecture"), result.receipts
    width = apart_width_bytes(receipts) or next(iter(widths_bytes(receipts.get("kv_dtype", ""))), None)
    return wire.build(Architecture, architecture).kv_elements * width if architecture and width else None


def _tokens(load: Workload | None, window: int) -> int:
    """Tokens in memory at once; 0 where the load does not fix it."""
    if not isinstance(load, Offline | Closed) or load.prompts:
        return 0
    sequences = load.batch if isinstance(load, Offline) else load.concurrency
    return sequences * (min(load.longest, window) if window else load.longest)


def _besides_kv(memory: Mapping[str, float]) -> float | None:
    """What weights, workspace and context take; where the engine does not report it, by NVML's figure."""
    if "weights_bytes" in memory and "workspace_bytes" in memory:
        return sum(memory.get(key, 0.0) for key in ("weights_bytes", "workspace_bytes", "context_bytes"))
    if "nvml_process_peak_bytes" in memory and "kv_bytes" in memory:
        return max(0.0, memory["nvml_process_peak_bytes"] - memory["kv_bytes"])
    return None


def _rest(name: str, whole: float | None, parts: Mapping[str, float]) -> dict[str, float]:
    left = None if whole is None or not parts else whole - sum(parts.values())
    return {} if left is None or left < 0 else {name: left}


def _known(facts: Mapping[str, Any], *keys: str) -> dict[str, float]:
    """Facts that are numbers and not zero, which stands for unknown: everything here takes some memory."""
    return {k: float(facts[k]) for k in keys if isinstance(facts.get(k), int | float) and facts[k]}
