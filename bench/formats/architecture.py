"""What a decoder computes per token: read from the config.json or the GGUF header of its artifact."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.contract.record import Architecture
from bench.formats import folder as model_folder
from bench.formats.folder import integer
from bench.formats.gguf_reader import Gguf

# Mixtures of experts, latent attention and state-space models have steps that these numbers do not count.
_OTHER_KINDS = ("num_local_experts", "num_experts", "n_routed_experts", "kv_lora_rank", "state_size", "ssm_cfg")
_GGUF_KEYS = {
    "num_hidden_layers": "block_count",
    "hidden_size": "embedding_length",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "head_dim": "attention.key_length",
    "sliding_window": "attention.sliding_window",
}


def of_folder(folder: Path) -> Architecture | None:
    """The architecture that the folder's config.json describes; None for no plain decoder."""
    return of_config(model_folder.read_config(folder))


def of_config(config: Mapping[str, Any]) -> Architecture | None:
    """The architecture that a config.json describes, by the names of transformers; None for no plain decoder."""
    text = model_folder.text_config(config)
    layers, hidden = model_folder.layer_count(config), model_folder.hidden_size(config)
    heads, vocab = integer(text, "num_attention_heads", "n_head"), model_folder.vocab_size(config)
    if any(text.get(key) for key in _OTHER_KINDS) or not (layers and hidden and heads and vocab):
        return None
    return Architecture(
        layers,
        hidden,
        heads,
        integer(text, "num_key_value_heads") or heads,
        integer(text, "head_dim") or hidden // heads,
        vocab,
        model_folder.ties_head(config),
        integer(text, "sliding_window") if text.get("use_sliding_window", True) else 0,
    )


def of_gguf(model: Gguf) -> Architecture | None:
    """As `of_config`, by the keys of docs/gguf.md; heads that differ by layer are an array, read by its length."""
    prefix = f"{model.architecture}."
    settings = {k.removeprefix(prefix): value for k, value in model.metadata.items() if k.startswith(prefix)}
    if any(key.startswith(("expert_", "ssm.")) or "_lora_rank" in key for key in settings):
        return None
    config = {name: settings.get(key) for name, key in _GGUF_KEYS.items()}
    tied = "output.weight" not in model.tensors
    return of_config({**config, "vocab_size": model.vocab_size, "tie_word_embeddings": tied})
