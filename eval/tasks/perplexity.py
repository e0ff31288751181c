"""Perplexity over a named text: what quantization papers report, with everything that affects it in its name.

The conventions `hf-<context>` and `llama.cpp-<context>` (eval/text/windows.py) score different tokens with
different context. Perplexity is exp(sum of negative log-likelihoods / scored tokens); bits per byte divides that
sum by ln 2 and by the UTF-8 bytes of the scored tokens, and compares across tokenizers. With `by_position` it is
also given by how many tokens come before (eval/text/positions.py).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.contract.columns import Column, Group, Part
from bench.contract.errors import UserError
from bench.contract.hooks import Session
from eval.scoring import logprobs
from eval.stats import paired
from eval.text import positions, windows

VERSION = 1
REFERENCE = False
OPTIONS_SINCE = frozenset({"by_position"})
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
PART_COLUMNS = (
    Column(
        "perplexity",
        "ppl",
        digits=4,
        better="lower",
        groups=Group.LOG_AXIS,
        interval=("perplexity_low", "perplexity_high"),
    ),
    _CHANGE,
)
_SAME_BYTES = 0.02  # by how much the part of a text may differ that tokens of two kinds cover
# Facts that two comparable records share.
_SAME_TEXT = ("sha256", "context", "stride")
_SAME = ("tokens", "first_ids", "windows", "window_tokens")


@dataclass(frozen=True)
class Options(windows.Scope):
    """`stride` 0 means `context`. `by_position`: also by how many tokens come before. The rest as of windows.Scope."""

    stride: int = 0
    by_position: bool = False


def title(options: Options) -> str:
    return f"perplexity-{options.title}"


def evaluate(session: Session, options: Options, folder: Path, reference: Path | None = None) -> Mapping[str, Any]:
    """Per window: summed negative log-likelihood (nats), scored tokens, and the UTF-8 bytes they cover.

    UserError when the context is longer than the model's or than the text, when the artifact was calibrated on
    the text, or when logits are not finite.
    """
    import numpy as np

    text = windows.cut(session, options, folder)
    nlls, by_token = [], []
    for window in text.watched():
        blocks = [logprobs.target_nll(rows, targets) for rows, targets in windows.scored(session, window)]
        nlls.append(math.fsum(float(block.sum()) for block in blocks))
        if not math.isfinite(nlls[-1]):
            raise UserError(f"logits of the window at token {window.start} are not finite: use a wider compute dtype")
        by_token.append(np.concatenate(blocks))
    facts = {**text.facts(options), "stride": options.stride or options.context, "window_nll": nlls}
    if options.by_position:
        facts["by_position"] = positions.bins(text.windows, {"window_nll": by_token}, options.context)
    return facts


def metrics(facts: Mapping[str, Any]) -> Mapping[str, float]:
    nll, tokens = math.fsum(facts["window_nll"]), sum(facts["window_tokens"])
    return {
        "perplexity": math.exp(min(nll / tokens, 700.0)),  # a broken model's is huge, but no overflow
        "nll_per_token": nll / tokens,
        "bits_per_byte": nll / math.log(2) / sum(facts["window_bytes"]),
        "scored_tokens": float(tokens),
    }


def parts(facts: Mapping[str, Any], baseline: Mapping[str, Any] | None) -> Sequence[Part]:
    """By position, from two windows on with a 95 % interval; against the baseline's by paired windows."""
    its = facts.get("by_position", ())
    if baseline is None or not its:
        return [positions.part(one, _of_bin(one)) for one in its]
    paired.require_same_items(facts, baseline, (*_SAME_TEXT, *_SAME), ("by_position",))
    pairs = zip(its, baseline["by_position"], strict=True)
    return [positions.part(one, {**_of_bin(one), **_change_of_bin(one, other)}) for one, other in pairs]


def _of_bin(its: positions.Bin) -> dict[str, float]:
    sums, tokens = positions.sums(its, "window_nll")
    nll, half = paired.per_token(sums, tokens)
    ends = {"": nll, **({"_low": max(0.0, nll - half), "_high": nll + half} if len(tokens) > 1 else {})}
    perplexities = {f"perplexity{end}": math.exp(min(value, 700.0)) for end, value in ends.items()}
    return {**perplexities, **{f"nll_per_token{end}": value for end, value in ends.items()}}


def _change_of_bin(its: positions.Bin, other: positions.Bin) -> dict[str, float]:
    sums, tokens = positions.sums(its, "window_nll", other)
    change, half = paired.per_token(sums, tokens)
    ends = {"": change, **({"_low": change - half, "_high": change + half} if len(tokens) > 1 else {})}
    return {f"perplexity_change{end}_fraction": math.expm1(value) for end, value in ends.items()}


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
