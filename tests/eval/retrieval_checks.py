"""The task `retrieval` on the hf engine, and the same by PyTorch alone, as JSON.

`HF_PYTHON retrieval_checks.py MODEL`
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

import torch

from bench.engines.hf.session import HfSession, load
from bench.engines.hf.session import Options as HfOptions
from eval.tasks import retrieval
from eval.text import haystack

_OPTIONS = retrieval.Options(lengths="200,500", depths="0.1,0.9", items=2)


def main(folder: Path) -> None:
    model = load(folder, HfOptions(), "cpu")
    session = HfSession(model, HfOptions(), "cpu")
    facts = retrieval.evaluate(session, _OPTIONS, folder, None)
    places = [haystack.Place(length, depth) for length in (200, 500) for depth in (0.1, 0.9)]
    nll, greedy = [], ""
    for item in haystack.items(session, folder, None, places, _OPTIONS.items, _OPTIONS.seed):
        ids, first = torch.tensor([[*item.prompt, *item.answer]]), len(item.prompt)
        with torch.no_grad():
            rows = model(ids, use_cache=False).logits[0, first - 1 : -1].double()
        answer = ids[0, first:]
        nll.append(float(torch.nn.functional.cross_entropy(rows, answer, reduction="sum")))
        greedy += "01"[bool((rows.argmax(dim=1) == answer).all())]
    sys.stdout.write("\n" + json.dumps({"options": asdict(_OPTIONS), "facts": facts, "nll": nll, "greedy": greedy}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
