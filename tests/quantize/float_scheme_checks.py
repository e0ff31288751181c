"""Schemes of floats by llm-compressor, audited and in the engine hf, as one JSON object by case.

`python float_scheme_checks.py MODEL`, in the environment llmcompressor; the current directory is scratch. The weights
are unpacked by the audit's own reader, by compressed-tensors, and by the engine.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.quantization import QuantizationConfig
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, LlamaConfig

from bench import formats
from bench.contract.record import Artifact
from bench.engines import hf
from bench.formats import checkpoint, float_blocks
from quantize.methods import llmcompressor

_CASES: dict[str, dict[str, Any]] = {
    "nvfp4a16-rtn": {"scheme": "nvfp4a16", "algorithm": "rtn"},
    "nvfp4a16": {"scheme": "nvfp4a16"},
    "nvfp4-rtn": {"scheme": "nvfp4", "algorithm": "rtn"},
    "mxfp4": {"scheme": "mxfp4"},
    "mxfp4a16-rtn": {"scheme": "mxfp4a16", "algorithm": "rtn"},
    "mxfp8-rtn": {"scheme": "mxfp8", "algorithm": "rtn"},
    "fp8-block": {"scheme": "fp8-block"},
    "odd": {"scheme": "fp8-block", "algorithm": "rtn"},  # of a model whose layers end within a block
}
_SETTINGS = ("config_groups", "format", "ignore", "quant_method", "quantization_status")
_IDS = [(31 * i + 7) % 4000 + 5 for i in range(64)]


def main(model: Path) -> dict[str, Any]:
    torch.set_num_threads(1)
    odd = Path("odd-model")
    _write_odd(odd)
    bases = {folder: _logits(folder)[0] for folder in (model, odd)}
    return {name: _check(name, odd if name == "odd" else model, bases) for name in _CASES}


def _write_odd(folder: Path) -> None:
    torch.manual_seed(0)
    heads = {"num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 32}
    sizes = {"hidden_size": 256, "intermediate_size": 384, **heads}
    drawn = {"initializer_range": 0.1, "tie_word_embeddings": True}
    config = LlamaConfig(vocab_size=4096, num_hidden_layers=2, **drawn, **sizes)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)


def _check(name: str, model: Path, bases: dict[Path, Any]) -> dict[str, Any]:
    out = Path(name)
    out.mkdir()
    facts = llmcompressor.apply(model, llmcompressor.Options(**_CASES[name], samples=8, length=64), out, "cpu")
    stored = checkpoint.read(out)
    unpacked = {layer: float_blocks.weights(stored, layer) for layer in float_blocks.layers(stored)}
    audit = formats.audit(out, formats.source(model).linears)
    logits, engine = _logits(out, unpacked)
    scale = bases[model].std()
    return {
        "bits": audit.bits_per_weight,
        "quantized": audit.quantized_fraction,
        "notes": audit.notes,
        "types": audit.tensor_types,
        "tokens": facts.get("calibration_tokens", 0),
        "layers": len(unpacked),
        "library": _differing(_by_library(out, unpacked), unpacked),
        "error": float((logits - bases[model]).std() / scale),
        **engine,
        "rounding": float(engine["rounding"] / scale),
    }


def _by_library(folder: Path, layers: dict[str, Any]) -> dict[str, Any]:
    """What compressed-tensors unpacks; scales of FP8 in float32 first, as the engine hf has them."""
    settings = json.loads((folder / "config.json").read_text())["quantization_config"]
    config = QuantizationConfig.model_validate({key: settings[key] for key in _SETTINGS})
    (scheme,) = config.config_groups.values()
    compressor = BaseCompressor.get_value_from_registry(scheme.format or config.format)
    tensors = load_file(folder / "model.safetensors")
    unpacked = {}
    for layer in layers:
        parts = {name.rpartition(".")[2]: t for name, t in tensors.items() if name.rpartition(".")[0] == layer}
        if parts["weight_scale"].dtype in (torch.float16, torch.bfloat16):
            parts["weight_scale"] = parts["weight_scale"].float()
        unpacked[layer] = compressor.decompress(parts, scheme)["weight"].float().numpy()
    return unpacked


def _differing(weights: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    return [layer for layer, values in expected.items() if not np.array_equal(weights[layer], values)]


def _logits(folder: Path, unpacked: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
    """float32 [tokens, vocab] by the engine hf; which weights are others in it, and what rounding inputs changes."""
    artifact = Artifact("", "hf", "", (), formats.audit(folder, None))
    with hf.open(folder, artifact, hf.Options(), "cpu") as session:
        weights = {layer: session.model.get_submodule(layer).weight.detach().numpy() for layer in unpacked or {}}
        logits = np.concatenate([block.logits for block in session.logits(_IDS)])
        receipts = session.receipts()
        for module in session.model.modules():
            module.quantization_enabled = False
        exact = np.concatenate([block.logits for block in session.logits(_IDS)])
    differing = _differing(weights, unpacked or {})
    shown = {key: receipts.get(key) for key in ("unpacked", "activations", "product_dtype", "weight_dtype")}
    return logits, {"engine": differing, "rounding": float((logits - exact).std()), "receipts": shown}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(Path(sys.argv[1]))) + "\n")
