"""What ONNX Runtime reports of a session: threads (load log); operator, provider, types of nodes (profile)."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.contract.errors import UserError
from bench.engines._receipts import counts, shares

# What ONNX Runtime keeps on the CPU by itself, wherever the rest runs: the arithmetic of shapes and lengths.
_BOOKKEEPING = re.compile(
    r"Shape|Size|Gather|Cast|Add|Sub|Mul|Div|ReduceSum|Concat|Slice|Squeeze|Unsqueeze|Range|Reshape|ConstantOfShape"
    r"|Equal|Greater|Where|Expand|If"
)
_COMPUTES = re.compile(r"layers\.\d|embed|lm_head")  # in the name of a node: it works on activations
_POOL = re.compile(r"intra_op_param:OrtThreadPoolParams \{ thread_pool_size: (\d+)")
VERBOSE = re.compile(r"\[[VI]:onnxruntime")
_CPU = "CPUExecutionProvider"
_KERNEL_TIME = "_kernel_time"
# Operators that take rows of their constants: embeddings, and the rotations that attention is given.
_LOOKUPS = frozenset({"Gather", "GatherBlockQuantized", "GroupQueryAttention", "RotaryEmbedding"})
_MAX_NAMED = 3


@dataclass(frozen=True)
class Node:
    """A node that ran: by which operator, where, and the type of its first input ('' where it has none)."""

    name: str
    operator: str
    provider: str
    dtype: str = ""


def pool_threads(log: str) -> int:
    """Of the pool that computes; 0 where the log does not say."""
    return int(match[1]) if (match := _POOL.search(log)) else 0


def profiled_nodes(folder: Path) -> list[Node]:
    """The nodes in the profiles that `folder` has, one file a pass, each node once."""
    nodes: dict[str, Node] = {}
    for file in sorted(folder.glob("*.json")):
        for event in json.loads(file.read_text()):
            if event.get("cat") == "Node" and event["name"].endswith(_KERNEL_TIME):
                name, args = event["name"].removesuffix(_KERNEL_TIME), event["args"]
                types = [next(iter(each), "") for each in args.get("input_type_shape") or [{}]]
                nodes[name] = Node(name, args["op_name"], args["provider"], types[0])
    return list(nodes.values())


def nodes_by_provider(nodes: Sequence[Node]) -> str:
    providers = Counter(node.provider for node in nodes)
    return ", ".join(f"{name} {count} of {len(nodes)} nodes" for name, count in providers.most_common())


def check_provider(nodes: Sequence[Node], provider: str) -> None:
    """UserError unless the provider ran the model; the CPU may run only ONNX Runtime's own bookkeeping."""
    if not nodes:
        raise UserError("ONNX Runtime wrote no profile of a run: there is no proof of where its nodes ran")
    elsewhere = [n for n in nodes if n.provider != provider and not (provider != _CPU and _is_bookkeeping(n))]
    if elsewhere:
        named = ", ".join(f"{node.operator} {node.name}" for node in elsewhere[:_MAX_NAMED])
        raise UserError(f"ONNX Runtime fell back from {provider}: {nodes_by_provider(nodes)}, first {named}")


def _is_bookkeeping(node: Node) -> bool:
    return bool(node.provider == _CPU and _BOOKKEEPING.fullmatch(node.operator) and not _COMPUTES.search(node.name))


def of_nodes(nodes: Sequence[Node]) -> dict[str, str]:
    """Receipts of what ran: operators that multiply by weights, attention, activation types, providers."""
    products = [node for node in nodes if re.search(r"MatMul|Gemm|MoE", node.operator)]
    dtypes = {"float32" if node.dtype == "float" else node.dtype for node in products}
    return {
        "kernel": counts(node.operator for node in products),
        "attention": counts(node.operator for node in nodes if "Attention" in node.operator),
        "compute_dtype": ", ".join(sorted(dtypes)),
        "execution_provider": nodes_by_provider(nodes),
    }


@dataclass(frozen=True)
class StoredWeights:
    """Of a model's file: bytes and types of its constants, and what its kernels may round to.

    `looked_up`: bytes of constants that only rows are taken of. `packed`: how MatMulNBits packs its weights.
    """

    size: int
    looked_up: int
    dtypes: str
    packed: str
    accuracy_levels: tuple[int, ...]


def stored_weights(file: Path) -> StoredWeights:
    import onnx

    graph = onnx.load(str(file), load_external_data=False).graph
    users: dict[str, set[str]] = {}
    for node in graph.node:
        for name in node.input:
            users.setdefault(name, set()).add(node.op_type)
    sizes: Counter[str] = Counter()
    looked_up = 0
    for constant in graph.initializer:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(constant.data_type)
        bits = 4 if str(dtype) in ("int4", "uint4") else 8 * dtype.itemsize
        size = math.prod(constant.dims) * bits // 8
        sizes[str(dtype)] += size
        looked_up += size if users.get(constant.name, set()) <= _LOOKUPS else 0
    products: list[Mapping[str, Any]] = [
        {a.name: a.i for a in node.attribute} for node in graph.node if node.op_type == "MatMulNBits"
    ]
    packed = counts(f"{product['bits']} bits in blocks of {product['block_size']}" for product in products)
    levels = tuple(sorted({int(product.get("accuracy_level", 0)) for product in products}))
    return StoredWeights(sizes.total(), looked_up, shares(sizes, least=1), packed, levels)
