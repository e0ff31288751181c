"""What an ONNX model holds, counted by the rules of the other formats.

A linear layer is a node that multiplies by a constant matrix. Its bytes are those of the matrix, its scales
and its zero points. A head whose matrix the embedding reads too is tied, and no linear layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.contract import wire
from bench.contract.errors import UserError
from bench.contract.record import Audit, Source
from bench.formats import counting
from bench.formats import folder as model_folder
from bench.formats.architecture import of_folder as architecture
from bench.formats.counting import Linear
from bench.formats.counting import stored_graph as parameters
from bench.formats.folder import Tensor

__all__ = ["architecture", "parameters"]  # hooks that are shared

FORMATS = ("onnx",)
FLOATS = "none"
FILES = ("*.onnx*",)
DOWNLOADED = False  # many repositories have an export next to the weights
_CONFIG = "genai_config.json"
# Where an operator has its weight matrices, and where what belongs to them (scales, zero points, order).
_OPERATORS: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "MatMul": ((0, 1), ()),
    "Gemm": ((1,), ()),
    "FusedMatMul": ((1,), ()),
    "MatMulInteger": ((1,), (3,)),
    "MatMulIntegerToFloat": ((1,), (3, 5)),
    "DynamicQuantizeMatMul": ((1,), (2, 3)),
    "QLinearMatMul": ((3,), (4, 5)),
    "MatMulNBits": ((1,), (2, 3, 4)),
    "MatMulBnb4": ((1,), (2,)),
    "MoE": ((2, 4, 6), ()),
    "QMoE": ((2, 5, 8), (3, 6, 9, 11, 12, 13)),
}
_MAX_DIGITS = 18  # of an offset or a length
_MAX_PASSED = 1000  # nodes between a layer and its weights: a few, in any model
_EMBEDDINGS = ("Gather", "GatherBlockQuantized")
_PASSED_ON = ("Transpose", "Cast", "Reshape", "Identity", "DequantizeLinear")  # the same weights, otherwise
_TABLES = ("cos_cache", "sin_cache")  # of positions: stored, and no parameters
_BITS = {
    "COMPLEX128": 128,
    **dict.fromkeys(("DOUBLE", "INT64", "UINT64", "COMPLEX64"), 64),
    **dict.fromkeys(("FLOAT", "INT32", "UINT32"), 32),
    **dict.fromkeys(("FLOAT16", "BFLOAT16", "INT16", "UINT16"), 16),
    **dict.fromkeys(("INT4", "UINT4", "FLOAT4E2M1"), 4),
    **dict.fromkeys(("INT2", "UINT2"), 2),
}


@dataclass(frozen=True)
class _Matrix:
    """A layer: its parameters as (out, in), what is stored of it, and the matrices among that."""

    shape: tuple[int, int]
    stored: frozenset[str]
    weights: frozenset[str]

    @property
    def parameters(self) -> int:
        return self.shape[0] * self.shape[1]


@dataclass(frozen=True)
class _Graph:
    """The model's constants by name, and the nodes that make or use values."""

    tensors: Mapping[str, Tensor]
    nodes: tuple[Any, ...]
    makers: Mapping[str, Any] = field(default_factory=dict)

    def constants(self, name: str) -> list[str]:
        """The stored tensors behind `name`: itself, or through nodes that only reshape or convert weights."""
        stored: dict[str, None] = {}
        pending, passed = [name], set[str]()
        while pending:
            each = pending.pop()
            if each in self.tensors:
                stored[each] = None
            elif each not in passed and (maker := self.makers.get(each)) is not None and maker.op_type in _PASSED_ON:
                pending += reversed(maker.input if maker.op_type == "DequantizeLinear" else maker.input[:1])
            passed.add(each)
            if len(passed) > _MAX_PASSED:
                raise UserError(f"the graph is corrupt: over {_MAX_PASSED} nodes pass the weights of {name} on")
        return list(stored)


def detect(folder: Path) -> str | None:
    named = (folder / _CONFIG).is_file() or any(folder.glob("*.onnx"))
    return "onnx" if named and not any(folder.glob("*.safetensors")) else None


def source(name: str, folder: Path) -> Source:
    """Linear layers as name -> (out, in), and the model's config."""
    layers, _ = _split(_read(folder))
    return Source(name, {layer: matrix.shape for layer, matrix in layers.items()}, _config(folder))


def audit(name: str, folder: Path, reference: Mapping[str, tuple[int, int]] | None, *, zeros: bool) -> Audit:
    """Count what the graph names and its data files hold; UserError for a data file that is cut short."""
    del reference, zeros
    graph = _read(folder)
    layers, tied = _split(graph)
    if not layers:
        raise UserError(f"{folder.name} has no linear layer with stored weights: it is not a language model")
    sizes = {layer: sum(graph.tensors[t].size for t in matrix.stored) for layer, matrix in layers.items()}
    linears = {layer: Linear(matrix.parameters, sizes[layer]) for layer, matrix in layers.items()}
    counted = {t for matrix in (*layers.values(), *tied) for t in matrix.stored}
    rest = (t.elements for n, t in graph.tensors.items() if n not in counted and n not in _TABLES)
    return counting.audit(
        name,
        counting.all_files(folder),
        linears,
        list(graph.tensors.values()),
        _config(folder),
        other_parameters=sum(matrix.parameters for matrix in tied) + sum(rest),
        tied_head=bool(tied),
        notes=counting.partly_quantized(linears),
    )


def _split(graph: _Graph) -> tuple[dict[str, _Matrix], list[_Matrix]]:
    """Linear layers by name, and those whose matrix the embedding shares."""
    read = {n for node in graph.nodes if node.op_type in _EMBEDDINGS for n in graph.constants(node.input[0])}
    layers, tied = {}, []
    for node in graph.nodes:
        linear = _linear(graph, node)
        if linear is None:
            continue
        if linear.weights & read:
            tied.append(linear)
        else:
            name = _layer(node)  # of several that share it, the output tells which
            layers[f"{name}.{node.output[0]}" if name in layers else name] = linear
    return layers, tied


def _linear(graph: _Graph, node: Any) -> _Matrix | None:
    """The layer that the node is; None where it multiplies two computed values, or is something else."""
    matrix_inputs, other_inputs = _OPERATORS.get(node.op_type, ((), ()))
    operands = [graph.constants(node.input[p]) for p in matrix_inputs if p < len(node.input)]
    matrices = [constants for constants in operands if constants]
    if not matrices or len(graph.tensors[matrices[0][0]].shape) < 2:
        return None
    stored = {tensor for constants in matrices for tensor in constants}
    stored |= {t for p in other_inputs if p < len(node.input) for t in graph.constants(node.input[p])}
    if node.op_type == "MatMulInteger":  # its scales are multiplied in later; the quantizer names them so
        base = matrices[0][0].removesuffix("_quantized")
        stored |= {f"{base}_scale"} & set(graph.tensors)
    weights = [constants[0] for constants in matrices]
    shape = _shape(graph, node, weights)
    return _Matrix(shape, frozenset(stored), frozenset(weights)) if min(shape) > 0 else None


def _shape(graph: _Graph, node: Any, weights: list[str]) -> tuple[int, int]:
    """(out, in); of experts (1, parameters)."""
    attributes = {a.name: a.i for a in node.attribute}
    if "K" in attributes and "N" in attributes:
        return attributes["N"], attributes["K"]
    elements = [graph.tensors[weight].elements for weight in weights]
    if node.op_type == "QMoE":
        return 1, sum(elements) * 8 // max(1, attributes.get("expert_weight_bits", 4))
    shape = graph.tensors[weights[0]].shape
    if node.op_type == "MoE" or len(shape) > 2:
        return 1, sum(elements)
    return (shape[0], shape[1]) if attributes.get("transB") else (shape[1], shape[0])


def _layer(node: Any) -> str:
    """The layer's name, near Hugging Face's: of a node /model/layers.0/attn/o_proj/MatMul."""
    name = str(node.name or next(iter(node.output), "")).strip("/").replace("/", ".")
    layer = name.rpartition(".")[0] if node.op_type.startswith("MatMul") else name
    return (layer or name).replace(".attn.", ".self_attn.")


def _read(folder: Path) -> _Graph:
    import onnx

    tensors: dict[str, Tensor] = {}
    nodes: list[Any] = []
    for file in _files(folder):
        with model_folder.open_weights(file) as opened:
            try:
                graph = onnx.load(opened, format="protobuf", load_external_data=False).graph
            except Exception as error:  # noqa: BLE001  (protobuf has classes of its own for each damage)
                raise UserError(f"{file.name} is cut short, or not an ONNX model ({type(error).__name__})") from None
        tensors.update({constant.name: _tensor(constant, file) for constant in graph.initializer})
        nodes += graph.node
    return _Graph(tensors, tuple(nodes), {output: node for node in nodes for output in node.output})


def _files(folder: Path) -> list[Path]:
    """The decoder that genai_config.json names, else every .onnx file."""
    model = _genai(folder)
    decoder = model.get("decoder")
    named = decoder.get("filename") if isinstance(decoder, dict) else ""
    files = [folder / Path(named).name] if named and isinstance(named, str) else sorted(folder.glob("*.onnx"))
    if missing := [file.name for file in files if not wire.is_file(file)] or ([] if files else ["*.onnx"]):
        raise UserError(f"{folder.name} lacks {missing[0]}, the model that its {_CONFIG} names")
    return files


def _tensor(constant: Any, file: Path) -> Tensor:
    """One constant; UserError where its data is not all there."""
    import onnx

    if constant.data_type not in onnx.TensorProto.DataType.values() or any(size < 0 for size in constant.dims):
        raise UserError(f"{file.name} is corrupt: tensor {constant.name} has an unknown type or a negative size")
    dtype = onnx.TensorProto.DataType.Name(constant.data_type)
    shape = tuple(constant.dims)
    size = (Tensor(dtype, shape, 0).elements * _BITS.get(dtype, 8) + 7) // 8
    if constant.data_location == onnx.TensorProto.EXTERNAL:
        _require_stored(constant, file, size)
    elif size > file.stat().st_size:
        raise UserError(f"{file.name} is cut short: tensor {constant.name} has {size} bytes")
    return Tensor(dtype.lower(), shape, size)


def _require_stored(constant: Any, file: Path, size: int) -> None:
    """UserError unless the tensor's bytes lie in a file in the model's folder, where ONNX Runtime reads it too."""
    at = {entry.key: entry.value for entry in constant.external_data}
    location, name = at.get("location", ""), constant.name
    if Path(location).name != location:
        raise UserError(
            f"{file.name} is not to be trusted: the data of tensor {name} is said to be in {location[:200]!r}, "
            f"and it belongs beside {file.name}: put it there, or export the model again"
        )
    numbers = [at[key] for key in ("offset", "length") if at.get(key)]
    if not all(n.isascii() and n.isdigit() and len(n) <= _MAX_DIGITS for n in numbers):
        raise UserError(f"{file.name} is corrupt: tensor {name} has no valid offset and length in {location[:200]}")
    if int(at.get("length") or size) != size:
        raise UserError(f"{file.name} is corrupt: tensor {name} has {size} bytes, and is said to have {at['length']}")
    data, ends = file.with_name(location or "(no file)"), int(at.get("offset") or 0) + size
    if not wire.is_file(data) or data.stat().st_size < ends:
        raise UserError(f"{data.name} is missing or cut short: tensor {name} ends at byte {ends}")


def _genai(folder: Path) -> dict[str, Any]:
    try:
        return dict(wire.read_json(folder / _CONFIG)["model"])
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(
            f"{folder.name}/{_CONFIG} is not the settings of a model: build it again with the model builder"
        ) from None


def _config(folder: Path) -> dict[str, Any]:
    """config.json where there is one, with the vocabulary and the context by genai_config.json."""
    model = _genai(folder)
    config = model_folder.read_config(folder) if (folder / model_folder.CONFIG).is_file() else {}
    settings = {"vocab_size": model.get("vocab_size"), "max_position_embeddings": model.get("context_length")}
    return {**config, **{key: value for key, value in settings.items() if value}}
