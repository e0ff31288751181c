"""OpenVINO on the CPU, in process: the runtime itself with the model's KV cache in its state.

Not OpenVINO GenAI's pipelines, which return no logits: one graph generates and is scored. For generation it is
cut to the last position before the head, as in GenAI. No precision is left to a default: the computation's, the
KV cache's (by default 8 bits), and that of activations before compressed weights (by default int8 on some CPUs).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bench.contract.errors import UserError
from bench.contract.hooks import DecodeStep, LogitBlock, Session
from bench.contract.record import Artifact, Hardware
from bench.contract.spec import Cell
from bench.engines._batch import check_context
from bench.engines._logits import rows_per_block
from bench.engines._receipts import counts, shares
from bench.formats import folder as model_folder

ENV = "openvino"
VERSION = 1
LOADS = frozenset({"openvino"})
MODES = frozenset({"offline", "score"})
DEPTH_MODES = frozenset({"offline"})
OPTIONS_SINCE = frozenset({"kv_dtype_k", "kv_dtype_v"})
_PRECISIONS = {"float32": "f32", "bfloat16": "bf16", "float16": "f16", "u8": "u8", "u4": "u4"}
_INTEGER_CACHE = frozenset({"u8", "u4"})
_CACHES = ("KEY_CACHE_PRECISION", "VALUE_CACHE_PRECISION")
_INDEX_TYPES = frozenset({"i64", "i32", "u64", "u32", "boolean"})
_INT_MAX = 2**31 - 1
_UNPACKING = frozenset({"Convert", "Subtract", "Multiply", "Reshape"})  # of compressed weights, before use


KvType = Literal["auto", "float32", "bfloat16", "float16", "u8", "u4"]


@dataclass(frozen=True)
class Options:
    """`kv_dtype` auto: the computation's. `kv_dtype_k`, `kv_dtype_v`: of keys and of values where they differ from it.

    `threads` 0: the library's choice.
    """

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    kv_dtype: KvType = "auto"
    threads: int = 0
    kv_dtype_k: KvType | Literal[""] = ""
    kv_dtype_v: KvType | Literal[""] = ""


def unsupported(cell: Cell, artifact_format: str, hardware: Hardware) -> str | None:
    options = Options(**cell.engine.options)  # type: ignore[arg-type]  # validated against Options by the planner
    if cell.device != "cpu":
        return "the openvino engine runs on the CPU: name the device cpu"
    if options.dtype == "bfloat16" and not {"avx512_bf16", "amx_bf16"} & set(hardware.isa):
        return "OpenVINO computes in bfloat16 with AVX512_BF16 or AMX only: ask for float32"
    if options.dtype == "float16" and not {"amx_fp16", "neon"} & set(hardware.isa):
        return "OpenVINO computes in float16 with AMX-FP16 or on Arm only: ask for float32"
    return None


@contextmanager
def open(folder: Path, artifact: Artifact, options: Options, device: str) -> Iterator[_Session]:  # noqa: A001
    """Read the graph; it is compiled when it is known whether it generates or scores."""
    import openvino

    if device != "cpu":
        raise UserError(f"the cell asks for {device}, and the openvino engine runs on the CPU")
    try:
        model = openvino.Core().read_model(folder / "openvino_model.xml")
    except RuntimeError as error:
        lines = str(error).replace(str(folder), folder.name).strip().splitlines()
        raise UserError(f"OpenVINO cannot read the model: {lines[-1] if lines else 'no reason given'}") from None
    yield _Session(model, folder, options)


class _Session(Session):
    """A graph and, once it was used, one compiled form of it with its state: another use makes another."""

    def __init__(self, model: Any, folder: Path, options: Options) -> None:
        self.model, self.options = model, options
        self.context = model_folder.context_length(model_folder.read_config(folder)) or None
        self.rows = rows_per_block(int(model.output("logits").partial_shape[-1].get_length()))
        self.inputs = {name for port in model.inputs for name in port.get_names()}
        self.compiled: Any = None
        self.request: Any = None
        self.use = ""

    def generate(self, prompts: Sequence[Sequence[int]], new_tokens: int) -> Iterator[DecodeStep]:
        """The whole batch in one call per step; its KV cache is emptied first."""
        check_context(len(prompts[0]) + new_tokens, self.context)
        self._start("generate")
        yield from self._generate(prompts, 0, new_tokens)

    def generate_at_depth(
        self,
        contexts: Sequence[Sequence[int]],
        prompts: Sequence[Sequence[int]],
        new_tokens: int,
        start: Callable[[], None],
    ) -> Iterator[DecodeStep]:
        """The contexts are fed anew in each call, in one."""
        import numpy as np

        depth = len(contexts[0])
        check_context(depth + len(prompts[0]) + new_tokens, self.context)
        self._start("generate")
        self._infer(np.asarray(contexts, np.int64), 0)
        start()
        yield from self._generate(prompts, depth, new_tokens)

    def _generate(self, prompts: Sequence[Sequence[int]], past: int, new_tokens: int) -> Iterator[DecodeStep]:
        import numpy as np

        fed = np.asarray(prompts, np.int64)
        for _ in range(new_tokens):
            tokens = self._infer(fed, past)[:, -1].argmax(axis=-1)
            yield DecodeStep(time.perf_counter(), tuple(map(int, tokens)))
            past += fed.shape[1]
            fed = tokens[:, None].astype(np.int64)

    def logits(self, ids: Sequence[int]) -> Iterator[LogitBlock]:
        """Blocks of at most 64 MiB, each one call over the KV cache of those before it.

        Of one token where the cache is of integers: the tokens of a call see each other as they are before it.
        """
        import numpy as np

        check_context(len(ids), self.context)
        self._start("score")
        rows = 1 if _INTEGER_CACHE & {*self._kv_types()} else self.rows
        for start in range(0, len(ids), rows):
            fed = np.asarray([ids[start : start + rows]], np.int64)
            yield LogitBlock(start, self._infer(fed, start)[0].copy())

    def receipts(self) -> Mapping[str, str]:
        """From the compiled model: its properties, and what its nodes run as."""
        import openvino

        if self.compiled is None:
            self._start("generate")
        nodes = [node.get_rt_info() for node in self.compiled.get_runtime_model().get_ops()]
        kinds = [_rt_info(node, "layerType") for node in nodes]
        products = counts(
            f"{_rt_info(node, 'primitiveType')} on {_rt_info(node, 'runtimePrecision')}"
            for node, kind in zip(nodes, kinds, strict=True)
            if kind == "FullyConnected"
        )
        keys, values = self._kv_types()
        return {
            "kernel": products,
            "attention": f"ScaledDotProductAttention x{kinds.count('ScaledDotProductAttention')}",
            "weight_dtype": shares(_weight_bytes(self.model)),
            "compute_dtype": self._property("INFERENCE_PRECISION_HINT"),
            "kv_dtype": ", ".join(sorted({keys, values})),
            "kv_dtype_k": keys,
            "kv_dtype_v": values,
            "dynamic_quantization_group": self._property("DYNAMIC_QUANTIZATION_GROUP_SIZE"),
            "threads": self._property("INFERENCE_NUM_THREADS"),
            "pinned": self._property("ENABLE_CPU_PINNING"),
            "device": ", ".join(self.compiled.get_property("EXECUTION_DEVICES")).lower(),
            "isa": self._property("RUNTIME_REQUIREMENTS").rpartition("isa=")[2],
            "openvino": openvino.__version__,
        }

    def memory(self) -> Mapping[str, int]:
        """Bytes of the graph's weights, and of the KV cache as it is now, without scales where it has them.

        A state shows itself in 32 bits whatever it is kept in, so that its elements are what is counted.
        """
        states = [state.state for state in self.request.query_state()] if self.request else []
        types = [self.compiled.get_property(name).bitwidth for name in _CACHES] if states else [0]
        bits = sum(types) / len(types)
        tokens = [state.size / (state.shape[0] * state.shape[2]) for state in states if state.shape[2]]
        has_scales = bool(states) and bool(_INTEGER_CACHE & {*self._kv_types()})
        return {
            "weights_bytes": _weight_bytes(self.model).total(),
            "unread_bytes": _unread_bytes(self.model),
            "kv_bytes": int(sum(state.size for state in states) * bits / 8),
            **({"kv_token_bytes": int(sum(tokens) * bits / 8)} if tokens and not has_scales else {}),
        }

    def _infer(self, ids: Any, past: int) -> Any:
        """Float32 logits [batch, positions, vocab] that hold until the next call."""
        import numpy as np

        batch, length = ids.shape
        inputs = {
            "input_ids": ids,
            "attention_mask": np.ones((batch, past + length), np.int64),
            "position_ids": np.tile(np.arange(past, past + length, dtype=np.int64), (batch, 1)),
            "beam_idx": np.arange(batch, dtype=np.int32),
        }
        inputs = {name: value for name, value in inputs.items() if name in self.inputs}
        self.request.infer(inputs, share_inputs=True)
        return self.request.get_tensor("logits").data

    def _start(self, use: str) -> None:
        """An empty state, in a graph compiled for this use."""
        import openvino

        if use != self.use:
            self.request = self.compiled = None
            model = self.model.clone()
            if use == "generate":
                _slice_last_position(model)
            properties = _properties(self.options)
            self.compiled = openvino.Core().compile_model(model, "CPU", properties)
            for name, requested in properties.items():
                if (actual := self._property(name)) != requested:
                    raise UserError(f"OpenVINO was asked for {name} {requested} and took {actual}")
            self.request, self.use = self.compiled.create_infer_request(), use
        self.request.reset_state()

    def _kv_types(self) -> tuple[str, str]:
        """Of keys and of values, as compiled."""
        keys, values = map(self._property, _CACHES)
        return keys, values

    def _property(self, name: str) -> str:
        value = self.compiled.get_property(name)
        return str(value.get_type_name() if hasattr(value, "get_type_name") else getattr(value, "name", value))


def _properties(options: Options) -> dict[str, str]:
    """What the graph is compiled with; each is read back afterwards."""
    dtype = _PRECISIONS["float32" if options.dtype == "auto" else options.dtype]
    keys, values = (
        dtype if (kind := own or options.kv_dtype) == "auto" else _PRECISIONS[kind]
        for own in (options.kv_dtype_k, options.kv_dtype_v)
    )
    cache = {"KV_CACHE_PRECISION": keys} if keys == values else dict(zip(_CACHES, (keys, values), strict=True))
    properties = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": dtype,
        **cache,
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0",
    }
    return {**properties, "INFERENCE_NUM_THREADS": str(options.threads)} if options.threads else properties


def _slice_last_position(model: Any) -> None:
    """Let the head see the last position only, where the logits are a product with its weight and no more."""
    from openvino import opset13

    head = model.output("logits").get_node().input_value(0).get_node()
    if head.get_type_name() == "MatMul":
        last = [opset13.constant([value]) for value in (-1, _INT_MAX, 1, 1)]
        hidden = opset13.slice(head.input_value(0), *last)
        head.input(0).replace_source_output(hidden.output(0))


def _weights(model: Any) -> list[tuple[Any, str]]:
    """The constants of a graph with their element types, without those that only give a shape or an index."""
    constants = [node for node in model.get_ops() if node.get_type_name() == "Constant"]
    typed = [(node, str(node.get_element_type().get_type_name())) for node in constants]
    return [(node, dtype) for node, dtype in typed if dtype not in _INDEX_TYPES]


def _weight_bytes(model: Any) -> Counter[str]:
    """Bytes of weights by element type."""
    sizes: Counter[str] = Counter()
    for node, dtype in _weights(model):
        sizes[dtype] += node.get_byte_size()
    return sizes


def _unread_bytes(model: Any) -> int:
    """Bytes of the weights that only rows are taken of: an embedding that is not the head as well."""
    return sum(node.get_byte_size() for node, _ in _weights(model) if _users(node) == {"Gather"})


def _users(node: Any) -> set[str]:
    """The kinds of nodes that a constant comes to, once it is unpacked."""
    kinds: set[str] = set()
    for port in node.output(0).get_target_inputs():
        user = port.get_node()
        kinds |= _users(user) if _is_constant(user) else {user.get_type_name()}
    return kinds


def _is_constant(node: Any) -> bool:
    """Whether a node is a constant, or only unpacks constants."""
    kind = node.get_type_name()
    if kind not in _UNPACKING:
        return bool(kind == "Constant")
    return all(_is_constant(node.input_value(index).get_node()) for index in range(len(node.inputs())))


def _rt_info(info: Any, key: str) -> str:
    return str(info[key].astype(str)) if key in info else "unknown"
