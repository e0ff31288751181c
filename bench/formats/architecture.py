"""What a decoder computes per token: read from the config.json or the GGUF header of its artifact."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench.contract.record import Architecture
from bench.formats import folder as model_folder
from bench.formats.gguf_reader import Gguf

# Mixtures of experts, latent attention and state-space models have steps that these numbers do not count.
_OTHER_KINDS = ("num_local_experts", "num_experts", "n_routed_experts", "kv_lora_rank", "state_size", "ssm_cfg")


def of_config(config: Mapping[str, Any]) -> Architecture | None:
    """The architecture that a config.json describes, by the names of transformers; None for no plain decoder."""
    text = model_folder.text_config(config)
    if any(text.get(key) for key in _OTHER_KINDS):
        return None
    layers, hidden, heads, vocab = (
        _number(text, *names)
        for names in (
            ("num_hidden_layers", "n_layer"),
            ("hidden_size", "n_embd"),
            ("num_attention_heads", "n_head"),
            ("vocab_size",),
        )
    )
    if not (layers and hidden and heads and vocab):
        return None
    sliding = text.get("use_sliding_window", True)
    return Architecture(
        layers,
        hidden,
        heads,
        _number(text, "num_key_value_heads") or heads,
        _number(text, "head_dim") or hidden // heads,
        vocab,
        model_folder.ties_head(config),
        _number(text, "sliding_window") if sliding else 0,
    )


def of_gguf(model: Gguf) -> Architecture | None:
    """As `of_config`, by the keys of docs/gguf.md; heads that differ by layer are an array, read by its length."""
    settings = {
        key.removeprefix(f"{model.architecture}."): value
        for key, value in model.metadata.items()
        if key.startswith(f"{model.architecture}.")
    }
    layers, hidden = _number(settings, "block_count"), _number(settings, "embedding_length")
    heads, kv_heads = _number(settings, "attention.head_count"), _number(settings, "attention.head_count_kv")
    plain = not any(key.startswith(("expert_", "ssm.")) or "_lora_rank" in key for key in settings)
    if not (plain and layers and hidden and heads and model.vocab_size):
        return None
    head_dim = _number(settings, "attention.key_length") or hidden // heads
    return Architecture(
        layers,
        hidden,
        heads,
        kv_heads or heads,
        head_dim,
        model.vocab_size,
        "output.weight" not in model.tensors,
        _number(settings, "attention.sliding_window"),
    )


def _number(settings: Mapping[str, Any], *keys: str) -> int:
    return next((value for key in keys if isinstance(value := settings.get(key), int)), 0)
