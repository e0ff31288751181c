"""What the openvino engine does with two artifacts, as JSON; test_openvino.py starts it in its own Python.

`python openvino_checks.py DEMO FLOAT32 INT4`: folders of the model and of what was made of it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM

from bench.contract.errors import UserError
from bench.contract.record import Artifact, Audit
from bench.engines import openvino
from quantize import calibration
from quantize.methods import openvino as method

_AUDIT = Audit("", 0, 0, 0, 0, 0, 0.0, 0.0, tied_head=False, vocab_size=0, context=0)
_ARTIFACT = Artifact("", "", "", (), _AUDIT)


def main(demo: Path, float32: Path, int4: Path) -> dict[str, Any]:
    texts = [list(ids) for ids in calibration.samples(demo, "stdlib", 4, 256, seed=7).ids]
    return {
        "hf": _nats(texts, _by_transformers(demo)),
        **_whole(texts, float32),
        "int4": _nats(texts, _engine(int4)),
        "rounded": _rounded(texts[0], int4),
        "refused": _refused(float32, int4),
    }


def _whole(texts: list[list[int]], folder: Path) -> dict[str, Any]:
    with openvino.open(folder, _ARTIFACT, openvino.Options(threads=1), "cpu") as session:
        nats = _nats(texts, lambda ids: _logits(session, ids))
        whole = _logits(session, texts[0])
        session.rows = 100
        pieces = [(block.start, len(block.logits)) for block in session.logits(texts[0])]
        difference = float(np.abs(_logits(session, texts[0]) - whole).max())
        steps = list(session.generate([texts[0][:32], texts[1][:32]], 4))
        memory = session.memory()
        return {
            "openvino": nats,
            "pieces": pieces,
            "difference": difference,
            "receipts": session.receipts(),
            "memory": memory,
            "kv_tokens": len(steps) + 31,
        }


def _rounded(ids: list[int], folder: Path) -> dict[str, Any]:
    """The KV cache as the library takes it by itself, against one in 32 bits, on a text in pieces."""
    with openvino.open(folder, _ARTIFACT, openvino.Options(threads=1), "cpu") as session:
        session.rows = 100
        exact = _logits(session, ids)
    with openvino.open(folder, _ARTIFACT, openvino.Options(threads=2, kv_dtype="u8"), "cpu") as session:
        session.rows = 100
        difference = float(np.abs(_logits(session, ids) - exact).max())
        kv_bytes = session.memory()["kv_bytes"]
        return {"difference": difference, "receipts": session.receipts(), "kv_bytes": kv_bytes}


def _refused(float32: Path, int4: Path) -> list[str]:
    broken = Path("broken")
    broken.mkdir()
    (broken / "openvino_model.xml").write_text("<net>")
    attempts: list[Any] = [
        lambda: openvino.open(broken, _ARTIFACT, openvino.Options(), "cpu").__enter__(),
        lambda: openvino.open(float32, _ARTIFACT, openvino.Options(), "cuda:0").__enter__(),
        lambda: method.apply(int4, method.Options(type="int8"), Path("out"), "cpu"),
    ]
    messages = []
    for attempt in attempts:
        try:
            attempt()
        except UserError as error:
            messages.append(str(error))
    return messages


def _by_transformers(folder: Path) -> Any:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def logits(ids: list[int]) -> Any:
        with torch.no_grad():
            return model(input_ids=torch.tensor([ids])).logits[0].numpy()

    return logits


def _engine(folder: Path) -> Any:
    def logits(ids: list[int]) -> Any:
        with openvino.open(folder, _ARTIFACT, openvino.Options(threads=1), "cpu") as session:
            return _logits(session, ids)

    return logits


def _logits(session: Any, ids: list[int]) -> Any:
    return np.concatenate([block.logits for block in session.logits(ids)])


def _nats(texts: list[list[int]], logits: Any) -> float:
    """Mean negative log-likelihood of a token."""
    losses = []
    for ids in texts:
        rows = logits(ids)[:-1].astype(np.float64)
        top = rows.max(axis=1)
        sums = np.log(np.exp(rows - top[:, None]).sum(axis=1)) + top
        losses += list(sums - rows[np.arange(len(rows)), ids[1:]])
    return float(np.mean(losses))


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(*map(Path, sys.argv[1:]))) + "\n")
