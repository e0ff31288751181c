"""Readers of what others write: a value, or a sentence for a person, and nothing else, in bounded time."""

from __future__ import annotations

import gzip
import json
import os
import struct
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from bench import formats, yaml
from bench.contract import wire
from bench.contract.errors import UserError
from bench.contract.spec import Model
from bench.formats import gguf_reader, language_model
from bench.load import reply, sse
from bench.models import resolve
from bench.store import Store
from bench.suite import config
from tests.formats import gguf_models
from tests.hostile.strategies import ODD, changed, dumps, examples, only_user_errors, spliced
from tests.test_store import TRACES, served

SUITE = {
    "model": {"source": "shape:smollm2-135m"},
    "recipes": ["fp32", {"name": "g", "steps": [{"method": "gptq", "bits": 4}]}],
    "engines": ["hf", {"name": "fake", "itl_s": 0.1}],
    "workloads": [{"batch": 1}, {"kind": "closed", "concurrency": 2, "requests": 4}],
    "tasks": ["perplexity", {"task": "divergence", "context": 64}],
    "rounds": 2,
}
CONFIG = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "tie_word_embeddings": False,
    "text_config": {"sliding_window": 16, "layer_types": ["full_attention"]},
    "quantization_config": {
        "quant_method": "gptq",
        "bits": 4,
        "config_groups": {"group_0": {"weights": {"num_bits": 4}}},
    },
}
TENSORS = {
    "model.embed_tokens.weight": (64, 32),
    "model.layers.0.self_attn.k_proj.weight": (16, 32),
    "model.layers.0.mlp.up_proj.qweight": (4, 48),
    "model.layers.0.mlp.up_proj.scales": (1, 48),
    "lm_head.weight": (64, 32),
}
TOKENIZER = {"model": {"vocab": {"a": 0}}, "added_tokens": [{"id": 1, "content": "b", "special": False}]}


@given(changed(SUITE))
@examples(60)
def test_a_suite(value: Any) -> None:
    """Any value in any place of it."""
    only_user_errors(lambda: config.suite(value if isinstance(value, dict) else {}))


@given(st.text(alphabet="[]{}:,-&*!|>'\"#%@?\n abc01.~", max_size=200) | st.text(max_size=50))
@examples(60)
def test_yaml(text: str) -> None:
    """Any text, most of it YAML's own signs."""
    only_user_errors(lambda: yaml.load(text))


@given(st.text(alphabet="engistaskmodl.0129=x[]{}:-", max_size=40))
@examples(60)
def test_overrides(override: str) -> None:
    """Any path and value after --set, laid over the demo's suite."""
    only_user_errors(lambda: config.load_suite(Path("configs/smoke.yaml"), [override]))


def _read_folder(folder: Path) -> None:
    resolved = resolve.resolve(Model(str(folder)), fetch=False)
    formats.audit(resolved.local_folder, None, zeros=True)
    formats.audit(resolved.local_folder, dict(resolved.source.linears))
    formats.parameters(resolved.local_folder)
    formats.read_architecture(resolved.local_folder)


def _folder(folder: Path, config_json: Any, tokenizer: Any = TOKENIZER) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(dumps(config_json))
    (folder / "tokenizer.json").write_text(dumps(tokenizer))
    save_file({name: np.zeros(shape, np.float16) for name, shape in TENSORS.items()}, folder / "model.safetensors")
    return folder


@pytest.mark.usefixtures("cache")
@given(value=changed(CONFIG))
@examples(40)
def test_a_config(tmp_path: Path, value: Any) -> None:
    """Any value in any place of config.json, through all that a plan reads of a model."""
    only_user_errors(lambda: _read_folder(_folder(tmp_path / "m", value)))


@pytest.mark.usefixtures("cache")
@given(value=changed(TOKENIZER))
@examples(20)
def test_a_tokenizer(tmp_path: Path, value: Any) -> None:
    """Any value in any place of tokenizer.json."""
    only_user_errors(lambda: _read_folder(_folder(tmp_path / "m", CONFIG, value)))


@pytest.mark.usefixtures("cache")
@given(data=st.data())
@examples(40)
def test_safetensors(tmp_path: Path, data: Any) -> None:
    """Any value in any place of the header, and any bytes in any place of the file."""
    folder = _folder(tmp_path / "m", {**CONFIG, "quantization_config": None})
    whole = (folder / "model.safetensors").read_bytes()
    (size,) = struct.unpack("<Q", whole[:8])
    if data.draw(st.booleans()):
        text = dumps(data.draw(changed(json.loads(whole[8 : 8 + size])))).encode()
        whole = struct.pack("<Q", len(text)) + text + whole[8 + size :]
    else:
        whole = data.draw(spliced(whole[: 8 + size])) + whole[8 + size :]
    (folder / "model.safetensors").write_bytes(whole)
    only_user_errors(lambda: _read_folder(folder))


@pytest.mark.usefixtures("cache")
@given(data=st.data())
@examples(40)
def test_gguf(tmp_path: Path, data: Any) -> None:
    """Any bytes in any place of the header."""
    shapes = {"blk.0.attn_q": (32, 32)}
    whole = gguf_models.write(tmp_path / "sound.gguf", shapes=shapes).read_bytes()
    (file := tmp_path / "m.gguf").write_bytes(data.draw(spliced(whole[:2_500])) + whole[2_500:])
    gguf_reader._read.cache_clear()
    only_user_errors(lambda: _read_folder(file))
