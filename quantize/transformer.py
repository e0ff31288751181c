"""An unquantized model in transformers, for methods that change its weights: loaded, walked, written.

Weights are changed in float32 whatever they are stored in, and rounded once, when they are written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.contract.errors import UserError
from bench.formats import folder as model_folder
from quantize import checkpoint

BATCH = 8  # sequences of calibration computed at a time


def load(folder: Path, device: str) -> Any:
    """The causal language model, float32 on `device`, in eval mode."""
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging as chatter

    chatter.disable_progress_bar()
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype="float32", attn_implementation="sdpa", local_files_only=True, trust_remote_code=False
    )
    model.config.use_cache = False
    return model.to(device).eval()


def save(model: Any, folder: Path, out: Path, dtype: str, changes: Mapping[str, Any] | None = None) -> None:
    """Write the weights as `dtype` (auto: as `folder` stores them) with the files of `folder` around them.

    `changes` are laid over its config.json. UserError where a weight does not fit the type.
    """
    import torch

    settings = model_folder.read_config(folder)
    dtype = model_folder.stored_dtype(settings) if dtype == "auto" else dtype
    model = model.to(getattr(torch, dtype))
    for name, weight in model.named_parameters():
        if not torch.isfinite(weight).all():
            raise UserError(f"{name} is not finite in {dtype}: use another dtype, or train more gently")
    model.save_pretrained(out)
    checkpoint.carry(folder, out)
    named = checkpoint.with_dtype({"dtype": dtype, **settings}, dtype)
    checkpoint.write_config(out, {**named, **(changes or {})})


def blocks(model: Any) -> tuple[str, Any]:
    """The name and the list of the transformer's layers: the longest list of equal modules there is."""
    from torch.nn import ModuleList

    found = [(name, m) for name, m in model.named_modules() if isinstance(m, ModuleList) and len(m)]
    if not found:
        raise UserError(f"{type(model).__name__} has no list of layers, which pruning goes through")
    return max(found, key=lambda pair: len(pair[1]))


def linears(module: Any) -> dict[str, Any]:
    """The linear layers inside, by name."""
    from torch.nn import Linear

    return {name: m for name, m in module.named_modules() if isinstance(m, Linear)}


@contextmanager
def watched(layers: Mapping[str, Any], see: Callable[[str, Any, Any], None]) -> Iterator[None]:
    """Call `see(name, input, output)` whenever a layer is computed; inputs as [tokens, in]."""

    def hook(name: str) -> Callable[[Any, Any, Any], None]:
        def seen(module: Any, given: Any, made: Any) -> None:
            del module
            see(name, given[0].detach().flatten(0, -2), made.detach())

        return seen

    handles = [layer.register_forward_hook(hook(name)) for name, layer in layers.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def block_by_block(model: Any, ids: Sequence[Sequence[int]], device: str) -> Iterator[tuple[str, Any, Any]]:
    """Each layer's name, the layer, and a function that runs the calibration text through it.

    The text comes as the layers before have left it, after whatever was done to them while they were held.
    """
    import torch

    name, layers = blocks(model)
    batches = [ids[i : i + BATCH] for i in range(0, len(ids), BATCH)]
    states: list[Any] = []
    others: list[dict[str, Any]] = []

    def first(module: Any, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        del module
        states.append(given[0] if given else named["hidden_states"])
        others.append({k: v for k, v in named.items() if k != "hidden_states"})
        raise _EnoughError

    handle = layers[0].register_forward_pre_hook(first, with_kwargs=True)
    with torch.no_grad():
        for batch in batches:
            try:
                model(input_ids=torch.tensor(batch, device=device), use_cache=False)
            except _EnoughError:
                continue
    handle.remove()

    for i, layer in enumerate(layers):

        def run(layer: Any = layer, states: list[Any] = states) -> list[Any]:
            with torch.no_grad():
                made = [layer(state, **other) for state, other in zip(states, others, strict=True)]
            return [state[0] if isinstance(state, tuple) else state for state in made]

        yield f"{name}.{i}", layer, run
        states = run()


class _EnoughError(Exception):
    """The first layer's input was seen; the rest of the model need not be computed."""
