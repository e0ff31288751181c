"""The vllm engine's receipts: by the loaded model, and by vLLM's log, which alone has attention and kernels."""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

from bench.engines._receipts import counts, dtype_name, gib_sizes, last_matches, shares

_KERNEL = re.compile(r"Using (\w+Kernel) for (\w+)(?: GEMM)?$", re.MULTILINE)
_RECEIPTS = {
    "vllm": re.compile(r"Initializing a V1 LLM engine \(v([^)]+)\)"),
    "compute_dtype": re.compile(r"\bdtype=torch\.(\w+)"),
    "quantization": re.compile(r"\bquantization=(?!None)([\w-]+)"),
    "enforce_eager": re.compile(r"\benforce_eager=(\w+)"),
    "kv_dtype": re.compile(r"\bkv_cache_dtype=(\w+)"),
    "device": re.compile(r"\bdevice_config=(\w+)"),
    "speculation": re.compile(r"\bspeculative_config=SpeculativeConfig\(method='([\w-]+)'"),
    "prefix_caching": re.compile(r"\benable_prefix_caching=(\w+)"),
    "context": re.compile(r"\bmax_seq_len=(\d+)"),
    "batched_tokens": re.compile(r"Chunked prefill is enabled with max_num_batched_tokens=(\d+)"),
    "attention": re.compile(r"Using (?:AttentionBackendEnum\.)?(\w+) (?:attention )?backend"),
    "threads": re.compile(r"leaving Torch threads at (\d+)"),
    "kv_tokens": re.compile(r"KV cache size: ([\d,]+) tokens"),
    "compile_s": re.compile(r"torch\.compile t(?:akes|ook) ([\d.]+) s in total"),
    "graph_capture_s": re.compile(r"Graph capturing finished in (\d+) secs"),
    "start_s": re.compile(r"init engine \([^)]*\) took ([\d.]+) s"),
}
_SIZES = {
    "weights_bytes": re.compile(r"Model loading took ([\d.]+) GiB"),
    "kv_bytes": re.compile(r"(?:Available KV cache memory: |Explicitly set \(|Auto set \()([\d.]+)"),
    "graphs_bytes": re.compile(r"Graph capturing finished in \d+ secs, took ([\d.]+) GiB"),
}
_LEAST_POOL = 1 << 30  # bytes


def read_log(text: str) -> tuple[dict[str, str], dict[str, int]]:
    """(receipts, bytes) from vLLM's log, of the engine or its server: a key only for what it names there.

    Sizes come in hundredths of a GiB; `kv_token_bytes` is the pool's by its tokens, of one that these digits tell to
    0.5 %. `compile_s` and `graph_capture_s` are spent before the first request.
    """
    receipts = {name: value.replace(",", "") for name, value in last_matches(_RECEIPTS, text).items()}
    if receipts.get("kv_dtype") == "auto":
        receipts["kv_dtype"] = receipts.get("compute_dtype", "auto")
    if kernels := Counter(_KERNEL.findall(text)):
        receipts["kernel"] = ", ".join(f"{name} for {layer}" for name, layer in kernels)
    sizes = gib_sizes(_SIZES, text)
    tokens, pool_bytes = int(receipts.get("kv_tokens", 0)), sizes.get("kv_bytes", 0)
    if tokens and pool_bytes >= _LEAST_POOL:
        sizes["kv_token_bytes"] = round(pool_bytes / tokens)
    return receipts, sizes


class Log(logging.StreamHandler[Any]):
    """What vLLM logs, in one text and on stderr: all its loggers propagate to the one that is called vllm.

    vLLM would configure that one anew whenever an engine is made, and lose this handler.
    """

    def __init__(self) -> None:
        super().__init__()
        self.text = ""
        os.environ["VLLM_CONFIGURE_LOGGING"] = "0"
        logger = logging.getLogger("vllm")
        logger.setLevel(logging.INFO)
        logger.propagate = False
        logger.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self.text += f"{record.getMessage()}\n"
        super().emit(record)

    def close(self) -> None:
        logging.getLogger("vllm").removeHandler(self)
        super().close()


def read_model(model: Any) -> tuple[dict[str, str], dict[str, int]]:
    """(receipts, bytes) of the loaded model; runs inside the engine."""
    modules = list(model.modules())
    methods = [m.quant_method for m in modules if getattr(m, "quant_method", None) is not None]
    attention = [m for m in modules if hasattr(m, "attn_backend") and hasattr(m, "kv_cache")]
    caches = {m.kv_cache.data_ptr(): m.kv_cache for m in attention if getattr(m.kv_cache, "nbytes", 0)}
    weights = _weights(model)
    receipts = {
        "architecture": type(model).__name__,
        "layers": counts(type(method).__name__ for method in methods),
        "weight_dtype": shares(weights),
        "attention": counts(m.attn_backend.get_name() for m in attention),
        "kv_dtype": ", ".join(sorted({dtype_name(cache.dtype) for cache in caches.values()})),
        **_product_dtype(modules),
    }
    sizes = {"weights_bytes": weights.total(), "kv_bytes": sum(cache.nbytes for cache in caches.values())}
    return receipts, {**sizes, **_unread_bytes(model, modules)}


def _product_dtype(modules: Iterable[Any]) -> dict[str, str]:
    """`product_dtype`, where a layer's scheme rounds its inputs to eight bits before it multiplies."""
    schemes = {type(getattr(m, "scheme", None) or getattr(m, "quant_method", None)).__name__ for m in modules}
    dtypes = [dtype for dtype, part in (("fp8", "Fp8"), ("int8", "W8A8Int8")) if any(part in s for s in schemes)]
    return {"product_dtype": ", ".join(dtypes)} if dtypes else {}


def _unread_bytes(model: Any, modules: Iterable[Any]) -> dict[str, int]:
    """`unread_bytes`: the embedding and the rotations, of which a step looks up rows; not a shared head."""
    head = getattr(model, "lm_head", None)
    if head is None:
        return {}
    weight = getattr(head, "weight", None)
    tables = [m.weight for m in modules if type(m).__name__ == "VocabParallelEmbedding" and m is not head]
    tables = [table for table in tables if weight is None or table.data_ptr() != weight.data_ptr()]
    rotations = {t.data_ptr(): t for m in modules if (t := getattr(m, "cos_sin_cache", None)) is not None}
    return {"unread_bytes": sum(t.nbytes for t in (*tables, *rotations.values()))}


def _weights(model: Any) -> Counter[str]:
    """Bytes by dtype, each tensor once; a linear layer that the CPU build packed away counts as it was."""
    sizes: Counter[str] = Counter()
    for tensor in {t.data_ptr(): t for t in (*model.parameters(), *model.buffers()) if t.nbytes}.values():
        sizes[dtype_name(tensor.dtype)] += tensor.nbytes
    for module in model.modules():
        if not hasattr(module, "input_size_per_partition"):
            continue
        weight = getattr(module, "weight", None)
        count = int(module.input_size_per_partition * module.output_size_per_partition)
        if weight is not None and not weight.nbytes:
            sizes[dtype_name(weight.dtype)] += count * weight.element_size()
        elif weight is None and hasattr(module, "azp_adj"):  # 8-bit integers, which oneDNN keeps to itself
            sizes["int8"] += count
    return sizes
