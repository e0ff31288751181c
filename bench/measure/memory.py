"""What a cell took of its device's memory, from the engine's own accounting and from outside.

Facts read, all in bytes and all optional:

| key | meaning | from |
|---|---|---|
| weights_bytes | weights as the engine holds them | Session.memory |
| kv_bytes | KV cache or state | Session.memory |
| peak_device_bytes, or peak_bytes | peak of the engine's allocator on the GPU | Session.memory |
| nvml_process_peak_bytes | NVML's sampled peak over the process tree, CUDA context included | probe |
| peak_rss_bytes | largest sampled sum of RSS over the tree; shared pages count in each process | probe |
| hwm_bytes | VmHWM of the worker: no sampling gap, but one process only | probe or worker |
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_GPU_ONLY = ("peak_device_bytes", "nvml_process_peak_bytes", "device_used_peak_bytes")


def memory_metrics(facts: Mapping[str, Any], device: str = "") -> dict[str, float]:
    """`peak_memory_bytes`; on CUDA `nvml_process_peak_bytes`, `weights_bytes`, `kv_bytes`, `other_bytes` too.

    CPU: max(peak_rss_bytes, hwm_bytes). CUDA: the allocator's peak; where the engine has none, NVML's process
    figure, which holds more (sanity.marks says so). `other_bytes` = peak - weights - KV. Unknown is absent.
    Without `device` the facts tell: only a GPU's have an NVML figure.
    """
    on_gpu = device.startswith("cuda") if device else any(k in facts for k in _GPU_ONLY)
    if not on_gpu:
        sizes = _known(facts, "peak_rss_bytes", "hwm_bytes")
        return {"peak_memory_bytes": max(sizes.values())} if sizes else {}
    metrics = _known(facts, "weights_bytes", "kv_bytes", "nvml_process_peak_bytes")
    allocator = allocator_peak(facts)
    peak = allocator if allocator is not None else metrics.get("nvml_process_peak_bytes")
    if peak is not None:
        metrics["peak_memory_bytes"] = peak
    if allocator is not None and "weights_bytes" in metrics:
        metrics["other_bytes"] = allocator - metrics["weights_bytes"] - metrics.get("kv_bytes", 0.0)
    return metrics


def allocator_peak(facts: Mapping[str, Any]) -> float | None:
    """What the engine itself says of its peak on the GPU; None where it says nothing."""
    found = _known(facts, "peak_device_bytes", "peak_bytes")
    return next(iter(found.values()), None)


def _known(facts: Mapping[str, Any], *keys: str) -> dict[str, float]:
    return {k: float(facts[k]) for k in keys if isinstance(facts.get(k), int | float)}
