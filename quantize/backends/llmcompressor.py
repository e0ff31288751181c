"""llm-compressor (github.com/vllm-project/llm-compressor) for methods llmcompressor and sparsegpt: its steps told."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from bench.contract import phase
from bench.formats import folder as model_folder
from quantize import checkpoint
from quantize.first_token import replaced

_EXPERT = re.compile(r"(\.experts\.\d+)\.(gate_proj|up_proj|down_proj)\.")
_MIXTRAL = {"gate_proj": "w1", "down_proj": "w2", "up_proj": "w3"}
_PART = re.compile(r"\((\d+)/(\d+)\): (\w+)")  # "(3/31): Calibrating", of parts that each end in a layer
_BEHIND, _BEFORE_MLP = "post_attention_layernorm", "pre_feedforward_layernorm"
_PASSES = {"Calibrating": 0.0, "Propagating": 0.5}  # of a part: how much of it is done by then


@contextmanager
def watched() -> Iterator[None]:
    """Tell, while it is entered, which part of the model the library calibrates, and the layers that it packs."""
    from compressed_tensors.compressors.model_compressors import model_compressor
    from llmcompressor.pipelines.sequential import pipeline

    with ExitStack() as stack:
        stack.enter_context(replaced(pipeline, "tqdm", _parts()))
        stack.enter_context(replaced(model_compressor, "tqdm", phase.bar("packing: {done} of {total} linear layers")))
        yield


def smoothed_layers(model: Any) -> list[Any]:
    """The library's mappings for SmoothQuant, with the norm that the MLP reads where a block has four.

    For Gemma 2 and 3 it has Llama's, whose MLP reads the norm behind the attention.
    """
    from llmcompressor.modifiers.transform.smoothquant.dynamic_mappings import get_layer_mappings_from_model

    mappings: list[Any] = get_layer_mappings_from_model(model)
    if not any(name.endswith(_BEFORE_MLP) for name, _ in model.named_modules()):
        return mappings
    return [each._replace(smooth_layers=each.smooth_layers.replace(_BEHIND, _BEFORE_MLP)) for each in mappings]


def publish_names(out: Path) -> None:
    """Give Mixtral's experts the names that its checkpoints have, where the library leaves its own."""
    if model_folder.read_config(out).get("model_type") == "mixtral":
        checkpoint.rewrite(out, lambda tensors: {_published(name): tensor for name, tensor in tensors.items()})


def _published(name: str) -> str:
    return _EXPERT.sub(lambda match: f"{match[1]}.{_MIXTRAL[match[2]]}.", name)


def _parts() -> Any:
    """In place of the tqdm over the batches of each pass through a part."""
    steps: list[phase.Steps] = []

    def bar(batches: Any, *, desc: str, **_: Any) -> Iterator[Any]:
        if (at := _PART.match(desc)) is None:
            raise RuntimeError(f"llm-compressor names its parts in another way: {desc!r}")
        part, parts, name = int(at[1]), int(at[2]), at[3]
        if not steps:
            steps.append(phase.Steps("part {n} of {total}", parts))
        steps[0].at(part - 1 + _PASSES[name], name.lower())
        yield from batches
        if part == parts and name == "Propagating":
            steps[0].at(parts)

    return bar
