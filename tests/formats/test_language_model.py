"""What a folder is that predicts no next token: refused when a suite is planned, by what it is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from bench.contract.errors import UserError
from bench.contract.spec import Model
from bench.formats import language_model
from bench.models import resolve
from tests.formats.gguf_models import write

T5 = {"architectures": ["T5ForConditionalGeneration"], "model_type": "t5", "vocab_size": 64}
BERT = {"architectures": ["BertForMaskedLM"], "model_type": "bert", "vocab_size": 64}
VIT = {"architectures": ["ViTForImageClassification"], "model_type": "vit", "image_size": 224}


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        (T5, "an encoder-decoder"),
        ({"is_encoder_decoder": True}, "an encoder-decoder"),
        (BERT, "an encoder"),
        ({"model_type": "roberta"}, "an encoder"),
        ({"model_type": "gemma3_text", "use_bidirectional_attention": True}, "an encoder"),
        (VIT, "a vision model"),
        ({"model_type": "clip", "text_config": {"vocab_size": 9}, "vision_config": {}}, "a vision model"),
        ({"model_type": "wav2vec2"}, "an audio model"),
        ({"architectures": ["LlamaForSequenceClassification"], "model_type": "llama"}, "a classifier"),
        ({"model_type": "llama"}, ""),
        ({"architectures": ["BertLMHeadModel"], "model_type": "bert", "is_decoder": True}, ""),
        ({"architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3", "vision_config": {}}, ""),
        ({"architectures": [["x"], 5], "model_type": ["t5"], "text_config": 7}, ""),
        ({}, ""),
    ],
)
def test_what_a_config_describes(config: Mapping[str, Any], kind: str) -> None:
    """By its class, by what its key says, by its architecture; a decoder, and what is not known, is nothing else."""
    assert language_model.other_kind(config) == kind


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({"config.json": T5}, r"m is an encoder-decoder \(T5ForConditionalGeneration\), and no decoder"),
        ({"config.json": BERT}, r"m is an encoder \(BertForMaskedLM\)"),
        ({"config.json": VIT}, r"m is a vision model \(ViTForImageClassification\)"),
        (
            {"adapter_config.json": {"base_model_name_or_path": "org/base"}},
            r"m is an adapter of org/base, and no model: merge",
        ),
        ({"adapter_config.json": [], "config.json": {}}, r"has an adapter \(adapter_config\.json\) beside a model"),
    ],
)
def test_a_plan_refuses_it_by_what_it_is(tmp_path: Path, files: Mapping[str, Any], sentence: str) -> None:
    """Before a weight is read; an adapter has no config.json of a model."""
    (folder := tmp_path / "m").mkdir()
    save_file({"layer.weight": np.zeros((4, 4), np.float16)}, folder / "model.safetensors")
    for name, value in files.items():
        (folder / name).write_text(json.dumps(value))

    with pytest.raises(UserError, match=sentence):
        resolve.resolve(Model(str(folder)), fetch=False)


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize(
    ("architecture", "kind"), [("bert", "an encoder"), ("t5", "an encoder-decoder"), ("clip", "a vision projector")]
)
def test_a_gguf_file_is_refused_alike(tmp_path: Path, architecture: str, kind: str) -> None:
    """By its architecture, as llama.cpp names them."""
    file = write(tmp_path / "m.gguf", architecture=architecture)

    with pytest.raises(UserError, match=rf"m\.gguf is {kind}.*, and no decoder"):
        resolve.resolve(Model(str(file)), fetch=False)
