"""Every torchao recipe of test_torchao.py, made and loaded again, as one JSON object.

`python torchao_checks.py MODEL OUT RECIPES`, in the hf environment; OUT gets a folder for each recipe.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from bench.contract.errors import UserError
from bench.contract.record import Artifact, Audit
from bench.engines import hf
from quantize import calibration, transformer
from quantize.backends import torchao as backend
from quantize.methods import torchao

_AUDIT = Audit("torchao", 0, 0, 0, 0, 0, 0.0, 0.0, tied_head=False, vocab_size=0, context=0)
_ARTIFACT = Artifact("", "torchao", "", (), _AUDIT)
_TRAINED: dict[str, backend.Scheme] = {"intx4": "intx-weight-only", "8da4w": "int8-dynamic-intx"}


def main(model: Path, out: Path, recipes: dict[str, dict[str, Any]]) -> dict[str, Any]:
    torch.set_num_threads(1)
    ids = list(calibration.samples(model, "stdlib", 1, 128, seed=7).ids[0])
    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32, attn_implementation="sdpa").eval()
    plain = _logits(base, ids)
    result = {name: _recipe(model, out / name, o, ids, plain) for name, o in recipes.items()}
    trained = {name: _trained(model, out / f"{name}-trained", name, ids) for name in _TRAINED}
    return {**result, "narrow": _narrow(out / "intx4"), "trained": trained}


def _recipe(model: Path, out: Path, options: dict[str, Any], ids: list[int], plain: Any) -> dict[str, Any]:
    """The artifact's facts, and its logits in memory, in Transformers alone and in the engine."""
    out.mkdir(parents=True)
    request = torchao.Options(**options)
    facts = torchao.apply(model, request, out, "cpu")
    output = _logits(torchao._quantized(model, request, "cpu")[0].eval(), ids)
    with hf.open(out, _ARTIFACT, hf.Options(threads=1), "cpu") as session:
        loaded = torch.tensor(next(iter(session.logits(ids))).logits)
        tokens = [step.tokens[0] for step in session.generate([ids[:40]], 4)]
        receipts, memory = session.receipts(), session.memory()
    return {
        "facts": facts,
        "equal": torch.equal(loaded, output),
        "plain": _plainly(out, ids, output),
        "error": ((output - plain).pow(2).mean() / plain.var()).sqrt().item(),
        "tokens": tokens,
        "receipts": receipts,
        "memory": memory,
    }


def _trained(model: Path, out: Path, recipe: str, ids: list[int]) -> dict[str, Any]:
    """A step of training with rounded weights, then the same conversion and file as without."""
    out.mkdir(parents=True)
    config = backend.base_config(_TRAINED[recipe])
    student = transformer.load_stored(model, "float32", "cpu").eval()
    backend.qat(student, config, "prepare", backend.layer_filter(student, _TRAINED[recipe]))
    before = _logits(student, ids)
    fed = torch.tensor([ids])
    student.train()(input_ids=fed, labels=fed, use_cache=False).loss.backward()
    torch.optim.AdamW(student.parameters(), lr=1e-3).step()
    rounded = _logits(student.eval(), ids)
    backend.qat(student, config, "convert")
    facts = backend.save(student, config, model, out)
    return {
        "as_rounded": torch.equal(before, _logits(_plain(out.parent / recipe), ids)),
        "learned": not torch.equal(before, rounded),
        "kept": torch.equal(rounded, _logits(_plain(out), ids)),
        "facts": facts,
    }


def _plain(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, use_safetensors=True).eval()


def _logits(model: Any, ids: list[int]) -> Any:
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].float()


def _plainly(folder: Path, ids: list[int], logits: Any) -> str:
    """Whether Transformers without the engine loads the same, or what it says."""
    try:
        model = _plain(folder)
    except RuntimeError:
        return "refused"
    return "equal" if torch.equal(_logits(model, ids), logits) else "different"


def _narrow(folder: Path) -> str:
    """What the engine says when it is asked for another arithmetic than the artifact's."""
    try:
        with hf.open(folder, _ARTIFACT, hf.Options(dtype="bfloat16"), "cpu"):
            return ""
    except UserError as error:
        return str(error)


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3]))))  # noqa: T201
