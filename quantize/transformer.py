"""A model in transformers, for methods that change its weights: in float32, and rounded once, on saving."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from bench.contract import phase
from bench.contract.errors import UserError
from bench.formats import folder as model_folder
from quantize import checkpoint
from quantize.first_token import replaced

BATCH = 8  # calibration sequences in a forward pass


def half_dtype(folder: Path, default: str = "float16") -> str:
    """The 16-bit type that the model is stored in; `default` for one stored in 32 bits."""
    stored = model_folder.stored_dtype(folder)
    return stored if stored in model_folder.HALF else default


def compute_dtype(folder: Path, choice: str, device: str, default: str) -> str:
    """The type that the unquantized part is stored and computed in; `choice` auto: float32 on a CPU, else 16 bits."""
    if choice != "auto":
        return choice
    return "float32" if device == "cpu" else half_dtype(folder, default)


def load_stored(folder: Path, dtype: str, device: str, quantization: Any = None) -> Any:
    """The causal language model from safetensors as `dtype` on `device`, with `quantization` applied while loading."""
    import torch
    from transformers import AutoModelForCausalLM, core_model_loading

    model_folder.weight_files(folder)
    bar = phase.bar(f"{'loading' if quantization is None else 'quantizing'}: {{done}} of {{total}} tensors")
    with replaced(core_model_loading, "tqdm", bar):
        return AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=getattr(torch, dtype),
            device_map={"": device},
            quantization_config=quantization,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
        )


def load(folder: Path, device: str) -> Any:
    """The causal language model, float32 on `device`, in eval mode."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    model = load_stored(folder, "float32", device)
    model.config.use_cache = False
    return model.eval()


def save(model: Any, folder: Path, out: Path, dtype: str, changes: Mapping[str, Any] | None = None) -> None:
    """Write the weights as `dtype` (auto: as stored), `changes` to the config; UserError where they do not fit."""
    import torch

    phase.begin("writing the artifact")
    dtype = model_folder.stored_dtype(folder) if dtype == "auto" else dtype
    model = model.to(getattr(torch, dtype))
    for name, weight in model.named_parameters():
        if not torch.isfinite(weight).all():
            raise UserError(f"{name} is not finite in {dtype}: use another dtype, or train more gently")
    model.save_pretrained(out)
    checkpoint.complete(folder, out, dtype, changes or {})


def blocks(model: Any) -> tuple[str, Any]:
    """The name and the list of the transformer's layers: the longest list of equal modules there is."""
    from torch.nn import ModuleList

    lists = [(name, m) for name, m in model.named_modules() if isinstance(m, ModuleList) and len(m)]
    if not lists:
        raise UserError(f"{type(model).__name__} has no list of layers: pruning goes layer by layer")
    return max(lists, key=lambda named: len(named[1]))


def linears(module: Any) -> dict[str, Any]:
    """The linear layers inside, by name."""
    from torch.nn import Linear

    return {name: m for name, m in module.named_modules() if isinstance(m, Linear)}


@contextmanager
def watched(layers: Mapping[str, Any], watch: Callable[[str, Any], None]) -> Iterator[None]:
    """Call `watch(name, inputs)` when a layer is computed; inputs [windows, tokens, in], of experts [tokens, in]."""

    def hook(name: str) -> Callable[[Any, Any], None]:
        return lambda _, inputs: watch(name, inputs[0].detach())

    with ExitStack() as hooks:
        for name, layer in layers.items():
            hooks.enter_context(layer.register_forward_pre_hook(hook(name)))
        yield


def block_by_block(model: Any, ids: Sequence[Sequence[int]], device: str) -> Iterator[tuple[str, Any, Any]]:
    """Each layer's name, the layer, and a run of the text through it, after what the caller changed before it."""
    import torch

    name, layers = blocks(model)
    batches = [ids[i : i + BATCH] for i in range(0, len(ids), BATCH)]
    states: list[Any] = []
    arguments: list[dict[str, Any]] = []

    def stop(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        states.append(args[0] if args else kwargs["hidden_states"])
        arguments.append({k: v for k, v in kwargs.items() if k != "hidden_states"})
        raise _FirstLayerReachedError

    with torch.no_grad(), layers[0].register_forward_pre_hook(stop, with_kwargs=True):
        for batch in batches:
            try:
                model(input_ids=torch.tensor(batch, device=device), use_cache=False)
            except _FirstLayerReachedError:
                continue

    for i, layer in enumerate(phase.each(layers, "layer {n} of {total}")):

        def run(layer: Any = layer, states: list[Any] = states) -> list[Any]:
            with torch.no_grad():
                outputs = [layer(state, **kwargs) for state, kwargs in zip(states, arguments, strict=True)]
            return [output[0] if isinstance(output, tuple) else output for output in outputs]

        yield f"{name}.{i}", layer, run
        states = run()


class _FirstLayerReachedError(Exception):
    """The first layer's input is known; the rest of the model need not be computed."""
