"""What an engine does with and without speculation, as one JSON object; test_speculation.py starts it in its Python.

`python speculation_checks.py ENGINE FOLDER TOKENIZER DRAFT METHOD...`: DRAFT is a model of the same vocabulary.
"""

from __future__ import annotations

import json
import sys
from itertools import groupby
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from bench.contract import plugins
from bench.contract.errors import UserError
from bench.contract.record import Artifact, Audit
from tests.engines.code_prompts import PROMPTS

_AUDIT = Audit("", 0, 0, 0, 0, 0, 0.0, 0.0, tied_head=False, vocab_size=0, context=0)
_ARTIFACT = Artifact("", "", "", (), _AUDIT)
_NEW, _TOKENS = 48, 4


def main(name: str, folder: Path, tokenizer: Path, draft: str, *methods: str) -> dict[str, Any]:
    encode = Tokenizer.from_file(str(tokenizer)).encode
    prompts = [encode(text).ids for text in PROMPTS]
    result = {}
    for method in methods:
        options: dict[str, Any] = {"threads": 1}
        if method != "off":
            options |= {"speculative_method": method, "speculative_tokens": _TOKENS}
        if method == "draft":
            options["speculative_draft"] = f"path:{draft}"
        result[method] = _generated(name, folder, options, prompts)
    return result


def _generated(name: str, folder: Path, options: dict[str, Any], prompts: list[list[int]]) -> dict[str, Any]:
    """Tokens, passes and drafts of each prompt; what a batch of two is refused with."""
    engine = plugins.load(plugins.ENGINES, name)
    with engine.open(folder, _ARTIFACT, engine.Options(**options), "cpu") as session:
        runs = []
        for prompt in [*prompts, prompts[0]]:  # the last finds nothing of the first
            steps = list(session.generate([prompt], _NEW))
            drafts = list(session.drafts())  # type: ignore[attr-defined]  # of the engines that are asked
            passes = [len(list(its)) for _, its in groupby(step.time_s for step in steps)]
            runs.append({"tokens": [step.tokens[0] for step in steps], "passes": passes, "drafts": drafts})
        refused = ""
        try:
            list(session.generate([prompts[0][:8]] * 2, 2))
        except UserError as error:
            refused = str(error)
        return {"runs": runs, "refused": refused, "receipts": session.receipts(), "memory": session.memory()}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), *sys.argv[4:])))  # noqa: T201
