"""What ONNX Runtime says of a session: its threads, where each node ran, and by which operator.

The log of a load has the size of the thread pool. The profile of a short run has each node that ran, after
all fusions, with its operator, its provider and its types.
"""

from __future__ import annotations

import json
import math
import os
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.contract.errors import UserError

# What ONNX Runtime keeps on the CPU by itself, wherever the rest runs: the arithmetic of shapes and lengths.
_BOOKKEEPING = frozenset(
    {
        "Shape",
        "Size",
        "Gather",
        "Cast",
        "Add",
        "Sub",
        "Mul",
        "Div",
        "ReduceSum",
        "Concat",
        "Slice",
        "Squeeze",
        "Unsqueeze",
        "Range",
        "Reshape",
        "ConstantOfShape",
        "Equal",
        "Greater",
        "Where",
        "Expand",
        "If",
    }
)
_COMPUTES = re.compile(r"layers\.\d|embed|lm_head")  # in the name of a node: it works on activations
_POOL = re.compile(r"intra_op_param:OrtThreadPoolParams \{ thread_pool_size: (\d+)")
_TALK = re.compile(r"\[[VI]:onnxruntime")
_CPU = "CPUExecutionProvider"
_ENDS = "_kernel_time"
# Operators that take rows of their constants: embeddings, and the rotations that attention is given.
_LOOKUPS = frozenset({"Gather", "GatherBlockQuantized", "GroupQueryAttention", "RotaryEmbedding"})
_NAMED_MOST = 3


@dataclass(frozen=True)
class Node:
    """A node that ran: by which operator, where, and the type of its first input ('' where it has none)."""

    name: str
    operator: str
    provider: str
    dtype: str = ""


@dataclass
class Log:
    """What was written to stderr during a load, once it is over."""

    text: str = ""

    @property
    def threads(self) -> int:
        """Of the pool that computes; 0 where the log does not say."""
        return int(found[1]) if (found := _POOL.search(self.text)) else 0


@contextmanager
def listening() -> Iterator[Log]:
    """Catch what native code writes to stderr; warnings and errors are written there afterwards."""
    log = Log()
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as caught:
        os.dup2(caught.fileno(), 2)
        try:
            yield log
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            caught.seek(0)
            log.text = caught.read().decode(errors="replace")
            rest = [line for line in log.text.splitlines(keepends=True) if not _TALK.search(line)]
            sys.stderr.write("".join(rest))


def ran(folder: Path) -> list[Node]:
    """The nodes in the profiles that `folder` has, one file a pass, each node once."""
    found: dict[str, Node] = {}
    for file in sorted(folder.glob("*.json")):
        for event in json.loads(file.read_text()):
            if event.get("cat") == "Node" and event["name"].endswith(_ENDS):
                name, args = event["name"].removesuffix(_ENDS), event["args"]
                types = [next(iter(each), "") for each in args.get("input_type_shape") or [{}]]
                found[name] = Node(name, args["op_name"], args["provider"], types[0])
    return list(found.values())


def placed(nodes: Sequence[Node]) -> str:
    counts = Counter(node.provider for node in nodes)
    return ", ".join(f"{name} {count} of {len(nodes)} nodes" for name, count in counts.most_common())


def check(nodes: Sequence[Node], wanted: str) -> None:
    """UserError unless the provider `wanted` ran the model, and the CPU no part of it.

    The CPU may have what ONNX Runtime keeps there by itself, outside of the layers.
    """
    if not nodes:
        raise UserError("ONNX Runtime wrote no profile of a run: there is no proof of where its nodes ran")
    elsewhere = [node for node in nodes if node.provider != wanted and not (_is_kept(node) and wanted != _CPU)]
    if elsewhere:
        named = ", ".join(f"{node.operator} {node.name}" for node in elsewhere[:_NAMED_MOST])
        raise UserError(f"ONNX Runtime fell back from {wanted}: {placed(nodes)}, first {named}")


def _is_kept(node: Node) -> bool:
    return node.provider == _CPU and node.operator in _BOOKKEEPING and not _COMPUTES.search(node.name)


def told(nodes: Sequence[Node]) -> dict[str, str]:
    """Receipts of what ran: operators that multiply by weights, attention, activation types, providers."""
    heavy = [node for node in nodes if re.search(r"MatMul|Gemm|MoE", node.operator)]
    attention = [node for node in nodes if "Attention" in node.operator]
    types = {"float32" if node.dtype == "float" else node.dtype for node in heavy}
    return {
        "kernel": _counted(node.operator for node in heavy),
        "attention": _counted(node.operator for node in attention),
        "compute_dtype": ", ".join(sorted(types)),
        "execution_provider": placed(nodes),
    }


def stored(file: Path) -> dict[str, Any]:
    """Of the model's file: bytes and types of its constants, and what its kernels may round to."""
    import onnx

    graph = onnx.load(str(file), load_external_data=False).graph
    sizes: Counter[str] = Counter()
    users: dict[str, set[str]] = {}
    for node in graph.node:
        for name in node.input:
            users.setdefault(name, set()).add(node.op_type)
    looked_up = 0  # bytes of constants that only rows are taken of
    for held in graph.initializer:
        kind = onnx.helper.tensor_dtype_to_np_dtype(held.data_type)
        bits = 4 if str(kind) in ("int4", "uint4") else 8 * kind.itemsize
        size = math.prod(held.dims) * bits // 8
        sizes[str(kind)] += size
        looked_up += size if users.get(held.name, set()) <= _LOOKUPS else 0
    settings: list[Mapping[str, Any]] = [
        {a.name: a.i for a in node.attribute} for node in graph.node if node.op_type == "MatMulNBits"
    ]
    every = sum(sizes.values())
    shares = [f"{name} {size / every:.0%}" for name, size in sizes.most_common() if size * 1000 >= every]
    return {
        "bytes": every,
        "looked_up": looked_up,
        "dtypes": ", ".join(shares),
        "packed": _counted(f"{said['bits']} bits in blocks of {said['block_size']}" for said in settings),
        "levels": sorted({int(said.get("accuracy_level", 0)) for said in settings}),
    }


def _counted(names: Iterator[str] | Sequence[str]) -> str:
    return ", ".join(f"{name} x{n}" for name, n in Counter(names).most_common())
