"""Why options cannot work on a model: the reasons that several methods share, each a sentence or None."""

from __future__ import annotations

import math

from bench.contract.record import Hardware, Source
from bench.formats import folder as model_folder

_CONV1D = frozenset({"gpt2", "openai-gpt"})
_NORMS_BEHIND = frozenset({"olmo2", "olmo3", "exaone4"})  # attention and MLP read what no norm has made


def sample_length(source: Source, length: int) -> str | None:
    """Calibration samples of `length` tokens have to fit into the model's context."""
    context = model_folder.context_length(source.config)
    if context and length > context:
        return f"calibration samples of {length} tokens are longer than the model's context of {context}"
    return None


def batch_size(size: int) -> str | None:
    return None if size >= 1 else f"batch_size {size} is not at least 1"


def first_token_weight(weight: float) -> str | None:
    return (
        None
        if 0 < weight < math.inf
        else f"first_token_weight {weight:g} is not a number above 0; 1 is as others count"
    )


def no_weight(weight: float, why: str) -> str | None:
    """A weight for first tokens where no error over tokens is minimized, which would change nothing."""
    return None if weight == 1 else f"first_token_weight {weight:g} would change nothing: {why}"


def damp_percent(share: float) -> str | None:
    return None if 0 < share < 1 else f"damp_percent {share:g} is not between 0 and 1"


def group_size(source: Source, size: int) -> str | None:
    """Groups of `size` inputs (-1: whole rows) have to divide every linear layer but the head."""
    reason = _indivisible(source, size) if size != -1 else None
    return f"group_size {reason}" if reason else None


def block_size(source: Source, kind: str, size: int, instead: str) -> str | None:
    """As `group_size`, of blocks that the format `kind` fixes; `instead`: one that such a layer can have."""
    if reason := _indivisible(source, size):
        return f"{kind} has blocks of {size} weights, and {reason}: use {instead}"
    return None


def _indivisible(source: Source, size: int) -> str | None:
    for name, (_, inputs) in source.linears.items():
        if inputs % size and not model_folder.is_head(name):
            return f"{size} does not divide the {inputs} inputs of {name}"
    return None


def any_group(source: Source, size: int) -> str | None:
    """As `group_size`, for libraries that leave layers whose inputs it does not divide as they are."""
    if size != -1 and source.linears and all(inputs % size for _, inputs in source.linears.values()):
        return f"group_size {size} divides the inputs of no linear layer"
    return None


def norms_before(source: Source, what: str) -> str | None:
    """Scales of activations are moved into the norm that a layer reads, where there is one."""
    kind = str(source.config.get("model_type"))
    if kind not in _NORMS_BEHIND:
        return None
    return f"{what} divides the norm before a layer by its scales, and {kind} has its norms behind them: use gptq"


def reads_weights(source: Source) -> str | None:
    """Mamba in Transformers multiplies by the weights of a layer itself, which packed ones do not allow."""
    if str(source.config.get("model_type")) not in ("mamba", "falcon_mamba"):
        return None
    return "Transformers' Mamba reads the weight of dt_proj itself, which only a float one allows: use gguf"


def is_router(name: str) -> bool:
    """Whether a linear layer of this name chooses a token's experts (Mixtral, Qwen): libraries leave it as it is."""
    return name.endswith(".gate")


def linear_modules(source: Source, library: str) -> str | None:
    """GPT-2's layers are Transformers' Conv1D, inputs x outputs: libraries that look for torch.nn.Linear leave them."""
    model_type = str(source.config.get("model_type"))
    if model_type in _CONV1D:
        return f"{library} quantizes torch.nn.Linear alone, and {model_type} has Conv1D in its place: use bnb or gguf"
    return None


def compute_capability(hardware: Hardware, library: str, newest: tuple[int, int]) -> str | None:
    """Every GPU has to be one that the library's torch has kernels for."""
    for gpu in hardware.gpus:
        if tuple(int(part) for part in gpu.compute_capability.split(".")) > newest:
            limit = ".".join(map(str, newest))
            return f"{library}'s torch has kernels up to compute capability {limit}: use backend: gptqmodel"
    return None
