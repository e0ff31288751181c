"""What a loaded Transformers model is made of: tensors, kernels, dtypes, as they really are."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any


def tensors(model: Any) -> Iterator[Any]:
    """Each tensor the model keeps, once, with the scales that bitsandbytes hangs on its weights.

    torchao's tensors hold others: those are what is kept.
    """
    import torch

    seen: set[int] = set()
    for tensor in itertools.chain(model.parameters(), model.buffers()):
        state = getattr(tensor, "quant_state", None)
        beside = list(state.as_dict(packed=False).values()) if state is not None else []
        beside.append(getattr(tensor, "SCB", None))
        for each in (*_inner(tensor), *beside):
            if isinstance(each, torch.Tensor) and each.nbytes and each.data_ptr() not in seen:
                seen.add(each.data_ptr())
                yield each


def _inner(tensor: Any) -> Iterator[Any]:
    if not is_composed(tensor):
        yield tensor
        return
    for name in tensor.__tensor_flatten__()[0]:
        yield from _inner(getattr(tensor, name))


def unread(model: Any) -> dict[str, int]:
    """`unread_bytes`: embeddings, of which a step looks up rows; not one that the head shares."""
    head = model.get_output_embeddings()
    if getattr(head, "weight", None) is None:
        return {}
    shared = {tensor.data_ptr() for tensor in _inner(head.weight)}
    tables = [module for module in model.modules() if type(module).__name__.endswith("Embedding")]
    held = [t for module in tables if hasattr(module, "weight") for t in _inner(module.weight)]
    return {"unread_bytes": sum(t.nbytes for t in held if t.data_ptr() not in shared)}


def is_composed(tensor: Any) -> bool:
    """A tensor that is made of others, as torchao's are."""
    return hasattr(tensor, "__tensor_flatten__")


def linears(model: Any) -> list[Any]:
    """Leaves that multiply by a weight matrix: Linear4bit, TorchAtenLinear, experts, GPT-2's Conv1D."""
    words = ("Linear", "Experts", "Conv1D")
    return [
        module
        for module in model.modules()
        if next(module.children(), None) is None and any(w in type(module).__name__ for w in words)
    ]


def kernels(modules: Sequence[Any]) -> str:
    """'Linear4bit x35, Linear x1'; of torchao 'Linear[IntxUnpackedToInt8Tensor int4] x35, Linear x1'."""
    found = Counter(type(module).__name__ + _kind(getattr(module, "weight", None)) for module in modules)
    return ", ".join(f"{name} x{n}" for name, n in found.most_common())


def _kind(weight: Any) -> str:
    if not is_composed(weight):
        return ""
    target = getattr(weight, "target_dtype", None)
    return f"[{type(weight).__name__}{f' {short(target)}' if target is not None else ''}]"


def products(modules: Sequence[Any], activations: str) -> dict[str, str]:
    """`product_dtype`, where layers round their inputs and so do not multiply in the activations' type."""
    if any(type(module).__name__ == "Linear8bitLt" for module in modules):
        return {"product_dtype": "int8"}
    return {"product_dtype": activations} if activations else {}


def computed(model: Any, modules: Sequence[Any]) -> str:
    """The dtypes of activations: the embedding's, and what quantized layers say they compute in."""
    found = {model.get_input_embeddings().weight.dtype}
    found |= {m.compute_dtype for m in modules if getattr(m, "compute_dtype", None) is not None}
    return ", ".join(sorted(map(short, found)))


def cache_tensors(cache: Any) -> list[Any]:
    """Keys, values and whatever else the layers of a Transformers cache keep."""
    layers = getattr(cache, "layers", ())
    return [value for layer in layers for value in vars(layer).values() if hasattr(value, "nbytes")]


def shares(sizes: Sequence[tuple[Any, int]]) -> str:
    """'int32 74%, float32 26%': the dtypes by their bytes, those under a thousandth left out."""
    total: Counter[str] = Counter()
    for dtype, size in sizes:
        total[short(dtype)] += size
    every = sum(total.values())
    return ", ".join(f"{name} {size / every:.0%}" for name, size in total.most_common() if size * 1000 >= every)


def short(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.")
