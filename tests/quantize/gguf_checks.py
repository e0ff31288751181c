"""Models that Transformers 5 saved, as GGUF files in llama.cpp, as one JSON object by architecture.

`python gguf_checks.py`, in the environment llamacpp; the current directory is scratch. Of the logits the largest
difference from Transformers' own over their standard deviation. The models have no tokenizer, as dummies have none.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers import AutoModelForCausalLM

from bench import formats
from bench.contract.record import Artifact
from bench.engines import llamacpp
from quantize.methods import gguf

_IDS = [(31 * i) % 500 + 5 for i in range(40)]
_USUAL: dict[str, Any] = {"vocab_size": 512, "initializer_range": 0.15, "bos_token_id": 1, "eos_token_id": 2}
_WIDE: dict[str, Any] = {**_USUAL, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
_ROPE = {"rope_type": "default", "partial_rotary_factor": 0.5, "rope_theta": 500.0}
_MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2Config", {**_USUAL, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 128}),
    "gpt_neox": ("GPTNeoXConfig", {**_WIDE, "intermediate_size": 96, "rope_parameters": _ROPE}),
    "llama": (
        "LlamaConfig",
        {**_WIDE, "intermediate_size": 96, "rope_parameters": {**_ROPE, "partial_rotary_factor": 1.0}},
    ),
}


def main() -> dict[str, Any]:
    return {name: _difference(name) for name in _MODELS}


def _difference(name: str) -> float:
    torch.manual_seed(0)
    config, settings = _MODELS[name]
    folder, out = Path(name), Path(f"{name}-gguf")
    out.mkdir()
    model = AutoModelForCausalLM.from_config(getattr(transformers, config)(**settings)).eval()
    model.save_pretrained(folder)
    stored = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**stored, "dummy_weights": True}))
    gguf.apply(folder, gguf.Options(type="f32"), out, "cpu")
    artifact = Artifact("", "gguf", "", (), formats.audit(out, None))
    with llamacpp.open(out, artifact, llamacpp.Options(threads=1, kv_dtype="f32"), "cpu") as session:
        actual = np.concatenate([block.logits for block in session.logits(_IDS)])
    with torch.no_grad():
        expected = model(torch.tensor([_IDS])).logits[0].numpy()
    return float(abs(actual - expected).max() / expected.std())


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main()) + "\n")
