"""What an OpenVINO model holds, read from its graph (openvino_model.xml), counted by the rules of the other formats.

A linear layer is a MatMul with one operand that comes from constants alone, through whatever unpacks them: the
bytes of all of these are its weight's. The parser refuses entities and document types.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from xml.etree import ElementTree as ET

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

FORMATS = ("openvino",)
FLOATS = "none"
FILES = ("openvino_model.*",)
_GRAPH = "openvino_model.xml"
_WEIGHTS = "openvino_model.bin"
_MAX_CONSTANTS = 100  # behind one operand: a weight, what unpacks it, and shapes; more are no weight's
_LARGEST = 2**48  # of any size
_SHAPES = frozenset({"i64", "i32", "u64", "u32", "boolean", "string"})  # of constants that steer, not weigh


@dataclass
class _Graph:
    """Layers by id in topological order: `kinds`, `names`, `constants`, and `inputs` by port."""

    kinds: dict[str, str] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    constants: dict[str, Tensor] = field(default_factory=dict)
    inputs: dict[str, dict[str, str]] = field(default_factory=dict)
    ends: int = 0  # where in the file of weights the last constant ends

    def cones(self) -> dict[str, frozenset[str]]:
        """The constants that each layer depends on, shapes left out; only layers that depend on nothing else."""
        cones: dict[str, frozenset[str]] = {}
        for layer in self.kinds:
            inputs = [cones.get(source) for source in self.inputs.get(layer, {}).values()]
            if layer in self.constants:
                cones[layer] = frozenset({layer} if self.constants[layer].dtype not in _SHAPES else ())
            elif inputs and all(cone is not None for cone in inputs):
                cone = frozenset().union(*(cone for cone in inputs if cone is not None))
                if len(cone) <= _MAX_CONSTANTS:
                    cones[layer] = cone
        return cones


def detect(folder: Path) -> str | None:
    return "openvino" if (folder / _GRAPH).is_file() else None


def source(name: str, folder: Path) -> Source:
    """Linear layers as name -> (out, in), a block of inputs counted as one row."""
    _, layers, _, _ = _read(folder)
    shapes = {name: (weight.shape[0], weight.elements // weight.shape[0]) for name, weight in layers.items()}
    return Source(name, shapes, model_folder.read_config(folder))


def audit(name: str, folder: Path, reference: Mapping[str, tuple[int, int]] | None, *, zeros: bool) -> Audit:
    """Count what is stored. `reference` has the linear layers of the original model."""
    del zeros
    graph, layers, tied, others = _read(folder)
    linears = {layer: Linear(weight.elements, weight.size) for layer, weight in layers.items()}
    weights = [tensor for tensor in graph.constants.values() if tensor.dtype not in _SHAPES]
    counted = counting.audit(
        name,
        counting.all_files(folder),
        linears,
        weights,
        model_folder.read_config(folder),
        other_parameters=others,
        tied_head=tied,
        notes=[
            *counting.partly_quantized(linears),
            *counting.note("not stored under its name", sorted(set(reference or ()) - set(layers))),
        ],
    )
    types = Counter(tensor.dtype for tensor in weights if tensor.elements > 1)
    return replace(counted, tensor_types=dict(sorted(types.items())))


def _read(folder: Path) -> tuple[_Graph, dict[str, Tensor], bool, int]:
    """(graph, weights of linear layers by name, whether the head is the embedding, parameters outside of them).

    A weight is the constant with its values; its size in bytes includes the scales and zero points.
    """
    graph = _parse(folder / _GRAPH)
    weights = folder / _WEIGHTS
    if not weights.is_file() or weights.stat().st_size < graph.ends:
        raise UserError(f"{_WEIGHTS} is missing or cut short: {_GRAPH} refers to {graph.ends} bytes of it")
    cones = graph.cones()
    embedded = {
        constant
        for layer, kind in graph.kinds.items()
        if kind == "Gather"
        for constant in cones.get(graph.inputs.get(layer, {}).get("0", ""), ())
    }
    linears, within, tied = {}, set[str](), False
    for layer, kind in graph.kinds.items():
        operands = [cones.get(i, frozenset()) for i in graph.inputs.get(layer, {}).values()]
        constant = [cone for cone in operands if cone]
        if kind != "MatMul" or len(constant) != 1:
            continue
        weight = max((graph.constants[i] for i in constant[0]), key=lambda tensor: tensor.elements)
        if sum(size > 1 for size in weight.shape) < 2 or not weight.elements:
            continue
        if constant[0] <= embedded:
            tied = True
            continue
        name = graph.names[layer].partition("/")[0].removeprefix("__module.")
        name = graph.names[layer] if name in linears else name
        linears[name] = replace(weight, size=sum(graph.constants[i].size for i in constant[0]))
        within |= constant[0]
    if not linears:
        raise UserError(f"{_GRAPH} has no linear layer: it is not the graph of a language model")
    return graph, linears, tied, _others(graph, within, embedded)


def _others(graph: _Graph, within: set[str], embedded: set[str]) -> int:
    """Elements stored outside linear layers: norms and biases, and of an embedding its values alone."""
    rest = [t for i, t in graph.constants.items() if i not in within | embedded and t.dtype not in _SHAPES]
    values = max((graph.constants[i].elements for i in embedded), default=0)
    return values + sum(tensor.elements for tensor in rest if tensor.elements > 1)


def _size(text: str) -> int:
    """A size, or an offset; ValueError for what is none."""
    if 0 <= (size := int(text)) <= _LARGEST:
        return size
    raise ValueError(f"{size} is no size")


class _Builder(ET.TreeBuilder):
    def doctype(self, *_: object) -> None:
        raise UserError(f"{_GRAPH} has a document type of its own, which OpenVINO models do not have")


def _parse(file: Path) -> _Graph:
    """The graph's own layers and edges; those inside a layer (the body of a loop) have ids of their own."""
    graph = _Graph()
    try:
        with wire.open_regular(file) as opened:
            net = ET.parse(opened, ET.XMLParser(target=_Builder())).getroot()  # noqa: S314  (no DTD)
        for layer in net.iterfind("layers/layer"):
            number, kind = layer.attrib["id"], layer.attrib["type"]
            graph.kinds[number], graph.names[number] = kind, layer.attrib["name"]
            for data in layer.iterfind("data") if kind == "Const" else ():
                shape = tuple(_size(size) for size in data.attrib["shape"].split(",") if size.strip())
                size = _size(data.attrib["size"])
                graph.constants[number] = Tensor(data.attrib["element_type"], shape, size)
                graph.ends = max(graph.ends, _size(data.attrib["offset"]) + size)
        for edge in net.iterfind("edges/edge"):
            graph.inputs.setdefault(edge.attrib["to-layer"], {})[edge.attrib["to-port"]] = edge.attrib["from-layer"]
    except (OSError, ET.ParseError, KeyError, ValueError) as error:
        raise UserError(f"{file.name} cannot be read as a graph of OpenVINO: {error}") from None
    return graph
