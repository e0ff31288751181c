"""The weights of a GGUF file as modules of a Transformers model, to be put into the unquantized one singly.

Transformers dequantizes them, and undoes what the converter did to their rows.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from bench.contract.errors import UserError, first_line


def matrices(file: Path, model: Any) -> Mapping[str, Any]:
    """Copies of the model's modules whose weight is a matrix of the file; a shared embedding is the head's too."""
    from torch.nn import Parameter

    tensors = _tensors(file, model)
    embedding = next((name for name, m in model.named_modules() if m is model.get_input_embeddings()), "")
    layers = {}
    for name, module in model.named_modules():
        weight: Any = getattr(module, "weight", None)
        if getattr(weight, "ndim", 0) != 2:
            continue
        shares = module is model.get_output_embeddings() and weight is model.get_input_embeddings().weight
        stored = tensors.get(f"{embedding if shares else name}.weight")
        if stored is not None and stored.shape == weight.shape:
            layers[name] = copy.copy(module)
            own = {"weight": Parameter(stored.to(weight.device, weight.dtype), requires_grad=False)}
            layers[name]._parameters = {**module._parameters, **own}  # noqa: SLF001  (of the copy alone)
    return layers


def vectors(file: Path, model: Any) -> Mapping[str, Any]:
    """The file's norms and biases."""
    names = dict(model.named_parameters())
    return {name: t for name, t in _tensors(file, model).items() if name in names and names[name].ndim == 1}


@lru_cache(maxsize=1)
def _tensors(file: Path, model: Any) -> Mapping[str, Any]:
    """float32, by the model's names; UserError for a file in parts, and for what Transformers cannot read."""
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    if "-of-" in file.name:
        raise UserError(f"{file.name} is a part of a split model, whose layers are not read singly: join its parts")
    try:
        tensors: Mapping[str, Any] = load_gguf_checkpoint(str(file), return_tensors=True, model_to_load=model)[
            "tensors"
        ]
    except Exception as error:
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise UserError(f"Transformers cannot read the layers of {file.name} ({reason})") from error
    return tensors
