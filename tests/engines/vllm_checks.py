"""What the vllm engine does on the demo model, as one JSON object; test_vllm.py starts it in its environment.

`python vllm_checks.py MODEL`; the current directory is scratch. What is expected is computed here with
Transformers alone, what is observed comes through the engine.
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
from bench.engines import vllm
from tests.engines import broken

_AUDIT = Audit("hf", 0, 0, 0, 0, 0, 0.0, 0.0, tied_head=False, vocab_size=0, context=0)
_ARTIFACT = Artifact("", "hf", "", (), _AUDIT)
_NEW = 24
_PROMPTS = [[(17 * i + 101 * row) % 4000 + 5 for i in range(40)] for row in range(3)]


def main(model: Path) -> dict[str, Any]:
    torch.set_num_threads(1)
    plain = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    result: dict[str, Any] = {
        "plain": _greedy(plain, _PROMPTS),
        "weights_bytes": sum(p.nbytes for p in plain.parameters()),
        "broken": {name: _broken(model, name) for name in ("bare", "alien", "cut", "lacking")},
    }
    # What the checkpoint suggests must not matter: an end token that the model makes, a penalty.
    folder = broken.folder(model, "eos")
    for name in ("config.json", "generation_config.json"):
        broken.edit(folder / name, eos_token_id=result["plain"][1][0], repetition_penalty=1.3)
    options = vllm.Options(threads=1, sequences=4, context=512, kv_cache_gib=1 / 128)
    with vllm.open(folder, _ARTIFACT, options, "cpu") as session:
        steps = list(session.generate(_PROMPTS, _NEW))
        result["tokens"] = [list(step.tokens) for step in steps]
        result["times"] = [step.time_s for step in steps]
        result["refused"] = [_refused(session, *shape) for shape in ((1, 600), (5, 40), (4, 500))]
        contexts, ends = [prompt[:-8] for prompt in _PROMPTS], [prompt[-8:] for prompt in _PROMPTS]
        result["after"] = [list(step.tokens) for step in session.generate_at_depth(contexts, ends, _NEW, lambda: None)]
        result["again"] = [list(step.tokens) for step in session.generate(_PROMPTS, _NEW)]
        result["receipts"], result["memory"] = session.receipts(), session.memory()
        result["log"] = session.log.text
    return result


def _greedy(plain: Any, prompts: list[list[int]]) -> list[list[int]]:
    """One list of ids per step, from whole forward passes without a cache."""
    ids = torch.tensor(prompts)
    with torch.no_grad():
        for _ in range(_NEW):
            best = plain(ids).logits[:, -1].argmax(-1)
            ids = torch.cat([ids, best[:, None]], dim=1)
    return ids[:, len(prompts[0]) :].T.tolist()  # type: ignore[no-any-return]


def _refused(session: Any, batch: int, tokens: int) -> str:
    try:
        list(session.generate([[5] * tokens] * batch, 8))
    except UserError as error:
        return str(error)
    return ""


def _broken(model: Path, how: str) -> str:
    """The sentence a broken artifact is refused with."""
    folder = broken.folder(model, how)
    try:
        with vllm.open(folder, _ARTIFACT, vllm.Options(threads=1), "cpu"):
            return ""
    except UserError as error:
        return str(error)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(Path(sys.argv[1]))) + "\n")
