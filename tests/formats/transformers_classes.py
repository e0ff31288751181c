"""Print bench/formats/transformers_classes.json by the transformers of the interpreter that runs this.

It is made anew with the hf environment's interpreter (`python -m bench envs list` shows it) when a pin moves:
HF_PYTHON -m tests.formats.transformers_classes > bench/formats/transformers_classes.json
"""

from __future__ import annotations

import dataclasses
import sys
from typing import Any

from transformers.models.auto import modeling_auto as auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from tests.formats.printed_table import show

SETTINGS = (  # what bench.formats reads of a config, by transformers' own names
    "attention_window_size",
    "conv_L_cache",
    "head_dim",
    "hidden_size",
    "intermediate_size",
    "kv_lora_rank",
    "linear_num_value_heads",
    "mamba_d_state",
    "max_position_embeddings",
    "multi_query",
    "n_routed_experts",
    "new_decoder_architecture",
    "num_attention_heads",
    "num_experts",
    "num_hidden_layers",
    "num_key_value_heads",
    "num_kv_heads",
    "num_local_experts",
    "sliding_window",
    "ssm_state_size",
    "state_size",
    "tie_word_embeddings",
    "use_sliding_window",
    "vocab_size",
)
OTHER_MODELS = {
    "encoder": ("MASKED_LM",),
    "vision": (
        "DEPTH_ESTIMATION",
        "IMAGE_CLASSIFICATION",
        "IMAGE_SEGMENTATION",
        "INSTANCE_SEGMENTATION",
        "OBJECT_DETECTION",
        "SEMANTIC_SEGMENTATION",
        "VIDEO_CLASSIFICATION",
        "ZERO_SHOT_IMAGE_CLASSIFICATION",
    ),
    "audio": ("AUDIO_CLASSIFICATION", "CTC", "SPEECH_SEQ_2_SEQ"),
}


def types(task: str) -> set[str]:
    return set(getattr(auto, f"MODEL_FOR_{task}_MAPPING_NAMES"))


def settings(kind: Any) -> dict[str, Any]:
    """Defaults of a config's class by transformers' names, under the class's own name where it has another."""
    fields = {field.name: field.default for field in dataclasses.fields(kind)}
    named = {name: kind.attribute_map.get(name, name) for name in SETTINGS}
    return {name: fields[own] for name, own in named.items() if own in fields and _is_plain(fields[own])}


def own_names(kind: Any) -> dict[str, str]:
    return {name: kind.attribute_map[name] for name in SETTINGS if kind.attribute_map.get(name, name) != name}


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, bool | int)


def main() -> None:
    causal, multimodal = types("CAUSAL_LM"), types("IMAGE_TEXT_TO_TEXT")
    decoders: dict[str, Any] = {}
    for name in sorted(causal | multimodal):
        kind = CONFIG_MAPPING[name]
        text = (getattr(kind, "sub_configs", None) or {}).get("text_config")
        inner = settings(text) if dataclasses.is_dataclass(text) else {}
        if defaults := {**inner, **settings(kind)}:
            decoders[name] = {"defaults": defaults, "names": own_names(kind)}
    others = {what: set().union(*map(types, tasks)) for what, tasks in OTHER_MODELS.items()}
    others["encoder"].add("bert-generation")  # a decoder only where its config says so, as BERT is
    others["encoder-decoder"] = {
        name for name in CONFIG_MAPPING if getattr(CONFIG_MAPPING[name], "is_encoder_decoder", False) is True
    }
    others["encoder"] -= others["encoder-decoder"]
    for what in ("vision", "audio"):
        others[what] -= causal | multimodal | others["encoder"] | others["encoder-decoder"]
    names = {what: sorted(of_kind) for what, of_kind in sorted(others.items())}
    show("decoders", decoders, sys.modules["transformers"].__version__, others=names)


if __name__ == "__main__":
    main()
