"""What pruning does with architectures other than Llama's, as one JSON object by their names.

`python architecture_checks.py DEMO`, in the environment hf; the current directory is scratch. The models are tiny, have
random weights and the demo model's tokenizer.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM

from bench import formats
from bench.formats import folder as model_folder
from quantize import random_weights, surgery, transformer
from quantize.methods import structured, wanda

_SMALL: dict[str, Any] = {"samples": 4, "length": 64}
_USUAL: dict[str, Any] = {"vocab_size": 4096, "bos_token_id": 1, "eos_token_id": 2}
_WIDE = {**_USUAL, "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 96}
_KINDS = ["sliding_attention", "sliding_attention", "full_attention"]
_ROPE = {
    "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
    "full_attention": {"rope_type": "default", "rope_theta": 1000000.0},
}
_MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "gemma3": (
        "Gemma3TextConfig",
        {**_WIDE, "num_key_value_heads": 2, "head_dim": 32, "sliding_window": 16, "layer_types": _KINDS}
        | {"rope_parameters": _ROPE},
    ),
    "gpt2": ("GPT2Config", {**_USUAL, "n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": 128}),
    "gpt_neox": ("GPTNeoXConfig", _WIDE),
    "mamba": ("MambaConfig", {**_USUAL, "hidden_size": 64, "num_hidden_layers": 3, "state_size": 8}),
}
_IDS = [[(31 * i + 97 * row) % 4000 + 5 for i in range(48)] for row in range(2)]


def main(demo: Path) -> dict[str, Any]:
    return {name: _checks(name, demo) for name in _MODELS}


def _checks(name: str, demo: Path) -> dict[str, Any]:
    folder = _model_folder(name, demo)
    pruned, cut = Path(f"{name}-wanda"), Path(f"{name}-cut")
    for out in (pruned, cut):
        out.mkdir()
    modules = wanda.apply(folder, wanda.Options(**_SMALL, dtype="float32"), pruned, "cpu")["modules_pruned"]
    structured.apply(folder, structured.Options(**_SMALL, what="layers", share=0.3, dtype="float32"), cut, "cpu")
    source, audit = formats.source(folder), formats.audit(pruned, None, zeros=True)
    expected = surgery.cut_source(source, "layers", 2)
    return {
        "states": _states(folder),
        "modules": modules,
        "zeros": audit.zero_fraction,
        "same_names": _names(pruned) == _names(folder),
        "layers": model_folder.layer_count(model_folder.read_config(cut)),
        "planned_linears": sorted(expected.linears) == sorted(formats.source(cut).linears),
        "cut_logits": _cut_logits(folder, cut),
    }


def _model_folder(name: str, demo: Path) -> Path:
    torch.manual_seed(0)
    config, settings = _MODELS[name]
    model, folder = AutoModelForCausalLM.from_config(getattr(transformers, config)(**settings)), Path(name)
    random_weights.fill(model)
    model.save_pretrained(folder)
    for file in demo.glob("*token*.json"):
        shutil.copy(file, folder)
    return folder


def _states(folder: Path) -> float:
    """How far the states that go layer by layer are from those of a whole pass, by the last layer's output."""
    model = transformer.load(folder, "cpu")
    outputs: list[Any] = []
    last = transformer.blocks(model)[1][-1]
    with last.register_forward_hook(lambda _, __, output: outputs.append(output)), torch.no_grad():
        model(input_ids=torch.tensor(_IDS), use_cache=False)
    whole = outputs[0][0] if isinstance(outputs[0], tuple) else outputs[0]
    for _, _, run in transformer.block_by_block(model, _IDS, "cpu"):
        states = run()
    return float((states[0] - whole).abs().max() / whole.std())


def _names(folder: Path) -> list[tuple[str, tuple[int, ...]]]:
    tensors = model_folder.read_headers(folder).tensors
    return sorted((name, tensor.shape) for name, tensor in tensors.items())


def _cut_logits(folder: Path, cut: Path) -> float:
    """The least difference of the cut model's logits from those of the whole one without one of its layers."""
    small = AutoModelForCausalLM.from_pretrained(cut, dtype=torch.float32).eval()
    ids = torch.tensor(_IDS)
    differences = []
    with torch.no_grad():
        actual = small(input_ids=ids).logits
        for layer in range(3):
            model = transformer.load(folder, "cpu")
            skipped = transformer.blocks(model)[1][layer]
            with skipped.register_forward_hook(
                lambda _, given, output: (given[0], *output[1:]) if isinstance(output, tuple) else given[0]
            ):
                differences.append(float((model(input_ids=ids, use_cache=False).logits - actual).abs().max()))
    return min(differences)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(Path(sys.argv[1]))) + "\n")
