"""Perplexity over a named text: what quantization papers report, with all that moves it in its name.

The convention is `hf-<context>`. The text is encoded once, by the tokenizer's own rules (a model with a BOS
token gets one, at the start of the text). Windows of `context` tokens start at 0, stride, 2 stride, ...;
only full windows count, the tail is dropped. A token is scored in the first window that holds it, from the
tokens before it in that window; the first token of the text is never scored, and where stride equals
context (the default, the loop of the GPTQ paper's code) neither is the first token of any window.
Perplexity is exp(sum of negative log-likelihoods / scored tokens); bits per byte divides the same sum by ln
2 and by the UTF-8 bytes of the scored tokens, and compares across tokenizers.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.contract.errors import UserError
from bench.contract.protocols import Session
from eval import corpora

VERSION = 1
_OVERLAP_MOST = 0.01
_ROWS = 64  # rows of logits exponentiated at once: a few hundred KiB to a few MiB, which caches hold
_Z95 = 1.959963984540054


@dataclass(frozen=True)
class Options:
    """`stride` 0 means `context`; `tokens` 0 means the whole text, else its first tokens only."""

    corpus: str = "stdlib"
    context: int = 512
    stride: int = 0
    tokens: int = 0


def title(options: Options) -> str:
    """As perplexity-stdlib-hf-512, with -s256 for another stride and -32768t for a cut text."""
    stride = f"-s{options.stride}" if options.stride not in (0, options.context) else ""
    cut = f"-{options.tokens}t" if options.tokens else ""
    return f"perplexity-{_label(options.corpus)}-hf-{options.context}{stride}{cut}"


def evaluate(session: Session, options: Options, folder: Path) -> Mapping[str, Any]:
    """Per window: summed negative log-likelihood (nats), scored tokens, and the UTF-8 bytes they cover.

    UserError when the model or the text has no room for the context, when calibration saw the text, or when
    logits are not finite.
    """
    context, stride = options.context, options.stride or options.context
    _check(options, folder)
    corpus = corpora.load(options.corpus)
    ids, sizes, end = _encode(corpus.text, folder, options.tokens)
    if len(ids) < context:
        raise UserError(
            f"the text '{_label(options.corpus)}' has {len(ids)} tokens, fewer than one context of {context}"
        )
    overlap = _overlap(corpus.text[:end], folder)
    nlls, tokens, covered = [], [], []
    for start in range(0, len(ids) - context + 1, stride):
        first = max(1, context - stride) if start else 1
        nlls.append(_nll(session, ids[start : start + context], first))
        if not math.isfinite(nlls[-1]):
            raise UserError(
                f"logits of the window at token {start} are not finite: use a wider compute dtype"
            )
        tokens.append(context - first)
        covered.append(sum(sizes[start + first : start + context]))
    return {
        "corpus": _label(options.corpus),
        "sha256": corpus.sha256,
        "tokens": len(ids),
        "first_ids": ids[:8],
        "context": context,
        "stride": stride,
        "windows": len(nlls),
        "window_nll": nlls,
        "window_tokens": tokens,
        "window_bytes": covered,
        "calibration_overlap_fraction": overlap,
    }


def metrics(facts: Mapping[str, Any]) -> Mapping[str, float]:
    nll, tokens = math.fsum(facts["window_nll"]), sum(facts["window_tokens"])
    return {
        "perplexity": math.exp(
            min(nll / tokens, 700.0)
        ),  # a wrecked model is to read as huge, not to overflow
        "nll_per_token": nll / tokens,
        "bits_per_byte": nll / math.log(2) / sum(facts["window_bytes"]),
        "scored_tokens": float(tokens),
    }


def compare(facts: Mapping[str, Any], baseline: Mapping[str, Any]) -> Mapping[str, float]:
    """The relative change of perplexity and, from two windows on, its 95 % interval.

    Windows are paired: with d the difference of their sums and n their tokens, the change of the mean is
    m = sum d / sum n, its standard error that of a ratio estimator over W windows,
    sqrt(W / (W - 1) * sum (d - m n)^2) / sum n, and the interval is normal in m.
    """
    for key in ("sha256", "context", "stride", "tokens", "first_ids", "windows", "window_tokens"):
        if facts[key] != baseline[key]:
            raise UserError(f"perplexities over different items cannot be compared: '{key}' differs")
    counts = facts["window_tokens"]
    changes = [a - b for a, b in zip(facts["window_nll"], baseline["window_nll"], strict=True)]
    mean = math.fsum(changes) / sum(counts)
    found = {"perplexity_change_fraction": math.expm1(mean)}
    if len(counts) > 1:
        spread = math.fsum((d - mean * n) ** 2 for d, n in zip(changes, counts, strict=True))
        half = _Z95 * math.sqrt(spread * len(counts) / (len(counts) - 1)) / sum(counts)
        found["perplexity_change_low_fraction"] = math.expm1(mean - half)
        found["perplexity_change_high_fraction"] = math.expm1(mean + half)
    return found


def _label(corpus: str) -> str:
    """A `path:` corpus goes by its file's name: where it lies is nobody's business."""
    return Path(corpus.removeprefix("path:")).name if corpus.startswith("path:") else corpus


def _check(options: Options, folder: Path) -> None:
    if options.context < 2:
        raise UserError(f"perplexity needs a context of at least 2 tokens, not {options.context}")
    if not 0 <= options.stride <= options.context:
        raise UserError(f"stride {options.stride} is outside 0 .. {options.context}, the context")
    if options.tokens < 0:
        raise UserError(f"tokens is {options.tokens}: give 0 for the whole text or a positive number")
    config = _json(folder / "config.json")
    text = config.get("text_config") or config
    room = text.get("max_position_embeddings") or text.get("n_positions")
    if room and options.context > room:
        raise UserError(f"the model's context is {room} tokens: perplexity at {options.context} is undefined")


def _encode(text: str, folder: Path, limit: int) -> tuple[list[int], list[int], int]:
    """Token ids, the UTF-8 bytes each adds to the text, and how many characters they cover together.

    A token's bytes run from the end of the one before it, so that what a tokenizer leaves out of its
    offsets (spaces) is counted. Tokens that end at the same character (the bytes of an unknown one) share
    it out evenly.
    """
    import numpy as np
    from tokenizers import Tokenizer

    file = folder / "tokenizer.json"
    if not file.is_file():
        raise UserError("the artifact has no tokenizer.json: perplexity needs the model's own fast tokenizer")
    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    encoded = tokenizer.encode(text)
    ids = encoded.ids[: limit or None]
    if not ids:
        return [], [], 0
    ends = np.maximum.accumulate([end for _, end in encoded.offsets[: len(ids)]])
    points = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
    width = 1 + (points >= 0x80).astype(np.int64) + (points >= 0x800) + (points >= 0x10000)
    before = np.concatenate([[0], np.cumsum(width)])  # bytes before each character
    stops, first, inverse, count = np.unique(ends, return_index=True, return_inverse=True, return_counts=True)
    share, rest = np.divmod(np.diff(before[stops], prepend=0), count)
    sizes = share[inverse] + (np.arange(len(ids)) - first[inverse] < rest[inverse])
    return ids, sizes.tolist(), int(ends[-1])


def _overlap(text: str, folder: Path) -> float:
    """The share of the text's paragraphs that the artifact was calibrated on; above 1 % a UserError."""
    file = folder / "calibration.json"
    paragraphs = corpora.fingerprint(text)
    if not file.is_file() or not paragraphs:
        return 0.0
    share = len(paragraphs.intersection(_json(file)["paragraphs"])) / len(paragraphs)
    if share > _OVERLAP_MOST:
        raise UserError(
            f"the artifact was calibrated on {share:.0%} of this text's paragraphs: score it on another text"
        )
    return share


def _nll(session: Session, ids: Sequence[int], first: int) -> float:
    """Nats: the summed negative log-likelihood of ids[first:], each given all before it."""
    import numpy as np

    targets = np.asarray(ids)
    total, seen = 0.0, 0
    for block in session.logits(ids):
        seen += len(block.logits)
        stop = min(len(block.logits), len(ids) - 1 - block.start)
        for low in range(max(0, first - 1 - block.start), stop, _ROWS):
            rows = block.logits[low : min(low + _ROWS, stop)]
            at = block.start + low + 1
            wanted = rows[np.arange(len(rows)), targets[at : at + len(rows)]].astype(np.float64)
            top = rows.max(axis=1, keepdims=True)
            sums = np.exp(rows - top).sum(axis=1, dtype=np.float64)
            total += float((np.log(sums) + top[:, 0] - wanted).sum())
    if seen != len(ids):
        raise UserError(
            f"the engine gave logits for {seen} of {len(ids)} positions: its context is too small"
        )
    return total


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError:
        raise UserError(f"{file.name} of the artifact is not valid JSON: make or download it again") from None
