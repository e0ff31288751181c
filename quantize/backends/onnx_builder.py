"""onnxruntime-genai's model builder, with what it misses in the config that Transformers 5 makes of a config.json.

`python -m quantize.backends.onnx_builder ARGUMENTS...`, in the environment onnx. Transformers 5 keeps the rotary
parameters of Gemma 3 by kind of layer and drops the names of before, which the builder reads. A window without kinds
of layers (Mistral, Phi-3) is every layer's; the builder would leave it out of all.
"""

from __future__ import annotations

import runpy
from typing import Any

_BUILDER = "onnxruntime_genai.models.builder"


def completed(config: Any) -> Any:
    """The config with one set of rotary parameters, that of layers that see all, and a kind for each layer."""
    text = getattr(config, "text_config", config)
    by_kind = getattr(text, "rope_parameters", None)
    if isinstance(by_kind, dict) and {"full_attention", "sliding_attention"} <= by_kind.keys():
        text.rope_local_base_freq = by_kind["sliding_attention"]["rope_theta"]
        text.rope_theta = by_kind["full_attention"]["rope_theta"]
        text.rope_parameters = dict(by_kind["full_attention"])
    if getattr(text, "sliding_window", None) and not getattr(text, "layer_types", None):
        text.layer_types = ["sliding_attention"] * text.num_hidden_layers
    return config


def main() -> None:
    """Run the builder's command line with its configs completed."""
    from transformers import AutoConfig

    load = AutoConfig.from_pretrained

    def from_pretrained(*positional: Any, **named: Any) -> Any:
        return completed(load(*positional, **named))

    AutoConfig.from_pretrained = from_pretrained
    runpy.run_module(_BUILDER, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
