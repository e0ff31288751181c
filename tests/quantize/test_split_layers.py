"""Layers that a library takes apart, or calls otherwise, are written as the model has them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.quantize import in_environment

pytestmark = [pytest.mark.engine, pytest.mark.slow]

_MODEL = """
import importlib
import json
import shutil
import sys
from pathlib import Path
import torch
import transformers
from transformers import AutoModelForCausalLM
from bench import formats
from bench.engines.hf import session
from quantize import random_weights

kind, method, options, demo = sys.argv[1], sys.argv[2], json.loads(sys.argv[3]), Path(sys.argv[4])
torch.manual_seed(0)
shape = {"vocab_size": 4096, "hidden_size": 128, "intermediate_size": 128, "num_hidden_layers": 2}
shape |= {"num_attention_heads": 4, "num_key_value_heads": 2, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
shape |= {"num_local_experts": 4} if kind == "Mixtral" else {"pad_token_id": None} if kind == "Qwen2" else {}
model, folder = AutoModelForCausalLM.from_config(getattr(transformers, f"{kind}Config")(**shape)), Path("model")
random_weights.fill(model)
model.save_pretrained(folder)
for file in demo.glob("*token*.json"):
    shutil.copy(file, folder)
plugin, out = importlib.import_module(f"quantize.methods.{method}"), Path("packed")
out.mkdir()
plugin.apply(folder, plugin.Options(**options), out, "cpu")
ids = torch.tensor([[(31 * i + 97) % 4000 + 5 for i in range(48)]])
options = session.Options(dtype="float32")
with torch.no_grad():  # `load` refuses a folder that lacks a tensor
    before, after = (session.load(path, options, "cpu")(input_ids=ids).logits for path in (folder, out))
audit = formats.audit(out, dict(formats.source(folder).linears))
print("RESULT" + json.dumps({
    "error": float((after - before).square().mean().sqrt() / before.std()),
    "quantized": audit.quantized_fraction,
    "notes": audit.notes,
}))
"""


def _quantized(env: str, home: Path, kind: str, method: str, options: dict[str, Any]) -> Any:
    words = (kind, method, json.dumps(options), str(ROOT / "models" / "demo"))
    return json.loads(in_environment.run(env, home, _MODEL, *words))


@pytest.mark.parametrize("method", ["gptq", "awq"])
@pytest.mark.needs("hf")
def test_gate_and_up_of_phi3_are_one_layer(method: str, tmp_path: Path) -> None:
    """The library splits them, which Transformers takes for a missing layer; all are quantized but the head."""
    options = {"bits": 4, "group_size": 32, "samples": 8, "length": 64}
    answer = _quantized("hf", tmp_path, "Phi3", method, options)

    assert answer["error"] < 0.4
    assert 0 < answer["quantized"] < 1
    assert not any("not stored" in note for note in answer["notes"])


@pytest.mark.needs("hf")
def test_a_padding_token_that_the_model_has_not_is_left_out(tmp_path: Path) -> None:
    """Transformers gives every Qwen2 its own, which this vocabulary lacks: the library's embedding refuses it."""
    options = {"bits": 4, "group_size": 32, "samples": 8, "length": 64}

    assert _quantized("hf", tmp_path, "Qwen2", "gptq", options)["error"] < 0.4


@pytest.mark.needs("llmcompressor")
def test_mixtrals_experts_are_called_as_mistral_calls_them(tmp_path: Path) -> None:
    """llm-compressor writes gate_proj, up_proj and down_proj, which Transformers takes for missing w1, w3 and w2."""
    options = {"scheme": "w4a16", "group_size": 32, "algorithm": "rtn"}
    answer = _quantized("llmcompressor", tmp_path, "Mixtral", "llmcompressor", options)

    assert answer["error"] < 0.6
    assert not any("not stored" in note for note in answer["notes"])
