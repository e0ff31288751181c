"""A lower bound of the device memory that a cell needs, estimated when it is planned, before anything is loaded.

Weights count at the bits their method writes, the KV cache as far as the workload fills it, and a fixed allowance
for the device's context. As every part is a lower bound, no cell is refused that would run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from bench import formats
from bench.contract import plugins
from bench.contract.record import Hardware, Parameters, Source
from bench.contract.spec import Cell, Scalar, Step
from bench.contract.workload import Offline, Trace, Workload
from bench.formats import architecture
from bench.formats import folder as model_folder
from bench.measure.memory import apart_width_bytes, widths_bytes
from bench.models.resolve import Resolved

_GIB = 1024**3
_UNKNOWN_KV = 1.0  # bytes: 8 bits, the narrowest that an engine here chooses by itself
_CONTEXT_BYTES = 128 << 20  # an allowance, not a measurement: a CUDA context and its kernels take more
_DRAFT_KV = 2.0  # bytes: of a draft's cache in 16 bits, where its model's may be wider
_LOGIT_BYTES = 4  # a row of logits per sequence, in float32, to choose its next token by

_parameters = cache(formats.parameters)


@dataclass(frozen=True)
class Footprint:
    """What a recipe leaves of a model: parameters, bits per linear weight (None: those of the files)."""

    format: str
    parameters: Parameters
    bits: float | None


@dataclass(frozen=True)
class MemoryEstimate:
    """The least memory of a cell, in its parts; `kv_bytes`: of the model and of what drafts for it."""

    weights_bytes: int
    kv_bytes: int
    workspace_bytes: int
    draft_weights_bytes: int = 0

    @property
    def total_bytes(self) -> int:
        return self.weights_bytes + self.draft_weights_bytes + self.kv_bytes + self.workspace_bytes


def footprint_of(steps: tuple[Step, ...], resolved: Resolved) -> Footprint | None:
    """The footprint of the recipe's artifact; None where that is not known before it is made."""
    if resolved.folder is not None:
        parameters = _parameters(resolved.folder)
    elif resolved.planned is not None:
        parameters = _of_plan(resolved.planned)
    else:
        return None
    if not steps:
        return Footprint(resolved.format, parameters, None)
    method, options = plugins.method_of(steps[-1])
    bits, written = method.weight_bits(options), method.WRITES
    if bits is None and not formats.holds_floats(written):
        return None
    return Footprint(written, _reshaped(steps, resolved.source, parameters), bits)


def estimate(
    model: Footprint,
    options: Mapping[str, Scalar],
    load: Workload | None,
    hardware: Hardware,
    dtype: str,
    draft: Footprint | None = None,
) -> MemoryEstimate:
    """The least memory that an engine with these options needs; `dtype`: the type it computes in.

    A task needs no KV cache here: how long its texts are is not known yet. Of a server, one request's. `draft`: a whole
    model that proposes tokens, with a cache of its own; a head shares tables with its model, and is none.
    """
    sequences = load.batch if isinstance(load, Offline) else 1
    shape = model.parameters.architecture
    workspace = (_CONTEXT_BYTES if hardware.gpus else 0) + sequences * (shape.vocab_size if shape else 0) * _LOGIT_BYTES
    width = _kv_width_bytes(options, dtype)
    kv = _kv_bytes(model, load, sequences, width)
    if draft is None:
        return MemoryEstimate(_weights(model, dtype), kv, workspace)
    kv += _kv_bytes(draft, load, sequences, min(width, _DRAFT_KV))
    return MemoryEstimate(_weights(model, dtype), kv, workspace, _weights(draft, dtype))


def why_too_large(cell: Cell, model: Footprint | None, hardware: Hardware, draft: Footprint | None = None) -> str:
    """Why the cell cannot fit its device, as what it needs and what there is, with the numbers; or nothing."""
    engine, options = plugins.load(plugins.ENGINES, cell.engine.name), cell.engine.options
    if model is None or engine.may_offload(engine.Options(**options)):
        return ""
    least = estimate(model, options, cell.workload, hardware, str(options.get("dtype", "")), draft)
    if not hardware.gpus:  # keys, values and workspace can be swapped out, and files mapped
        too_large = least.weights_bytes + least.draft_weights_bytes > hardware.memory_bytes
        limit = f"this machine has {_gib(hardware.memory_bytes)} of memory"
    else:
        share = float(options.get("gpu_memory_utilization") or 1.0)
        too_large = least.total_bytes > int(hardware.memory_bytes * share)
        limit = f"{hardware.name} has {_gib(hardware.memory_bytes)}"
        limit += f", of which the engine takes {share:.0%}" if share < 1 else ""
    weights, needs = _gib(least.weights_bytes), "needs"
    if draft is not None:
        weights, needs = f"{weights} and {_gib(least.draft_weights_bytes)}", "both need"
    parts = f"weights {weights}, KV cache {_gib(least.kv_bytes)}, workspace {_gib(least.workspace_bytes)}"
    return f"{needs} about {_gib(least.total_bytes)} GiB ({parts}), {limit}" if too_large else ""


def _kv_bytes(model: Footprint, load: Workload | None, sequences: int, width: float) -> int:
    """Of the keys and values that a load fills; 0 of a model that is no plain decoder."""
    shape = model.parameters.architecture
    if shape is None or load is None or isinstance(load, Trace):
        return 0
    tokens = min(load.longest, shape.window) if shape.window else load.longest
    return int(shape.kv_elements * sequences * tokens * width)


def _kv_width_bytes(options: Mapping[str, Scalar], dtype: str) -> float:
    """Mean bytes of a key and a value by the engine's options; those of the type it computes in where none says."""
    both = str(options.get("kv_cache_dtype") or options.get("kv_dtype", dtype))
    if not widths_bytes(both) and "kv_cache_dtype" in options:
        both = dtype
    types = {key: options.get(key) or both for key in ("kv_dtype_k", "kv_dtype_v")}
    return apart_width_bytes(types) or _UNKNOWN_KV


def _weights(model: Footprint, dtype: str) -> int:
    """Bytes on the device. What is no linear layer has the engine's own floating type, where it has one."""
    parameters, bits = model.parameters, model.bits
    if bits is None and (not formats.holds_floats(model.format) or not widths_bytes(dtype)):
        return parameters.stored_bytes
    width = next(iter(widths_bytes(dtype)), 2.0)
    if bits is None:
        return int((parameters.linear + parameters.rest) * width)
    if formats.converts_floats(model.format):
        return int(parameters.linear * bits / 8 + parameters.rest * width)
    shape = parameters.architecture
    head = shape.vocab_size * shape.hidden if shape else 0
    return int((parameters.linear + min(head, parameters.rest)) * bits / 8)  # the embedding may stay with the host


def _of_plan(source: Source) -> Parameters:
    """Of a model that is not here: its linear layers, its embedding and a head of its own, in 16 bits."""
    shape, linear = architecture.of_config(source.config), _linear(source)
    tables = 1 if shape is None or shape.tied_head else 2
    rest = shape.vocab_size * shape.hidden * tables if shape else 0
    return Parameters(linear, rest, 2 * (linear + rest), shape)


def _linear(source: Source) -> int:
    return sum(o * i for name, (o, i) in source.linears.items() if not model_folder.is_head(name))


def _reshaped(steps: tuple[Step, ...], source: Source, parameters: Parameters) -> Parameters:
    """As it is after steps that cut layers or heads; embeddings and head are taken to be as they were."""
    written = source
    for step in steps:
        method, options = plugins.method_of(step)
        written = method.output_source(options, written)
    if written is source:
        return parameters
    shape = architecture.of_config(written.config)
    return Parameters(_linear(written), parameters.rest, parameters.stored_bytes, shape)


def _gib(size: float) -> str:
    return f"{size / _GIB:.1f}"
