"""What a decoder computes per token: read from the config.json or the GGUF header of its artifact."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from bench.contract.record import Architecture
from bench.formats import folder as model_folder
from bench.formats.folder import setting, size
from bench.formats.gguf_reader import Gguf

Shapes = Mapping[str, tuple[int, int]]

# Mixtures of experts, latent attention and state-space models have steps that these numbers do not count.
_OTHER_KINDS = (
    "num_local_experts",
    "num_experts",
    "n_routed_experts",
    "kv_lora_rank",
    "state_size",
    "ssm_cfg",
    "ssm_state_size",
    "mamba_d_state",
    "conv_L_cache",
    "linear_num_value_heads",
    "attention_window_size",
)
_FUSED = ("query_key_value", "qkv_proj", "c_attn", "Wqkv", "W_pack")
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


def of_config(config: Mapping[str, Any], linears: Shapes = MappingProxyType({})) -> Architecture | None:
    """The architecture that a config.json describes, by the names of transformers; None for no plain decoder.

    What it leaves out is as its class has it, or as the shapes of `linears`, name -> (out, in), show.
    """
    layers, hidden = model_folder.layer_count(config), model_folder.hidden_size(config)
    heads, vocab = size(config, "num_attention_heads"), model_folder.vocab_size(config)
    if any(setting(config, key) for key in _OTHER_KINDS) or not (layers and hidden and heads and vocab):
        return None
    head_dim = size(config, "head_dim") or _head_dim(linears, heads) or hidden // heads
    return Architecture(
        layers,
        hidden,
        heads,
        model_folder.kv_heads(config) or _stored_kv_heads(linears, heads) or heads,
        head_dim,
        vocab,
        bool(model_folder.ties_head(config)),
        _window(config),
    )


def _stored_kv_heads(linears: Shapes, heads: int) -> int:
    """By the rows of k_proj, or of the layer that has queries, keys and values in one."""
    head_dim = _head_dim(linears, heads)
    if head_dim and (keys := _rows(linears, ("k_proj",))):
        return keys // head_dim
    width = next((i // heads for name, (_, i) in linears.items() if _last(name) in _FUSED and heads), 0)
    rows = _rows(linears, _FUSED)
    return max(0, rows // width - heads) // 2 if width else 0


def _head_dim(linears: Shapes, heads: int) -> int:
    return _rows(linears, ("q_proj",)) // heads if heads else 0


def _rows(linears: Shapes, names: Iterable[str]) -> int:
    """The outputs of the first layer whose last name is one of these; 0 where there is none."""
    return next((out for name, (out, _) in linears.items() if _last(name) in names), 0)


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _window(config: Mapping[str, Any]) -> int:
    """The most tokens that a layer with a window attends to; 0 where no layer has one."""
    types = model_folder.text_config(config).get("layer_types")
    all_full = isinstance(types, list) and not any("sliding" in str(kind) for kind in types)
    return 0 if setting(config, "use_sliding_window") is False or all_full else size(config, "sliding_window")


def of_gguf(model: Gguf) -> Architecture | None:
    """As `of_config`, by the keys of docs/gguf.md; heads that differ by layer are an array, read by its length."""
    prefix = f"{model.architecture}."
    settings = {k.removeprefix(prefix): value for k, value in model.metadata.items() if k.startswith(prefix)}
    if any(key.startswith(("expert_", "ssm.")) or "_lora_rank" in key for key in settings):
        return None
    config = {name: settings.get(key) for name, key in _GGUF_KEYS.items()}
    tied = "output.weight" not in model.tensors
    return of_config({**config, "vocab_size": model.vocab_size, "tie_word_embeddings": tied})
