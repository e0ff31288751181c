"""What the hf engine computes from GPTQ and AWQ weights, with the kernel and without, as one JSON object.

`python hf_packed_checks.py`; the current directory is scratch. The models are packed here, by the definitions of the
two formats, from random codes, scales and zero points.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, LlamaConfig

from bench.contract.record import Artifact, Audit
from bench.engines import hf

_IDS = [(31 * i) % 500 + 5 for i in range(40)]
_GROUP = 32
_SHIFTS = torch.arange(0, 32, 4)
_AWQ_ORDER = torch.tensor([0, 2, 4, 6, 1, 3, 5, 7])  # of the eight codes of a word
_AUDIT = Audit("gptq", 0, 0, 0, 0, 0, 0.0, 0.0, tied_head=False, vocab_size=512, context=128)
_SETTINGS: dict[str, dict[str, Any]] = {
    "gptq": {"quant_method": "gptq", "bits": 4, "group_size": _GROUP, "desc_act": False, "sym": False},
    "awq": {"quant_method": "awq", "bits": 4, "group_size": _GROUP, "zero_point": True, "version": "gemm"},
}


def main() -> dict[str, Any]:
    torch.set_num_threads(1)
    return {name: _checks(name) for name in _SETTINGS}


def _checks(kind: str) -> dict[str, Any]:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=512,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=128,
        initializer_range=0.15,
        dtype="float32",
    )
    plain = AutoModelForCausalLM.from_config(config).eval()
    folder = Path(kind)
    folder.mkdir()
    _pack(plain, kind, folder)
    with torch.no_grad():
        expected = plain(torch.tensor([_IDS])).logits[0].numpy()
    return {"kernel": _run(folder, kind, expected, exact=False), "exact": _run(folder, kind, expected, exact=True)}


def _pack(plain: Any, kind: str, folder: Path) -> None:
    """Store the model with packed weights in its blocks, and give it what these mean."""
    tensors = {}
    for name, module in plain.named_modules():
        if not isinstance(module, torch.nn.Linear) or name == "lm_head":
            continue
        groups = module.in_features // _GROUP
        codes = torch.randint(0, 16, (module.in_features, module.out_features))
        zeros = torch.randint(5, 11, (groups, module.out_features))
        scales = (torch.rand(groups, module.out_features) * 0.02 + 0.01).half()
        weight = (codes - zeros.repeat_interleave(_GROUP, 0)) * scales.float().repeat_interleave(_GROUP, 0)
        module.weight.data = weight.t().contiguous()
        if kind == "gptq":
            tensors[f"{name}.qweight"] = _words(codes.t()).t().contiguous()
            tensors[f"{name}.qzeros"] = _words(zeros - 1)
            tensors[f"{name}.g_idx"] = (torch.arange(module.in_features) // _GROUP).int()
        else:
            tensors[f"{name}.qweight"], tensors[f"{name}.qzeros"] = (
                _words(part.reshape(len(part), -1, 8)[:, :, _AWQ_ORDER].reshape(part.shape)) for part in (codes, zeros)
            )
        tensors[f"{name}.scales"] = scales
    packed = {name.rpartition(".")[0] for name in tensors}
    rest = {k: v for k, v in plain.state_dict().items() if k.removesuffix(".weight") not in packed}
    save_file(
        {**tensors, **{k: v.contiguous() for k, v in rest.items()}}, folder / "model.safetensors", {"format": "pt"}
    )
    settings = {**plain.config.to_dict(), "architectures": ["LlamaForCausalLM"], "quantization_config": _SETTINGS[kind]}
    (folder / "config.json").write_text(json.dumps(settings))


def _words(codes: torch.Tensor) -> torch.Tensor:
    """Eight codes along the rows in an int32, the first in its lowest bits."""
    words = (codes.reshape(len(codes), -1, 8).long() << _SHIFTS).sum(-1)
    return torch.where(words >= 1 << 31, words - (1 << 32), words).int().contiguous()


def _run(folder: Path, kind: str, expected: Any, *, exact: bool) -> dict[str, Any]:
    """The largest difference of a logit over the standard deviation, and the receipts."""
    artifact = Artifact("", kind, "", (), _AUDIT)
    with hf.open(folder, artifact, hf.Options(dtype="float32", threads=1, exact=exact), "cpu") as session:
        logits = np.concatenate([block.logits for block in session.logits(_IDS)])
        return {"difference": float(abs(logits - expected).max() / expected.std()), "receipts": session.receipts()}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main()) + "\n")
