"""AWQ: channels that large activations pass through are scaled up before rounding, and so lose less to it.

Lin et al., 2023 (arXiv:2306.00978), as GPTQModel implements it, or AutoAWQ, in AutoAWQ's GEMM layout.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bench.contract.record import Hardware, Source
from bench.formats import architecture
from bench.formats import folder as model_folder
from quantize import calibration, option_checks
from quantize.backends import archived, gptqmodel, split_layers
from quantize.first_token import replaced

ENV = "hf"
VERSION = 1
READS = frozenset({"hf"})
WRITES = "awq"
weight_bits = gptqmodel.weight_bits
OPTIONS_SINCE = frozenset({"backend", "bos", "first_token_weight"})


@dataclass(frozen=True)
class Options(calibration.WeightedOptions):
    """`symmetric` False stores a zero point per group, as AWQ checkpoints usually do.

    16 sequences are enough by the paper; the search runs each block some twenty times over all samples.
    `batch_size` is 1 where layers have a window that is shorter than a sequence: gptqmodel joins a batch's sequences
    into one, and has no mask for that. `backend` autoawq: the archived library, which also clips weights.
    """

    bits: Literal[4] = 4
    group_size: Literal[-1, 16, 32, 64, 128] = 128
    symmetric: bool = False
    samples: int = 16
    batch_size: int = 8
    backend: Literal["gptqmodel", "autoawq"] = "gptqmodel"


def env(options: Options) -> str:
    return "autoawq" if options.backend == "autoawq" else ENV


def unsupported(options: Options, source: Source, hardware: Hardware) -> str | None:
    reason = option_checks.batch_size(options.batch_size)
    if reason := reason or option_checks.first_token_weight(options.first_token_weight):
        return reason
    for name, (outputs, _) in source.linears.items():
        if outputs % 8 and not (model_folder.is_head(name) or option_checks.is_router(name)):
            return f"the GEMM layout packs 8 outputs in a word, and {name} has {outputs}"
        if options.backend == "gptqmodel" and outputs % 64 and _is_clipped(name):
            return (
                f"gptqmodel's AWQ clips weights in batches of 64 outputs, and {name} has {outputs}: use another method"
            )
    if options.backend == "autoawq":
        reason = archived.awq_unsupported(hardware, options.group_size, symmetric=options.symmetric)
    reason = reason or gptqmodel.unsupported_reason(source, hardware, options)
    reason = reason or option_checks.linear_modules(source, "AWQ's search") or _activation_reason(source)
    return reason or option_checks.norms_before(source, "AWQ")


def _activation_reason(source: Source) -> str | None:
    if str(source.config.get("model_type")) != "gpt_neox":
        return None
    return "AWQ scales the activation of gpt_neox by a module of its own, which no engine here loads: use gptq"


def _is_clipped(name: str) -> bool:
    """Whether the library looks for a bound of its weights: not of queries and keys, nor of what stays whole."""
    is_whole = model_folder.is_head(name) or option_checks.is_router(name)
    return not is_whole and not any(part in name for part in ("q_", "k_", "attn_q", "attn_k", "query", "key", "Wqkv"))


def apply(folder: Path, options: Options, out: Path, device: str) -> Mapping[str, Any]:
    """Quantize every linear layer of the blocks; scales are folded into the norms before them."""
    text = calibration.from_options(folder, options)
    if options.backend == "autoawq":
        settings = {"w_bit": options.bits, "q_group_size": options.group_size, "zero_point": True, "version": "GEMM"}
        return archived.awq(folder, out, device, text, settings, options.batch_size)
    settings = {"bits": options.bits, "group_size": options.group_size, "sym": options.symmetric}
    batch_size = 1 if _is_masked(folder, options.length) else options.batch_size
    with _float32_search(), _rotary_by_layer(), _norms_of_gemma(), split_layers.phi3_norms():
        facts = gptqmodel.run(folder, out, device, text, "AWQ", settings, batch_size)
    return {**facts, "batch_size": batch_size}


def _is_masked(folder: Path, length: int) -> bool:
    """Whether some layer's attention takes a mask, which causal attention over a whole sequence does not."""
    its = architecture.of_folder(folder)
    return its is not None and 0 < its.window <= length


@contextmanager
def _float32_search() -> Iterator[None]:
    """Let the library search and pack in float32, as a CPU without 16-bit arithmetic must.

    The search restores each weight from `.to(float32).cpu()`, which is no copy of a float32 weight on a CPU: twenty
    trials pile up (KL to the baseline 0.2 instead of 0.002). The packer's class lists 16-bit types alone.
    """
    from gptqmodel.looper.awq_processor import AWQProcessor
    from gptqmodel.nn_modules.qlinear.torch_awq import AwqTorchLinear
    from torch import float32

    dtypes, search = AwqTorchLinear.SUPPORTS_DTYPES, AWQProcessor._compute_best_scale  # noqa: SLF001

    def search_on_copies(self: Any, x: Any, w: Any, mean: Any, inspected: Any, layers: Any, *rest: Any) -> Any:
        for layer in layers:
            layer.weight.detach = layer.weight.data.clone
        try:
            return search(self, x, w, mean, inspected, layers, *rest)
        finally:
            for layer in layers:
                del layer.weight.detach

    AwqTorchLinear.SUPPORTS_DTYPES = [*dtypes, float32]
    AWQProcessor._compute_best_scale = search_on_copies  # noqa: SLF001
    try:
        yield
    finally:
        AwqTorchLinear.SUPPORTS_DTYPES = dtypes
        AWQProcessor._compute_best_scale = search  # noqa: SLF001


@contextmanager
def _rotary_by_layer() -> Iterator[None]:
    """Let the library's search compute rotary positions of the layer's own kind, where a model has several.

    It calls the model's module without saying which layer it is for; Gemma 3's has a base for each kind of layer.
    """
    from gptqmodel.looper.awq_processor import AWQProcessor

    root, quantize = AWQProcessor._get_root_rotary, AWQProcessor._quantize_layer  # noqa: SLF001
    layer_index, by_kind = 0, dict[str, Any]()

    def rotary_of_layer(self: Any) -> Any:
        rotary = root(self)
        if rotary is None or "layer_type" not in inspect.signature(type(rotary).forward).parameters:
            return rotary
        kind = self.model.config.get_text_config().layer_types[layer_index]
        return by_kind.setdefault(kind, _of_kind(rotary, kind))

    def quantize_layer(self: Any, index: int, *rest: Any) -> Any:
        nonlocal layer_index
        layer_index = index
        return quantize(self, index, *rest)

    AWQProcessor._get_root_rotary, AWQProcessor._quantize_layer = rotary_of_layer, quantize_layer  # noqa: SLF001
    try:
        yield
    finally:
        AWQProcessor._get_root_rotary, AWQProcessor._quantize_layer = root, quantize  # noqa: SLF001


@contextmanager
def _norms_of_gemma() -> Iterator[None]:
    """Let the library scale what the MLP of Gemma 2 and 3 reads, and one plus a norm's weight.

    It takes their blocks for Llama's, whose MLP reads the norm behind the attention, and Gemma 3's norm for Llama's.
    """
    from gptqmodel.looper import awq_processor
    from gptqmodel.models.definitions.gemma2 import Gemma2QModel
    from gptqmodel.models.definitions.gemma3 import Gemma3QModel
    from gptqmodel.quantization.awq.quantize import scale
    from transformers.models.gemma3.modeling_gemma3 import Gemma3RMSNorm

    *path, block = Gemma2QModel.module_tree
    behind, before = "post_attention_layernorm", "pre_feedforward_layernorm"
    four_norms = {before if key == behind else key: (f"{before}:!",) if key == behind else block[key] for key in block}
    with ExitStack() as stack:
        for model in (Gemma2QModel, Gemma3QModel):
            stack.enter_context(replaced(model, "module_tree", [*path, four_norms]))
        norms = (scale.Gemma2RMSNorm, Gemma3RMSNorm)
        stack.enter_context(replaced(scale, "Gemma2RMSNorm", norms))
        stack.enter_context(replaced(awq_processor, "apply_scale", _centred(scale.apply_scale, norms)))
        yield


def _centred(apply_scale: Callable[..., None], norms: tuple[type, ...]) -> Callable[..., None]:
    """The function, which divides scales that go into one of these norms by their median over the norm's live channels.

    The library divides them by the root of largest x smallest, and the smallest is next to nothing where a norm holds a
    channel at zero: Gemma's other channels are then scaled some hundredfold, and their norm's weights lie at -1, where
    one plus a number of 16 bits has few digits left. Groups' scales take a common factor, so it costs nothing else.
    """

    def centre(norm: Any, scales: Any) -> Any:
        live = scales[(norm.weight != -1).to(scales.device)]
        return scales / live.median() if len(live) else scales

    def apply_centred(module: Any, searched: Sequence[tuple[str, Any, Any, Any]], **features: Any) -> None:
        before = [module.get_submodule(name) for name, *_ in searched]
        centred = [
            (name, layers, centre(norm, scales) if isinstance(norm, norms) else scales, loss)
            for norm, (name, layers, scales, loss) in zip(before, searched, strict=True)
        ]
        apply_scale(module, centred, **features)

    return apply_centred


def _of_kind(rotary: Any, kind: str) -> Any:
    """The module for layers of one kind, which the library may copy to another device."""
    import torch

    class OfKind(torch.nn.Module):  # type: ignore[misc]  # torch has no types here
        def __init__(self) -> None:
            super().__init__()
            self.rotary = rotary

        @property
        def inv_freq(self) -> Any:
            return next(self.rotary.buffers())

        def forward(self, x: Any, position_ids: Any) -> Any:
            return self.rotary(x, position_ids, kind)

    return OfKind()
