"""The architectures that the conformance suite tries: their configs, and how a command names them."""

from __future__ import annotations

import pytest

from bench.contract.errors import UserError
from bench.formats import folder as model_folder
from bench.formats import language_model
from bench.models import architectures


def test_all_are_chosen_where_none_is_named() -> None:
    """Words may have commas between them, and a name twice is once."""
    assert architectures.chosen([]) == architectures.names()
    assert architectures.chosen(["qwen3,llama", "llama"]) == ("qwen3", "llama")


def test_an_unknown_name_is_one_sentence() -> None:
    """With the nearest one."""
    with pytest.raises(UserError, match="unknown architecture 'lama': did you mean 'llama'"):
        architectures.chosen(["lama"])


@pytest.mark.parametrize("name", architectures.names())
def test_a_config_is_a_small_decoders(name: str) -> None:
    """Sizes that groups of 128 and k-quants divide, the tokenizer's vocabulary, and a line on what is particular."""
    config = architectures.settings(name)
    window = config.get("sliding_window")

    assert language_model.other_kind(config) == ""
    assert model_folder.layer_count(config) in (4, 6)
    assert model_folder.hidden_size(config) % 256 == 0
    assert model_folder.vocab_size(config) == 4096
    assert window is None or window <= 64  # shorter than the context that a scored token has
    assert architectures.summary(name).endswith(".")


def test_windows_and_wide_heads_are_among_them() -> None:
    """What silently goes wrong in an engine that forgets it."""
    configs = [architectures.settings(name) for name in architectures.names()]

    assert sum(bool(config.get("sliding_window")) for config in configs) >= 3
    assert any(
        config.get("head_dim", 0) * config.get("num_attention_heads", 0) > model_folder.hidden_size(config)
        for config in configs
    )
