"""Perplexity over a named text: what quantization papers report, with everything that affects it in its name.

The conventions `hf-<context>` and `llama.cpp-<context>` (eval/text/windows.py) score different tokens with
different context. Perplexity is exp(sum of negative log-likelihoods / scored tokens); bits per byte divides that
sum by ln 2 and by the UTF-8 bytes of the scored tokens, and compares across tokenizers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.contract.columns import Column, Group
from bench.contract.errors import UserError
from bench.contract.hooks import Session
from eval.scoring import logprobs
from eval.stats import paired
from eval.text import windows

VERSION = 1
REFERENCE = False
_CHANGE = Column(
    "perplexity_change_fraction",
    "vs baseline",
    "%",
    100.0,
    better="lower",
    groups=Group.CHANGE | Group.RELATIVE,
    interval=("perplexity_change_low_fraction", "perplexity_change_high_fraction"),
)
_BITS_CHANGE = Column(
    "bits_per_byte_change_fraction",
    "bits/byte vs baseline",
    "%",
    100.0,
    better="lower",
    groups=Group.CHANGE | Group.RELATIVE | Group.ANY_TOKENS,
)
COLUMNS = (
    Column(
        "perplexity", "ppl {title}", digits=4, better="lower", groups=Group.LOG_AXIS | Group.PER_TOKEN, change=_CHANGE
    ),
    _CHANGE,
    Column(
        "bits_per_byte", "bits/byte {title}", digits=4, better="lower", groups=Group.ANY_TOKENS, change=_BITS_CHANGE
    ),
    _BITS_CHANGE,
)
_SAME_BYTES = 0.02  # by how much the part of a text may differ that tokens of two kinds cover
# Facts that two comparable records share.
_SAME_TEXT = ("sha256", "context", "stride")
_SAME = ("tokens", "first_ids", "windows", "window_tokens")


@dataclass(frozen=True)
class Options(windows.Scope):
    """`stride` 0 means `context`; the rest as of windows.Scope."""

    stride: int = 0


def title(options: Options) -> str:
    return f"perplexity-{options.title}"


def evaluate(session: Session, options: Options, folder: Path, reference: Path | None = None) -> Mapping[str, Any]:
    """Per window: summed negative log-likelihood (nats), scored tokens, and the UTF-8 bytes they cover.

    UserError when the context is longer than the model's or than the text, when the artifact was calibrated on
    the text, or when logits are not finite.
    """
    text = windows.cut(session, options, folder)
    nlls = []
    for window in text.watched():
        blocks = windows.scored(session, window)
        nlls.append(math.fsum(float(logprobs.target_nll(rows, targets).sum()) for rows, targets in blocks))
        if not math.isfinite(nlls[-1]):
            raise UserError(f"logits of the window at token {window.start} are not finite: use a wider compute dtype")
    return {**text.facts(options), "stride": options.stride or options.context, "window_nll": nlls}


def metrics(facts: Mapping[str, Any]) -> Mapping[str, float]:
    nll, tokens = math.fsum(facts["window_nll"]), sum(facts["window_tokens"])
    return {
        "perplexity": math.exp(min(nll / tokens, 700.0)),  # a broken model's is huge, but no overflow
        "nll_per_token": nll / tokens,
        "bits_per_byte": nll / math.log(2) / sum(facts["window_bytes"]),
        "scored_tokens": float(tokens),
    }


def compare_to_baseline(facts: Mapping[str, Any], baseline: Mapping[str, Any]) -> Mapping[str, float]:
    """The relative change of perplexity and, from two windows on, its 95 % interval (`paired.window_changes`).

    Where a tokenizer cuts the same text otherwise (`other_tokenizer` says how), of bits per byte, which nothing pairs.
    """
    paired.require_same_items(facts, baseline, _SAME_TEXT)
    if facts.get("other_tokenizer") != baseline.get("other_tokenizer"):
        one, two = (sum(its["window_bytes"]) for its in (baseline, facts))
        if abs(two - one) > _SAME_BYTES * one:
            raise UserError(f"{two} bytes of the text are scored here and {one} of the baseline: score all of it")
        bits = [metrics(its)["bits_per_byte"] for its in (baseline, facts)]
        return {"bits_per_byte_change_fraction": bits[1] / bits[0] - 1} if bits[0] else {}
    paired.require_same_items(facts, baseline, _SAME, ("window_nll",))
    changes = paired.window_changes(facts, baseline, "window_nll")
    return {f"perplexity_change{end}_fraction": math.expm1(change) for end, change in changes.items()}
