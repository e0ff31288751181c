"""What the model builder is given of a config in place of what Transformers 5 makes of it."""

from __future__ import annotations

from types import SimpleNamespace

from quantize.backends import onnx_builder

_BY_KIND = {
    "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
    "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
}


def test_rotary_parameters_by_kind_of_layer_get_their_older_names() -> None:
    """Gemma 3: one base for layers that see all, with its scaling, and one for the windowed ones."""
    config = onnx_builder.completed(SimpleNamespace(rope_parameters=_BY_KIND, sliding_window=None))

    assert config.rope_theta == 1e6
    assert config.rope_local_base_freq == 1e4
    assert config.rope_parameters == _BY_KIND["full_attention"]


def test_a_nested_config_is_completed_too() -> None:
    """The text model of one with images."""
    text = SimpleNamespace(rope_parameters=_BY_KIND)

    assert onnx_builder.completed(SimpleNamespace(text_config=text)).text_config.rope_local_base_freq == 1e4


def test_a_window_without_kinds_is_every_layers() -> None:
    """Mistral and Phi-3: the builder would write layers that see everything."""
    config = SimpleNamespace(sliding_window=32, num_hidden_layers=2, rope_parameters={"rope_type": "default"})

    assert onnx_builder.completed(config).layer_types == ["sliding_attention"] * 2


def test_kinds_that_are_given_stay_and_no_window_adds_none() -> None:
    """Qwen2 says which layers have one, and Llama has none."""
    given = SimpleNamespace(sliding_window=32, num_hidden_layers=2, layer_types=["full_attention"] * 2)
    without = SimpleNamespace(sliding_window=None, num_hidden_layers=2)

    assert onnx_builder.completed(given).layer_types == ["full_attention"] * 2
    assert not hasattr(onnx_builder.completed(without), "layer_types")
