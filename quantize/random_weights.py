"""Weights for an architecture: seeded random numbers, at which a wrong position, norm or window changes every logit.

`python -m quantize.random_weights CONFIG_FOLDER OUT`, in the environment hf: the model that config.json describes, as
Transformers itself builds and saves it. Weights at a library's own scale (0.02) give logits so flat that nothing shows.
"""

from __future__ import annotations

import sys
import zlib
from pathlib import Path
from typing import Any

_GAIN = 1.3  # of a linear layer: what its outputs have for inputs of deviation 1, so that attention is uneven
_LOGITS = 3.0  # deviation of the logits
_SMALL = 0.1  # of norms, biases and learned positions


def main(folder: Path, out: Path) -> None:
    """Write the model in float32 into `out`."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder), dtype=torch.float32)
    fill(model)
    model.save_pretrained(out)


def fill(model: Any) -> None:
    """Draw the model's parameters anew; what belongs to a state space or a convolution stays as the library drew it."""
    import torch

    head = model.get_output_embeddings().weight
    embedding = model.get_input_embeddings().weight
    scale = float(getattr(model.get_input_embeddings(), "embed_scale", 1.0))  # of Gemma's embeddings
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(zlib.crc32(name.encode())))
            if parameter is head or (parameter is embedding and embedding is head):
                parameter.copy_(noise * _LOGITS / head.shape[1] ** 0.5 / scale)
            elif parameter is embedding:
                parameter.copy_(noise)
            elif parameter.dim() == 1:
                parameter.add_(noise * _SMALL)
            elif (inputs := _inputs(model, name, parameter)) is not None:
                parameter.copy_(noise * _GAIN / inputs**0.5)
            elif isinstance(_module(model, name), torch.nn.Embedding):
                parameter.copy_(noise * _SMALL)
        if scale != 1:  # else a token's own embedding outweighs the layers, and each token predicts itself
            model.get_decoder().norm.weight.add_(scale)


def _inputs(model: Any, name: str, parameter: Any) -> int | None:
    """How many inputs a linear weight has; None for what is none. Experts of one layer are stored as one tensor."""
    from torch.nn import Linear
    from transformers.pytorch_utils import Conv1D

    module = _module(model, name)
    if isinstance(module, Conv1D):
        return int(parameter.shape[0])
    is_linear = isinstance(module, Linear) or (parameter.dim() == 3 and "experts" in name) or "router" in name
    return int(parameter.shape[-1]) if is_linear or name.endswith("gate.weight") else None


def _module(model: Any, name: str) -> Any:
    return model.get_submodule(name.rpartition(".")[0])


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
