"""Whether an engine computes what the baseline's does: KL divergence on a short text, and greedy generation by it.

Of the divergence the mean over all scored tokens, in nats. Of the generation how far the least likely of the generated
tokens is from the likeliest, by the engine's own logits of the same text: 0 where decoding with a cache gives what a
whole pass gives. `divergence` is the one to compare recipes by; this one asks for a yes or no.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.contract.columns import Column
from bench.contract.errors import UserError
from bench.contract.hooks import Session
from eval.scoring import logprobs
from eval.stats import paired
from eval.text import windows

VERSION = 1
REFERENCE = True
COLUMNS = (
    Column("conformance_kl", "KL {title}", digits=2, better="lower", text_unit="nats", axis_min=1e-4),
    Column("greedy_gap_nats", "greedy gap", digits=2, better="lower", text_unit="nats"),
)
_SAME = ("sha256", "context", "convention", "tokens", "windows", "window_tokens", "reference")


@dataclass(frozen=True)
class Options(windows.Scope):
    """As of windows.Scope. `new_tokens` follow each of `prompts` prompts of half a window, in one batch."""

    context: int = 128
    tokens: int = 512
    convention: windows.Convention = "llama.cpp"
    prompts: int = 2
    new_tokens: int = 16


def title(options: Options) -> str:
    return f"conformance-{options.title}"


def prepare(session: Session, options: Options, folder: Path, out: Path) -> Mapping[str, Any]:
    """Store the baseline's log-probabilities in `out`."""
    text = windows.cut(session, options, folder)
    blocks = (block for window in text.windows for block in windows.scored(session, window))
    stored = logprobs.store(blocks, sum(window.scored for window in text.windows), out)
    return {"items_sha256": text.items, **asdict(stored)}


def evaluate(session: Session, options: Options, folder: Path, reference: Path | None) -> Mapping[str, Any]:
    """Per window the sum of KL (nats) and the agreements; the tokens generated, and each one's gap (nats).

    UserError for another tokenization or vocabulary than the baseline's, and where logits are not finite.
    """
    if reference is None:
        raise UserError("conformance is measured against a baseline: run it from a suite")
    stored = json.loads((reference / "reference.json").read_text(encoding="utf-8"))
    text = windows.cut(session, options, folder)
    if text.items != stored["items_sha256"]:
        raise UserError("this artifact's tokenizer splits the text into other tokens than the baseline's")
    baseline = logprobs.load(reference)
    sums, row = [], 0
    for window in text.windows:
        sums.append(_sums(session, window, baseline, row))
        row += window.scored
    return {
        **text.facts(options),
        "convention": options.convention,
        "window_kl": [kl for kl, _ in sums],
        "window_top1": [top1 for _, top1 in sums],
        "greedy_gaps": _greedy_gaps(session, options, text),
        "reference": {key: stored[key] for key in ("digest", "engine", "artifact")},
    }


def metrics(facts: Mapping[str, Any]) -> Mapping[str, float]:
    tokens = facts["window_tokens"]
    return {
        "conformance_kl": math.fsum(facts["window_kl"]) / sum(tokens),
        "conformance_top1_fraction": sum(facts["window_top1"]) / sum(tokens),
        "greedy_gap_nats": max(facts["greedy_gaps"]),
        "scored_tokens": float(sum(tokens)),
    }


def compare_by_reference(facts: Mapping[str, Any], other: Mapping[str, Any]) -> Mapping[str, float]:
    """How much further than another artifact this one is from the reference of both, in nats per token."""
    paired.require_same_items(facts, other, _SAME, ("window_kl",))
    return {
        f"conformance_kl_change{end}": value for end, value in paired.window_changes(facts, other, "window_kl").items()
    }


def _sums(session: Session, window: windows.Window, baseline: logprobs.Baseline, row: int) -> tuple[float, int]:
    """KL(baseline || this) summed over the window's scored tokens, and how many have the same likeliest id."""
    import numpy as np

    total, same = 0.0, 0
    for logits, targets in windows.scored(session, window):
        expected, top, _ = baseline.rows(row, row + len(targets))
        row += len(targets)
        if logits.shape[1] != expected.shape[1]:
            raise UserError(
                f"this engine's vocabulary has {logits.shape[1]} entries and the baseline's {expected.shape[1]}"
            )
        kl = logprobs.kl(expected, logprobs.log_softmax(logits))
        if not np.isfinite(kl).all():
            raise UserError(f"logits of the window at token {window.start} are not finite: use a wider compute dtype")
        total, same = total + float(kl.sum()), same + int((logits.argmax(axis=1) == top).sum())
    return total, same


def _greedy_gaps(session: Session, options: Options, text: windows.Cut) -> list[float]:
    """Of each generated token: the largest logit where it was generated less its own, by a pass over the whole text."""
    import numpy as np

    prompts = [list(window.ids[: options.context // 2]) for window in text.windows[: options.prompts]]
    steps = list(session.generate(prompts, options.new_tokens))
    gaps: list[float] = []
    for place, prompt in enumerate(prompts):
        output = [step.tokens[place] for step in steps]
        logits = np.concatenate([block.logits for block in session.logits(prompt + output)])
        rows = logits[len(prompt) - 1 : len(prompt) - 1 + len(output)].astype(np.float64)
        gaps += (rows.max(axis=1) - rows[np.arange(len(rows)), output[: len(rows)]]).tolist()
    return gaps
