"""What a loaded Transformers model is made of: tensors, kernels, dtypes, as they really are."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from bench.engines._receipts import counts, dtype_name, shares
from bench.engines.hf import packed


def tensors(model: Any) -> Iterator[Any]:
    """Each tensor once, with the scales bitsandbytes hangs on weights, and those torchao's subclasses consist of."""
    import torch

    addresses: set[int] = set()
    for tensor in itertools.chain(model.parameters(), model.buffers()):
        state = getattr(tensor, "quant_state", None)
        scales = list(state.as_dict(packed=False).values()) if state is not None else []
        for part in (*_parts(tensor), *scales, getattr(tensor, "SCB", None)):
            if isinstance(part, torch.Tensor) and part.nbytes and part.data_ptr() not in addresses:
                addresses.add(part.data_ptr())
                yield part


def _parts(tensor: Any) -> Iterator[Any]:
    if not is_composed(tensor):
        yield tensor
        return
    for name in tensor.__tensor_flatten__()[0]:
        yield from _parts(getattr(tensor, name))


def unread_bytes(model: Any) -> dict[str, int]:
    """`unread_bytes`: embeddings, of which a step looks up rows; not one that the head shares."""
    head = model.get_output_embeddings()
    if getattr(head, "weight", None) is None:
        return {}
    shared = {tensor.data_ptr() for tensor in _parts(head.weight)}
    tables = [module for module in model.modules() if type(module).__name__.endswith("Embedding")]
    weights = [t for module in tables if hasattr(module, "weight") for t in _parts(module.weight)]
    return {"unread_bytes": sum(t.nbytes for t in weights if t.data_ptr() not in shared)}


def is_composed(tensor: Any) -> bool:
    """Whether a tensor is made of others, as torchao's are."""
    return hasattr(tensor, "__tensor_flatten__")


def linears(model: Any) -> list[Any]:
    """Leaves that multiply by a weight matrix: Linear4bit, TorchAtenLinear, experts, GPT-2's Conv1D."""
    kinds = ("Linear", "Experts", "Conv1D")
    return [
        module
        for module in model.modules()
        if next(module.children(), None) is None and any(kind in type(module).__name__ for kind in kinds)
    ]


def kernels(modules: Sequence[Any]) -> str:
    """'Linear4bit x35, Linear x1'; of torchao 'Linear[IntxUnpackedToInt8Tensor int4] x35, Linear x1'."""
    return counts(type(module).__name__ + _weight_class(getattr(module, "weight", None)) for module in modules)


def _weight_class(weight: Any) -> str:
    if not is_composed(weight):
        return ""
    target = getattr(weight, "target_dtype", None)
    return f"[{type(weight).__name__}{f' {dtype_name(target)}' if target is not None else ''}]"


def product_dtype(model: Any, modules: Sequence[Any], activations: str) -> dict[str, str]:
    """`product_dtype`, where layers round their inputs and so do not multiply in the activations' type."""
    if any(type(module).__name__ == "Linear8bitLt" for module in modules):
        return {"product_dtype": "int8"}
    if kernels := packed.rounded(modules):
        return {"product_dtype": f"bfloat16 in {', '.join(kernels)}, else {compute_dtypes(model, modules)}"}
    return {"product_dtype": activations} if activations else {}


def compute_dtypes(model: Any, modules: Sequence[Any]) -> str:
    """The dtypes of activations: the embedding's, and those that quantized layers name as theirs."""
    dtypes = {model.get_input_embeddings().weight.dtype}
    dtypes |= {m.compute_dtype for m in modules if getattr(m, "compute_dtype", None) is not None}
    return ", ".join(sorted(map(dtype_name, dtypes)))


def cache_tensors(cache: Any) -> list[Any]:
    """Keys, values and whatever else the layers of a Transformers cache hold."""
    layers = getattr(cache, "layers", ())
    return [value for layer in layers for value in vars(layer).values() if hasattr(value, "nbytes")]


def kv_token_bytes(tensors: Iterable[Any]) -> int:
    """Bytes of one token's keys and values, in tensors of [batch, heads, tokens, size]; others have none."""
    return sum(t.nbytes // (t.shape[0] * t.shape[2]) for t in tensors if t.dim() == 4 and t.shape[2])


def dtype_shares(sizes: Iterable[tuple[Any, int]]) -> str:
    """Of (dtype, bytes), those under a thousandth left out."""
    totals: Counter[str] = Counter()
    for dtype, size in sizes:
        totals[dtype_name(dtype)] += size
    return shares(totals, least=1)
