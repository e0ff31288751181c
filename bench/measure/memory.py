"""What a cell took of its device's memory, from the engine's own accounting and from outside.

Facts read, all in bytes and all optional:

| key | meaning | from |
|---|---|---|
| weights_bytes | weights as the engine holds them | Session.memory |
| kv_bytes | KV cache or state, as allocated: a pool counts whole | Session.memory |
| graphs_bytes | CUDA graphs | Session.memory |
| peak_device_bytes, or peak_bytes | peak of the engine's allocator on the GPU | Session.memory |
| reserved_bytes | the most that this allocator took from the driver, used or not | Session.memory |
| nvml_process_peak_bytes | NVML's sampled peak over the process tree, CUDA context included | probe |
| peak_rss_bytes | largest sampled sum of RSS over the tree; shared pages count in each process | probe |
| hwm_bytes | VmHWM of the worker: no sampling gap, but one process only | probe or worker |

`architecture` (bench.contract.record) and the receipt `kv_dtype` tell what a token's keys and values take.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench.contract import wire
from bench.contract.record import Architecture, Result
from bench.contract.workload import Closed, Offline, Workload

_GPU_ONLY = ("peak_device_bytes", "nvml_process_peak_bytes", "device_used_peak_bytes")
# Bytes of one number, scales included, by the first of these that an engine's word for its type begins with.
_WIDTHS = {
    "float32": 4.0,
    "f32": 4.0,
    "float16": 2.0,
    "bfloat16": 2.0,
    "f16": 2.0,
    "bf16": 2.0,
    "half": 2.0,
    "float8": 1.0,
    "fp8": 1.0,
    "f8": 1.0,
    "u8": 1.0,
    "i8": 1.0,
    "int8": 1.0,
    "uint8": 1.0,
    "q8_0": 34 / 32,
}
BUDGET = 0.9  # of a device's memory, where the engine states no share of its own
_SHARE = "gpu_memory_utilization"  # the option by which one does


def memory_metrics(facts: Mapping[str, Any], device: str = "") -> dict[str, float]:
    """`peak_memory_bytes`, and the parts that are known: weights, KV, workspace; on CUDA also the context.

    CPU: the peak is max(peak_rss_bytes, hwm_bytes). CUDA: the allocator's; where the engine has none, NVML's
    process figure, which holds more (sanity.marks says so). `workspace_bytes` = peak - weights - KV: on a CPU
    the rest of RSS, the interpreter and its libraries included. `context_bytes` = NVML's figure - what the
    allocator took from the driver: CUDA context, loaded kernels. `graphs_bytes` lie within the others.
    Unknown is absent, as is a part that would be negative. Without `device` the facts tell: only a GPU's
    have an NVML figure.
    """
    on_gpu = device.startswith("cuda") if device else any(k in facts for k in _GPU_ONLY)
    parts, graphs = _known(facts, "weights_bytes", "kv_bytes"), _known(facts, "graphs_bytes")
    if not on_gpu:
        sizes = _known(facts, "peak_rss_bytes", "hwm_bytes")
        peak = {"peak_memory_bytes": max(sizes.values())} if sizes else {}
        return {**peak, **parts, **_rest("workspace_bytes", peak.get("peak_memory_bytes"), parts)}
    allocator, nvml = allocator_peak(facts), _known(facts, "nvml_process_peak_bytes")
    seen = next(iter(nvml.values()), None)
    most = seen if allocator is None else allocator
    peak = {} if most is None else {"peak_memory_bytes": most}
    taken = _known(facts, "reserved_bytes") or ({} if allocator is None else {"peak_bytes": allocator})
    return {
        **peak,
        **parts,
        **graphs,
        **nvml,
        **_rest("workspace_bytes", allocator, parts),
        **(_rest("context_bytes", seen, taken) if taken else {}),
    }


def kv_metrics(result: Result) -> dict[str, float]:
    """What the workload's keys and values take, and how many tokens of them would fit the device.

    `kv_needed_bytes`: of the tokens that are in memory at once, to the last one (an offline batch, the
    requests in flight of a closed loop). `kv_tokens_fit`: what is left of `memory_budget_bytes` after
    weights, workspace and context, over the bytes of a token. The budget is the share of the device's memory
    that the engine was given, else 0.9 of it; engines round to blocks, and may take less than fits.
    """
    each = _token_bytes(result)
    found, metrics = memory_metrics(result.facts, result.cell.device), {}
    if each is None:
        return {}
    if tokens := _tokens(result.cell.workload, int(result.facts["architecture"].get("window", 0))):
        metrics["kv_needed_bytes"] = tokens * each
    if (used := _beside_kv(found)) is not None and result.hardware.memory_bytes:
        budget = result.hardware.memory_bytes * float(result.cell.engine.options.get(_SHARE) or BUDGET)
        metrics["memory_budget_bytes"] = budget
        metrics["kv_tokens_fit"] = float(max(0, int((budget - used) // each)))
    return metrics


def allocator_peak(facts: Mapping[str, Any]) -> float | None:
    """What the engine itself says of its peak on the GPU; None where it says nothing."""
    found = _known(facts, "peak_device_bytes", "peak_bytes")
    return next(iter(found.values()), None)


def widths_bytes(words: str) -> list[float]:
    """Bytes of one number by an engine's words for its types, as "q8_0" or "bfloat16 90%, float32 10%"."""
    each = [part.strip() for part in words.split(",")]
    found = [next((width for name, width in _WIDTHS.items() if word.startswith(name)), None) for word in each]
    return [width for width in found if width is not None]


def _token_bytes(result: Result) -> float | None:
    """Bytes of one token's keys and values over all layers."""
    said, widths = result.facts.get("architecture"), widths_bytes(result.receipts.get("kv_dtype", ""))
    return wire.build(Architecture, said).kept * widths[0] if said and widths else None


def _tokens(load: Workload | None, window: int) -> int:
    """Tokens in memory at once; 0 where the load does not fix it."""
    if not isinstance(load, Offline | Closed):
        return 0
    sequences = load.batch if isinstance(load, Offline) else load.concurrency
    return sequences * (min(load.longest, window) if window else load.longest)


def _beside_kv(found: Mapping[str, float]) -> float | None:
    """What weights, workspace and context take; where the engine has no word for it, by NVML's figure."""
    if "weights_bytes" in found and "workspace_bytes" in found:
        return sum(found.get(key, 0.0) for key in ("weights_bytes", "workspace_bytes", "context_bytes"))
    if "nvml_process_peak_bytes" in found and "kv_bytes" in found:
        return max(0.0, found["nvml_process_peak_bytes"] - found["kv_bytes"])
    return None


def _rest(name: str, whole: float | None, parts: Mapping[str, float]) -> dict[str, float]:
    left = None if whole is None or not parts else whole - sum(parts.values())
    return {} if left is None or left < 0 else {name: left}


def _known(facts: Mapping[str, Any], *keys: str) -> dict[str, float]:
    """Zero is what a log that does not say comes to: nothing here takes no memory."""
    return {k: float(facts[k]) for k in keys if isinstance(facts.get(k), int | float) and facts[k]}
