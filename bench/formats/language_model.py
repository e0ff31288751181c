"""Whether what is in a folder predicts the next token, and what it is where it does not.

A library may load an encoder, or half of a model, and give numbers of it that look like any other's.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.contract import wire
from bench.contract.errors import UserError
from bench.formats import classes
from bench.formats import folder as model_folder

_ADAPTER = "adapter_config.json"
_LARGEST = 1 << 20
_REMEDY = "what is measured here is how a model predicts the next token of a text; name a causal language model"
_A = {
    "encoder": "an encoder",
    "encoder-decoder": "an encoder-decoder",
    "vision": "a vision model",
    "audio": "an audio model",
}
# Endings of architectures whose outputs are no next tokens, with what they are.
_HEADS = {
    "ForMaskedLM": "an encoder",
    "ForPreTraining": "an encoder",
    "ForSequenceClassification": "a classifier",
    "ForTokenClassification": "a classifier",
    "ForMultipleChoice": "a classifier",
    "ForQuestionAnswering": "a model that marks answers in a text",
    "ForImageClassification": "a vision model",
    "ForMaskedImageModeling": "a vision model",
    "ForSemanticSegmentation": "a vision model",
    "ForObjectDetection": "a vision model",
    "ForDepthEstimation": "a vision model",
    "VisionModel": "a vision model",
    "EncoderModel": "an encoder",
    "ForCTC": "an audio model",
    "ForAudioClassification": "an audio model",
}
_GGUF = {  # values of general.architecture
    "bert": "an encoder",
    "nomic-bert": "an encoder",
    "nomic-bert-moe": "an encoder",
    "neo-bert": "an encoder",
    "modern-bert": "an encoder",
    "jina-bert-v2": "an encoder",
    "jina-bert-v3": "an encoder",
    "gemma-embedding": "an encoder",
    "t5": "an encoder-decoder",
    "t5encoder": "an encoder",
    "clip": "a vision projector (mmproj) of a model",
    "wavtokenizer-dec": "an audio model",
}
_GGUF_TYPES = {
    "adapter": "an adapter",
    "mmproj": "a vision projector (mmproj) of a model",
    "imatrix": "an importance matrix",
}


def require(folder: Path) -> None:
    """UserError, which says what it is, for a folder whose model is no decoder of text."""
    if not folder.is_dir():
        return
    if (folder / _ADAPTER).is_file():
        raise UserError(_adapter(folder))
    if (folder / model_folder.CONFIG).is_file():
        config = model_folder.read_config(folder)
        if kind := other_kind(config):
            raise UserError(f"{folder.name} is {kind}{_named(config)}, and no decoder: {_REMEDY}")


def other_kind(config: Mapping[str, Any]) -> str:
    """What a config.json describes other than a decoder, in a phrase; "" for a decoder, and for what is not known."""
    text = model_folder.text_config(config)
    model_type = str(text.get("model_type") or "")
    kind = classes.other_kind(str(config.get("model_type") or "")) or classes.other_kind(model_type)
    if text.get("is_encoder_decoder") is True or kind == "encoder-decoder":
        return _A["encoder-decoder"]
    if text.get("use_bidirectional_attention") is True or (kind == "encoder" and text.get("is_decoder") is not True):
        return _A["encoder"]
    architectures = config.get("architectures")
    names = [str(name) for name in architectures] if isinstance(architectures, list) else []
    heads = [what for name in names for ending, what in _HEADS.items() if name.endswith(ending)]
    if heads and len(heads) == len(names):
        return heads[0]
    return _A.get(kind, "") if kind in ("vision", "audio") else ""


def other_gguf(metadata: Mapping[str, Any]) -> str:
    """As `other_kind`, by a GGUF file's metadata."""
    kind = _GGUF_TYPES.get(str(metadata.get("general.type")), "")
    return kind or _GGUF.get(str(metadata.get("general.architecture")), "")


def _named(config: Mapping[str, Any]) -> str:
    names = config.get("architectures")
    name = str(names[0]) if isinstance(names, list) and names else str(config.get("model_type") or "")
    return f" ({name[:80]})" if name else ""


def _adapter(folder: Path) -> str:
    try:
        settings = wire.read_json(folder / _ADAPTER, _LARGEST)
    except (OSError, ValueError):
        settings = {}
    base = settings.get("base_model_name_or_path") if isinstance(settings, dict) else None
    of = f" of {base[:200]}" if base and isinstance(base, str) else ""
    if (folder / model_folder.CONFIG).is_file():
        return (
            f"{folder.name} has an adapter{of} ({_ADAPTER}) beside a model, and libraries differ in which they load: "
            "move one of the two into a folder of its own"
        )
    return (
        f"{folder.name} is an adapter{of}, and no model: merge it into its base (peft's merge_and_unload, then "
        "save_pretrained with the tokenizer) and name that folder"
    )
