"""What an engine does with one artifact, as one JSON object; test_conformance.py starts it in its own Python.

`python conformance.py ENGINE FOLDER CONTEXT`: CONTEXT is the model's, in tokens. What needs logits is left
out for an engine that has no score mode.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from bench.contract import plugins
from bench.contract.errors import UserError
from bench.contract.hooks import Prompt, Question
from bench.contract.record import Artifact, Audit
from eval.scoring import likelihood

_NEW = 16
_CHOICES = [(1, (1, 3)), (40, (2, 5, 1)), (39, (6,)), (23, (4, 4, 4, 4)), (7, tuple(range(1, 9)) * 9)]
_PROMPTS = [[(17 * i + 101 * row) % 4000 + 5 for i in range(40)] for row in range(3)]
_DEEP_ROWS = {"onnxruntime": 1}  # of engines that feed no batch twice
_AUDIT = Audit("", 0, 0, 0, 0, 0, 0.0, 0.0, tied_head=False, vocab_size=0, context=0)
_ARTIFACT = Artifact("", "", "", (), _AUDIT)


def main(name: str, folder: Path, context: int) -> dict[str, Any]:
    engine = plugins.load(plugins.ENGINES, name)
    with engine.open(folder, _ARTIFACT, engine.Options(threads=1), "cpu") as session:
        alone = [_generate(session, [prompt]) for prompt in _PROMPTS]
        together = _generate(session, _PROMPTS)
        again = _generate(session, _PROMPTS)
        scored = _scored(session, alone) | _asked(session) if "score" in engine.MODES else {}
        return {
            **scored,
            "alone": [tokens for tokens, _ in alone],
            "together": together[0],
            "again": again[0],
            "deep": _deep(session, _DEEP_ROWS.get(name, 3)) if "offline" in engine.DEPTH_MODES else None,
            "times": together[1],
            "receipts": session.receipts(),
            "memory": session.memory(),
            "too_long": _refused(session, context, engine.MODES),
        }


def _deep(session: Any, rows: int) -> list[dict[str, Any]]:
    """The prompts' ends after their beginnings, with another end in between, and one prompt alone at last."""
    contexts, ends = [prompt[:32] for prompt in _PROMPTS[:rows]], [prompt[32:] for prompt in _PROMPTS[:rows]]
    return [
        _after(session, contexts, ends),
        _after(session, contexts, [end[::-1][:5] for end in ends]),
        _after(session, contexts, ends),
        _after(session, contexts[:1], ends[:1]),
    ]


def _after(session: Any, contexts: list[list[int]], prompts: list[list[int]]) -> dict[str, Any]:
    starts: list[float] = []
    steps = list(session.generate_at_depth(contexts, prompts, _NEW, lambda: starts.append(time.perf_counter())))
    tokens = [[step.tokens[row] for step in steps] for row in range(len(prompts))]
    return {"tokens": tokens, "starts": starts, "first": steps[0].time_s}


def _scored(session: Any, alone: list[tuple[list[list[int]], list[float]]]) -> dict[str, Any]:
    """What the logits are, and what they say was most likely where `alone` was made."""
    blocks = list(session.logits(_PROMPTS[0]))
    return {
        "greedy": [_greedy(session, p, output[0]) for p, (output, _) in zip(_PROMPTS, alone, strict=True)],
        "starts": [block.start for block in blocks],
        "rows": [len(block.logits) for block in blocks],
        "dtypes": sorted({str(block.logits.dtype) for block in blocks}),
        "finite": all(bool(np.isfinite(block.logits).all()) for block in blocks),
    }


def _asked(session: Any) -> dict[str, Any]:
    """Choices by the engine's own way and by its logits; prompts of three lengths continued together."""
    questions = [
        Question(_ids(context, 3), tuple(_ids(n, 5 + k) for k, n in enumerate(lengths)))
        for context, lengths in _CHOICES
    ]
    plain = dict(likelihood.by_logits(session, questions))
    own = dict(session.loglikelihood(questions)) if hasattr(session, "loglikelihood") else plain
    prompts = [Prompt(tuple(prompt[: 40 - 5 * row]), _NEW - row) for row, prompt in enumerate(_PROMPTS)]
    ends = likelihood.continued(session, prompts, lambda place, made: place == 2 and len(made) == 4)
    return {
        "choices": [own[place] for place in range(len(questions))],
        "by_logits": [plain[place] for place in range(len(questions))],
        "written": [ends[place] for place in range(len(prompts))],
        "made": [_generate(session, [list(p.ids)])[0][0][: p.new_tokens] for p in prompts],
    }


def _ids(count: int, seed: int) -> tuple[int, ...]:
    return tuple((31 * i + 97 * seed) % 4000 + 5 for i in range(count))


def _generate(session: Any, prompts: list[list[int]]) -> tuple[list[list[int]], list[float]]:
    """Tokens by sequence, and each step's time."""
    steps = list(session.generate(prompts, _NEW))
    return [[step.tokens[row] for step in steps] for row in range(len(prompts))], [s.time_s for s in steps]


def _greedy(session: Any, prompt: list[int], output: list[int]) -> list[int]:
    """The most likely next token of each position that `output` was output at, by the engine's own logits."""
    logits = np.concatenate([block.logits for block in session.logits(prompt + output)])
    return [int(token) for token in logits[len(prompt) - 1 : -1].argmax(axis=1)]


def _refused(session: Any, context: int, modes: frozenset[str]) -> list[str]:
    """The sentences for a prompt that leaves no room, and for a text longer than the context."""
    sentences = []
    attempts: list[tuple[Any, tuple[Any, ...]]] = [(session.generate, ([[5] * (context - 4)], 8))]
    attempts += [(session.logits, ([5] * (context + 1),))] if "score" in modes else []
    for attempt, words in attempts:
        try:
            list(attempt(*words))
        except UserError as error:
            sentences.append(str(error))
    return sentences


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))) + "\n")
