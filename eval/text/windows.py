"""A text cut into windows: which tokens are in one context, and which of them are scored.

The text is encoded once, by the model's own rules (with BOS at its start, where the model adds one); only full
windows count. Two conventions:

`hf-<context>`: windows start at 0, stride, 2 stride, ... A token is scored in the first window that contains
it, from the tokens before it in that window; the first token of the text is never scored, and where stride
equals context (the default, the loop of the GPTQ paper's code) neither is the first token of any window.

`llama.cpp-<context>`: as llama.cpp's `llama-perplexity` (tools/perplexity/perplexity.cpp). Windows do not
overlap, and the first token of each is replaced by BOS if the model adds one. Tokens context/2+1 .. context-1 are
scored, each from at least half a window. That tool requires two windows; here one is enough.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bench.contract import phase
from bench.contract.errors import UserError
from bench.contract.hooks import Session
from bench.formats import folder as model_folder
from eval import corpora
from eval.text import tokens

Convention = Literal["hf", "llama.cpp"]
_MAX_OVERLAP = 0.01
_ROWS = 64  # of logits in one piece: a few hundred KiB to a few MiB, which fit in the CPU's caches


@dataclass(frozen=True)
class Scope:
    """Of every task over a text: what is scored of it. `tokens` 0 means the whole text, else its first tokens only."""

    corpus: str = "stdlib"
    context: int = 512
    tokens: int = 0
    convention: Convention = "hf"

    @property
    def stride(self) -> int:
        """Tokens between the starts of two windows; 0 means `context`."""
        return 0

    @property
    def title(self) -> str:
        """As stdlib-hf-512, with -s256 for another stride and -32768t for a cut text."""
        stride = f"-s{self.stride}" if self.stride not in (0, self.context) else ""
        cut = f"-{self.tokens}t" if self.tokens else ""
        return f"{label(self.corpus)}-{self.convention}-{self.context}{stride}{cut}"


@dataclass(frozen=True)
class Window:
    """`ids[first:]` are scored, each from those before it; `size` is the UTF-8 bytes they cover."""

    start: int
    ids: Sequence[int]
    first: int
    size: int

    @property
    def scored(self) -> int:
        return len(self.ids) - self.first


@dataclass(frozen=True)
class Cut:
    """A text in windows. `sha256`: of all of it; `overlap`: the share of it that the artifact was calibrated on."""

    ids: Sequence[int]
    sha256: str
    overlap: float
    windows: tuple[Window, ...]

    @property
    def items(self) -> str:
        """The SHA-256 of every window's ids and first scored position: the same items, the same digest."""
        plain = [[list(w.ids), w.first] for w in self.windows]
        return hashlib.sha256(json.dumps(plain, separators=(",", ":")).encode()).hexdigest()

    def watched(self) -> Iterator[Window]:
        """The windows, one after the other, with how many tokens of all are scored told between two."""
        steps = phase.Steps("scoring: {done:,} of {total:,} tokens", sum(window.scored for window in self.windows))
        steps.at(0)
        for window in self.windows:
            yield window
            steps.add(window.scored)

    def facts(self, scope: Scope) -> dict[str, Any]:
        """What a record states of the items, whatever is measured over them."""
        return {
            "corpus": label(scope.corpus),
            "sha256": self.sha256,
            "tokens": len(self.ids),
            "first_ids": self.ids[:8],
            "context": scope.context,
            "windows": len(self.windows),
            "window_tokens": [window.scored for window in self.windows],
            "window_bytes": [window.size for window in self.windows],
            "calibration_overlap_fraction": self.overlap,
        }


def cut(session: Session, scope: Scope, folder: Path) -> Cut:
    """The text's windows for this artifact; UserError for too long a context, or text it was calibrated on."""
    _check(scope, folder)
    corpus = corpora.load(scope.corpus)
    encoded = tokens.encode(session, corpus.text, folder, scope.tokens)
    count = len(encoded.ids)
    if count < scope.context:
        raise UserError(
            f"the text '{label(scope.corpus)}' has {count} tokens, fewer than one context of {scope.context}"
        )
    overlap = _overlap(corpus.text[: encoded.end], folder)
    return Cut(encoded.ids, corpus.sha256, overlap, tuple(_windows(encoded, scope)))


def scored(session: Session, window: Window) -> Iterator[tuple[Any, Any]]:
    """Logits that predict the scored tokens, [at most 64 rows, vocab], with those tokens' ids, in order."""
    import numpy as np

    targets, positions = np.asarray(window.ids), 0
    for block in session.logits(window.ids):
        positions += len(block.logits)
        stop = min(len(block.logits), len(targets) - 1 - block.start)
        for low in range(max(0, window.first - 1 - block.start), stop, _ROWS):
            rows = block.logits[low : min(low + _ROWS, stop)]
            first = block.start + low + 1
            yield rows, targets[first : first + len(rows)]
    if positions != len(targets):
        raise UserError(f"the engine returned logits of {positions} of {len(targets)} tokens: its context is too small")


def label(corpus: str) -> str:
    """A `path:` corpus by its file's name, without the folders of this machine."""
    return Path(corpus.removeprefix("path:")).name if corpus.startswith("path:") else corpus


def _windows(text: tokens.Encoded, scope: Scope) -> Iterator[Window]:
    context, stride = scope.context, scope.stride or scope.context
    for start in range(0, len(text.ids) - context + 1, stride):
        ids = text.ids[start : start + context]
        first = max(1, context - stride) if start else 1
        if scope.convention == "llama.cpp":
            ids = ids if text.bos is None else [text.bos, *ids[1:]]
            first = context // 2 + 1
        yield Window(start, ids, first, sum(text.sizes[start + first : start + context]))


def _check(scope: Scope, folder: Path) -> None:
    least = {"hf": 2, "llama.cpp": 3}[scope.convention]
    if scope.context < least:
        raise UserError(f"a context has at least {least} tokens, not {scope.context}: none would be scored")
    if scope.stride and scope.convention == "llama.cpp":
        raise UserError("convention llama.cpp has no stride: leave it out, or use convention hf")
    if not 0 <= scope.stride <= scope.context:
        raise UserError(f"stride {scope.stride} is outside 0 .. {scope.context}, the context")
    if scope.tokens < 0:
        raise UserError(f"invalid tokens {scope.tokens}: expected 0, for the whole text, or a positive number")
    context = model_folder.context_length(_json(folder / model_folder.CONFIG))
    if context and scope.context > context:
        raise UserError(f"the model's context is {context} tokens: a window of {scope.context} does not fit")


def _overlap(text: str, folder: Path) -> float:
    """The share of the text's paragraphs that the artifact was calibrated on; UserError above 1 %."""
    file = folder / "calibration.json"
    paragraphs = corpora.fingerprint(text)
    if not file.is_file() or not paragraphs:
        return 0.0
    share = len(paragraphs.intersection(_json(file)["paragraphs"])) / len(paragraphs)
    if share > _MAX_OVERLAP:
        raise UserError(
            f"the artifact was calibrated on {share:.0%} of this text's paragraphs: score it on another text"
        )
    return share


def _json(file: Path) -> Any:
    """A JSON file of the artifact's folder; {} where there is none, or the artifact is a single file."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except ValueError:
        raise UserError(f"{file.name} of the artifact is not valid JSON: make or download it again") from None
