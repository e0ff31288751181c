"""What a cell needs of its device's memory, estimated before anything is loaded: the least, never the most.

What cannot fit is then told in the plan, not after an hour of quantizing. Every part is a lower bound, so
that nothing is refused that would run: weights at the bits their method says it writes, the KV cache that
the workload fills, and an allowance for what no model runs without.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from bench.contract import plugins
from bench.contract.record import Architecture, Hardware, Source
from bench.contract.spec import Cell, Scalar, Step
from bench.contract.workload import Offline, Trace, Workload
from bench.formats import architecture, audit, gguf_reader
from bench.formats import folder as model_folder
from bench.measure.memory import widths_bytes
from bench.models.resolve import Resolved

_GIB = 1024**3
_UNKNOWN_KV = 1.0  # bytes: 8 bits, the narrowest that an engine here chooses by itself
_CONTEXT_BYTES = 128 << 20  # an allowance, not a measurement: a CUDA context and its kernels take more
_GRAPHS = (".onnx", ".data", ".bin")  # of ONNX and OpenVINO
_LOGIT_BYTES = 4  # a row of logits per sequence, in float32, to choose its next token by
# Formats that keep what is not quantized in a floating type, which the engine converts to its own.
_MIXED = frozenset({"hf", "gptq", "awq", "bnb", "torchao", "compressed-tensors"})


@dataclass(frozen=True)
class Parameters:
    """A model's parameters by how they are kept. `stored_bytes` are those of its weight files.

    `linear`: of the layers that methods quantize; `rest`: embeddings, norms and a head of its own.
    """

    linear: int
    rest: int
    stored_bytes: int
    architecture: Architecture | None


@dataclass(frozen=True)
class Held:
    """What a recipe leaves of a model: parameters, bits per linear weight (None: those of the files)."""

    format: str
    parameters: Parameters
    bits: float | None


@dataclass(frozen=True)
class Need:
    """The least memory of a cell, in its parts."""

    weights_bytes: int
    kv_bytes: int
    workspace_bytes: int

    @property
    def total_bytes(self) -> int:
        return self.weights_bytes + self.kv_bytes + self.workspace_bytes


def held(steps: tuple[Step, ...], resolved: Resolved) -> Held | None:
    """What the recipe's artifact holds; None where that is not known before it is made."""
    if resolved.folder is not None:
        found = _parameters(resolved.folder)
    elif resolved.planned is not None:
        found = _of_plan(resolved.planned)
    else:
        return None
    if not steps:
        return Held(resolved.format, found, None)
    method, options = plugins.method_of(steps[-1])
    bits, written = method.weight_bits(options), method.WRITES
    if bits is None and written != "hf":
        return None
    return Held(written, _reshaped(steps, resolved.source, found), bits)


def need(model: Held, options: Mapping[str, Scalar], load: Workload | None, hardware: Hardware, floats: str) -> Need:
    """The least memory that an engine with these options needs; `floats`: the type it computes in.

    A task needs no KV cache here: how long its texts are is not known yet. Of a server, one request's.
    """
    sequences, tokens = _kept(load)
    found = model.parameters.architecture
    context = _CONTEXT_BYTES if hardware.gpus else 0
    if found is None:
        return Need(_weights(model, floats), 0, context)
    tokens = min(tokens, found.window) if found.window else tokens
    kv = found.kept * sequences * tokens * _kv_bytes(options, floats)
    return Need(_weights(model, floats), int(kv), context + sequences * found.vocab_size * _LOGIT_BYTES)


def against(cell: Cell, model: Held | None, hardware: Hardware) -> str:
    """Why the cell cannot fit its device, in one sentence with the numbers; or nothing."""
    engine, options = plugins.load(plugins.ENGINES, cell.engine.name), cell.engine.options
    if model is None or engine.may_offload(engine.Options(**options)):
        return ""
    floats = str(options.get("dtype", ""))
    asked = need(model, options, cell.workload, hardware, floats)
    if not hardware.gpus:  # keys, values and workspace can be swapped out, and files mapped
        room, short = hardware.memory_bytes, asked.weights_bytes > hardware.memory_bytes
        where = f"this machine has {_gib(room)} of memory"
    else:
        share = float(options.get("gpu_memory_utilization") or 1.0)
        room = int(hardware.memory_bytes * share)
        short = asked.total_bytes > room
        where = f"{hardware.name} has {_gib(hardware.memory_bytes)}"
        where += f", of which the engine takes {share:.0%}" if share < 1 else ""
    parts = (
        f"weights {_gib(asked.weights_bytes)}, KV cache {_gib(asked.kv_bytes)}, workspace {_gib(asked.workspace_bytes)}"
    )
    return f"needs about {_gib(asked.total_bytes)} GiB ({parts}), {where}" if short else ""


def _weights(model: Held, floats: str) -> int:
    """Bytes on the device. What is no linear layer has the engine's own floating type, where it has one."""
    found, bits = model.parameters, model.bits
    if bits is None and (model.format != "hf" or not widths_bytes(floats)):
        return found.stored_bytes
    width = next(iter(widths_bytes(floats)), 2.0)
    if bits is None:
        return int((found.linear + found.rest) * width)
    if model.format in _MIXED:
        return int(found.linear * bits / 8 + found.rest * width)
    head = found.architecture.vocab_size * found.architecture.hidden if found.architecture else 0
    return int((found.linear + min(head, found.rest)) * bits / 8)  # the embedding may stay with the host


def _kept(load: Workload | None) -> tuple[int, int]:
    """Sequences that are in memory at once at the least, and the tokens of each."""
    if load is None or isinstance(load, Trace):
        return 1, 0
    return (load.batch if isinstance(load, Offline) else 1), load.longest


def _kv_bytes(options: Mapping[str, Scalar], floats: str) -> float:
    """Bytes of one number of the cache."""
    return next(iter(widths_bytes(str(options.get("kv_dtype", floats)))), _UNKNOWN_KV)


@cache
def _parameters(folder: Path) -> Parameters:
    known = audit.source(folder)
    if known.format == "gguf":
        return _of_gguf(folder)
    if known.format in audit.APART:
        files = [f for f in folder.iterdir() if f.suffix in _GRAPHS and f.is_file()]
        return Parameters(0, 0, sum(f.stat().st_size for f in files), None)
    stored = model_folder.read_headers(folder).tensors.values()
    linear = _linear(known)
    elements = sum(tensor.elements for tensor in stored)
    return Parameters(
        linear, max(0, elements - linear), sum(tensor.size for tensor in stored), architecture.of_config(known.config)
    )


def _of_plan(known: Source) -> Parameters:
    """Of a model that is not here: its linear layers, its embedding and a head of its own, in 16 bits."""
    shape, linear = architecture.of_config(known.config), _linear(known)
    tables = 1 if shape is None or shape.tied_head else 2
    rest = shape.vocab_size * shape.hidden * tables if shape else 0
    return Parameters(linear, rest, 2 * (linear + rest), shape)


def _of_gguf(folder: Path) -> Parameters:
    """The embedding may stay in the host's memory where the head is another tensor."""
    stored = gguf_reader.read(folder).tensors
    embedding = stored.get("token_embd.weight")
    rest = embedding.elements if embedding else 0
    apart = embedding.size if embedding and "output.weight" in stored else 0
    return Parameters(
        sum(tensor.elements for tensor in stored.values()) - rest,
        rest,
        sum(tensor.size for tensor in stored.values()) - apart,
        architecture.read(folder),
    )


def _linear(known: Source) -> int:
    return sum(o * i for name, (o, i) in known.linears.items() if not model_folder.is_head(name))


def _reshaped(steps: tuple[Step, ...], known: Source, found: Parameters) -> Parameters:
    """As it is after steps that cut layers or heads; embeddings and head are taken to be as they were."""
    before = known
    for step in steps:
        method, options = plugins.method_of(step)
        known = method.output_source(options, known)
    if known is before:
        return found
    left = architecture.of_config(known.config)
    return Parameters(_linear(known), found.rest, found.stored_bytes, left)


def _gib(size: float) -> str:
    return f"{size / _GIB:.1f}"
