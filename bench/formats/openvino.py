"""What an OpenVINO model holds, read from its graph (openvino_model.xml), by the rules of the other audits.

A linear layer is a MatMul one side of which comes from constants alone, through whatever unpacks them: the
bytes of all of these are its weight's. No entity and no document type is let through the parser.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat

from bench.contract.errors import UserError
from bench.contract.record import Audit, Source
from bench.formats import folder as model_folder
from bench.formats.folder import Tensor

GRAPH = "openvino_model.xml"
_WEIGHTS = "openvino_model.bin"
_SHAPES = frozenset({"i64", "i32", "u64", "u32", "boolean", "string"})  # of constants that steer, not weigh
_NOTED_MOST = 4


@dataclass
class Graph:
    """Layers by id in the order of the file, which is one in which each comes after what it is made from.

    `kinds` and `names` of all; `constants` of those that are; `inputs` by port.
    """

    kinds: dict[str, str] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    constants: dict[str, Tensor] = field(default_factory=dict)
    inputs: dict[str, dict[str, str]] = field(default_factory=dict)
    ends: int = 0  # where in the file of weights the last constant ends

    def cones(self) -> dict[str, frozenset[str]]:
        """By layer made from constants alone: which ones, those that only give a shape left out."""
        found: dict[str, frozenset[str]] = {}
        for layer in self.kinds:
            given = [found.get(source) for source in self.inputs.get(layer, {}).values()]
            if layer in self.constants:
                found[layer] = frozenset({layer} if self.constants[layer].dtype not in _SHAPES else ())
            elif given and all(cone is not None for cone in given):
                found[layer] = frozenset().union(*(cone for cone in given if cone is not None))
        return found


@dataclass(frozen=True)
class Linear:
    """A layer's weight: the constant that has its values, and the bytes of all it is made from."""

    weight: Tensor
    size: int


def source(folder: Path) -> Source:
    """What a method may know: linear layers as name -> (out, in), a block of inputs counted as one row."""
    _, linears, _, _ = _read(folder)
    shapes = {n: (w.weight.shape[0], w.weight.elements // w.weight.shape[0]) for n, w in linears.items()}
    return Source("openvino", shapes, model_folder.read_config(folder))


def audit(folder: Path, reference: Mapping[str, tuple[int, int]] | None) -> Audit:
    """Count what is stored. `reference` has the linear layers of the model it was made from."""
    graph, linears, tied, others = _read(folder)
    config = model_folder.read_config(folder)
    stored = [tensor for tensor in graph.constants.values() if tensor.dtype not in _SHAPES]
    small = {n for n, layer in linears.items() if 8 * layer.size < 16 * layer.weight.elements}
    parameters = sum(layer.weight.elements for layer in linears.values())
    size = sum(layer.size for layer in linears.values())
    types = Counter(tensor.dtype for tensor in stored if tensor.elements > 1)
    return Audit(
        format="openvino",
        total_bytes=sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()),
        weight_bytes=sum(tensor.size for tensor in stored),
        parameters=parameters + others,
        linear_parameters=parameters,
        linear_bytes=size,
        bits_per_weight=8 * size / parameters,
        quantized_fraction=sum(linears[n].weight.elements for n in small) / parameters,
        tied_head=tied,
        vocab_size=model_folder.vocab_size(config),
        context=model_folder.context_length(config),
        tensor_types=dict(sorted(types.items())),
        notes=_notes(set(linears), small, set(reference or ())),
    )


def _read(folder: Path) -> tuple[Graph, dict[str, Linear], bool, int]:
    """(graph, linear layers by name, whether the head is the embedding, parameters outside linear layers)."""
    graph = _parse(folder / GRAPH)
    weights = folder / _WEIGHTS
    if not weights.is_file() or weights.stat().st_size < graph.ends:
        raise UserError(f"{_WEIGHTS} is missing or cut short: {GRAPH} tells of {graph.ends} bytes in it")
    cones = graph.cones()
    embedded = {
        constant
        for layer, kind in graph.kinds.items()
        if kind == "Gather"
        for constant in cones.get(graph.inputs.get(layer, {}).get("0", ""), ())
    }
    linears, within, tied = {}, set[str](), False
    for layer, kind in graph.kinds.items():
        sides = [cones.get(i, frozenset()) for i in graph.inputs.get(layer, {}).values()]
        made = [cone for cone in sides if cone]
        if kind != "MatMul" or len(made) != 1:
            continue
        weight = max((graph.constants[i] for i in made[0]), key=lambda tensor: tensor.elements)
        if sum(side > 1 for side in weight.shape) < 2:
            continue
        if made[0] <= embedded:
            tied = True
            continue
        name = graph.names[layer].partition("/")[0].removeprefix("__module.")
        name = graph.names[layer] if name in linears else name
        linears[name] = Linear(weight, sum(graph.constants[i].size for i in made[0]))
        within |= made[0]
    if not linears:
        raise UserError(f"{GRAPH} has no linear layer: it is no language model's graph")
    return graph, linears, tied, _others(graph, within, embedded)


def _others(graph: Graph, within: set[str], embedded: set[str]) -> int:
    """Elements stored outside linear layers: norms and biases, and of an embedding its values alone."""
    apart = [t for i, t in graph.constants.items() if i not in within | embedded and t.dtype not in _SHAPES]
    values = max((graph.constants[i].elements for i in embedded), default=0)
    return values + sum(tensor.elements for tensor in apart if tensor.elements > 1)


def _notes(linears: set[str], small: set[str], reference: set[str]) -> tuple[str, ...]:
    notes = []
    if small and (whole := sorted(linears - small)):
        notes.append(f"not quantized: {_some(whole)}")
    if lost := sorted(reference - linears):
        notes.append(f"not stored under its name: {_some(lost)}")
    return tuple(notes)


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _NOTED_MOST} more" if len(names) > _NOTED_MOST else ""
    return ", ".join(names[:_NOTED_MOST]) + more


def _parse(file: Path) -> Graph:
    """The graph's own layers and edges; those inside a layer (the body of a loop) have ids of their own."""
    graph, inside = Graph(), list[str]()
    layer = ""

    def start(tag: str, words: dict[str, str]) -> None:
        nonlocal layer
        inside.append(tag)
        if inside == ["net", "layers", "layer"]:
            layer = words["id"]
            graph.kinds[layer], graph.names[layer] = words["type"], words["name"]
        elif inside == ["net", "layers", "layer", "data"] and graph.kinds[layer] == "Const":
            shape = tuple(int(side) for side in words["shape"].split(",") if side.strip())
            graph.constants[layer] = Tensor(words["element_type"], shape, int(words["size"]))
            graph.ends = max(graph.ends, int(words["offset"]) + int(words["size"]))
        elif inside == ["net", "edges", "edge"]:
            graph.inputs.setdefault(words["to-layer"], {})[words["to-port"]] = words["from-layer"]

    def refuse(*_: object) -> None:
        raise UserError(f"{file.name} has a document type of its own, which no OpenVINO model has")

    parser = expat.ParserCreate()
    parser.StartElementHandler = start
    parser.EndElementHandler = lambda _: inside.pop()
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(file.read_bytes(), True)  # noqa: FBT003  (expat: this is all of it)
    except (OSError, expat.ExpatError, KeyError, ValueError) as error:
        raise UserError(f"{file.name} cannot be read as a graph of OpenVINO: {error}") from None
    return graph
