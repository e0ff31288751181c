"""Rotated models, by themselves and before quantizers, as one JSON object by case.

`python rotate_checks.py MODEL`, in the environment llmcompressor; the current directory is scratch. Logits are those of
the engine hf in float32; models of other shapes are random.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from bench import formats
from bench.contract.record import Artifact
from bench.engines import hf
from quantize.methods import llmcompressor, rotate

_IDS = [(31 * i + 7) % 4000 + 5 for i in range(64)]
_SIZES: dict[str, Any] = {
    "vocab_size": 4096,
    "num_hidden_layers": 2,
    "initializer_range": 0.1,
    "hidden_size": 144,
    "intermediate_size": 192,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 24,
}
_MODELS = {
    "llama": {"tie_word_embeddings": True},
    "qwen2": {"tie_word_embeddings": False},
    "qwen3": {"tie_word_embeddings": True},
}


def main(model: Path) -> dict[str, Any]:
    torch.set_num_threads(1)
    results = {"demo": _rotated(model, "demo", {"kind": "hadamard", "dtype": "float32"})}
    for name, ties in _MODELS.items():
        folder = Path(f"{name}-model")
        _write(folder, name, ties)
        results[name] = _rotated(folder, name, {"dtype": "float32"})
    for rotations in ("r1", "r2"):
        results[rotations] = _rotated(model, rotations, {"rotations": rotations, "dtype": "float32"})
    results["chain"] = _chain(model, Path("demo"))
    return results


def _write(folder: Path, name: str, ties: dict[str, bool]) -> None:
    torch.manual_seed(0)
    config = {"llama": "LlamaConfig", "qwen2": "Qwen2Config", "qwen3": "Qwen3Config"}[name]
    model = AutoModelForCausalLM.from_config(getattr(transformers, config)(**_SIZES, **ties))
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if "norm" in parameter_name or parameter_name.endswith("bias"):
                parameter.copy_(1 + 0.3 * torch.randn_like(parameter))
    model.save_pretrained(folder)


def _rotated(model: Path, name: str, options: dict[str, Any]) -> dict[str, Any]:
    out = Path(name)
    out.mkdir()
    rotate.apply(model, rotate.Options(**options), out, "cpu")
    before, after = _logits(model), _logits(out)
    planned = rotate.output_source(rotate.Options(**options), formats.source(model))
    return {
        "difference": float(abs(after - before).max() / before.std()),
        "moved": _moved(model, out),
        "source": dict(planned.linears) == dict(formats.source(out).linears),
        "tied": formats.audit(out, None).tied_head,
    }


def _moved(model: Path, out: Path) -> bool:
    """Whether the weights of the values are others."""
    name = "model.layers.0.self_attn.v_proj.weight"
    before, after = (load_file(folder / "model.safetensors")[name].float() for folder in (model, out))
    return not torch.allclose(before, after, atol=1e-3)


def _chain(model: Path, rotated: Path) -> dict[str, float]:
    """RMS errors of a scheme without and with the rotation before it, over the logits' standard deviation."""
    base, errors = _logits(model), {}
    for name, folder in (("plain", model), ("rotated", rotated)):
        out = Path(f"chain-{name}")
        out.mkdir()
        options = llmcompressor.Options(scheme="mxfp4", algorithm="rtn")
        llmcompressor.apply(folder, options, out, "cpu")
        errors[name] = float((_logits(out) - base).std() / base.std())
    return errors


def _logits(folder: Path) -> Any:
    artifact = Artifact("", "hf", "", (), formats.audit(folder, None))
    with hf.open(folder, artifact, hf.Options(), "cpu") as session:
        return np.concatenate([block.logits for block in session.logits(_IDS)])


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(Path(sys.argv[1]))) + "\n")
