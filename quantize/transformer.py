"""A model in transformers, for methods that change its weights: in float32, and rounded once, on saving."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from bench.contract import phase
from bench.contract.errors import UserError
from bench.formats import folder as model_folder
from quantize import checkpoint
from quantize.first_token import replaced

BATCH = 8  # calibration sequences in a forward pass
_Call = tuple[tuple[Any, ...], dict[str, Any]]  # what a layer is called with after its hidden states


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
    """The causal language model, float32 on `device`, in eval mode; GPT-2's Conv1D layers as linear ones."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    model = load_stored(folder, "float32", device)
    _transpose(model, to_linear=True)
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
    _transpose(model, to_linear=False)
    model.save_pretrained(out)
    checkpoint.complete(folder, out, dtype, changes or {})


def _transpose(model: Any, *, to_linear: bool) -> None:
    """Put a linear layer, whose weight is [out, in], in place of each Conv1D, whose weight is [in, out]; or back."""
    from torch.nn import Linear, Parameter
    from transformers.pytorch_utils import Conv1D

    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if not (isinstance(layer, Conv1D) if to_linear else getattr(layer, "is_conv1d", False)):
                continue
            inputs, outputs = layer.weight.shape if to_linear else layer.weight.shape[::-1]
            other = Linear(inputs, outputs) if to_linear else Conv1D(outputs, inputs)
            other.weight, other.bias = Parameter(layer.weight.data.T.contiguous()), layer.bias
            other.is_conv1d = to_linear
            setattr(parent, name, other.train(layer.training))


def blocks(model: Any) -> tuple[str, Any]:
    """The name and the list of the transformer's layers: the longest list of modules that is in no other (experts)."""
    from torch.nn import ModuleList

    lists = [
        (name, m)
        for name, m in model.named_modules()
        if isinstance(m, ModuleList) and len(m) and not any(part.isdecimal() for part in name.split("."))
    ]
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
    states, arguments = _inputs(model, layers, ids, device)
    for i, layer in enumerate(phase.each(layers, "layer {n} of {total}")):

        def run(layer: Any = layer, states: list[Any] = states, its: list[_Call] = arguments[i]) -> list[Any]:
            with torch.no_grad():
                outputs = [layer(state, *rest, **kwargs) for state, (rest, kwargs) in zip(states, its, strict=True)]
            return [output[0] if isinstance(output, tuple) else output for output in outputs]

        yield f"{name}.{i}", layer, run
        states = run()


def _inputs(
    model: Any, layers: Sequence[Any], ids: Sequence[Sequence[int]], device: str
) -> tuple[list[Any], list[list[_Call]]]:
    """The first layer's hidden states, a batch each; and for each layer what else it is called with, a batch each.

    Masks and rotary positions are the first layer's in all, unless a model has layers of several kinds (Gemma 3): then
    the text passes all of them once more.
    """
    import torch

    states: list[Any] = []
    calls: list[list[_Call]] = [[] for _ in layers]
    kinds = getattr(model.config, "layer_types", None) or ()
    is_uniform = len(set(kinds)) <= 1

    def record(i: int, _module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if i == 0:
            states.append(args[0] if args else kwargs["hidden_states"])
        calls[i].append((args[1:], {k: v for k, v in kwargs.items() if k != "hidden_states"}))
        if is_uniform:
            raise _FirstLayerReachedError

    with torch.no_grad(), ExitStack() as hooks:
        for i, layer in enumerate(layers[:1] if is_uniform else layers):
            hooks.enter_context(layer.register_forward_pre_hook(partial(record, i), with_kwargs=True))
        for start in range(0, len(ids), BATCH):
            with suppress(_FirstLayerReachedError):
                model(input_ids=torch.tensor(ids[start : start + BATCH], device=device), use_cache=False)
    return states, [calls[0]] * len(layers) if is_uniform else calls


class _FirstLayerReachedError(Exception):
    """The first layer's input is known; the rest of the model need not be computed."""
