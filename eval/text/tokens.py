"""Text to token ids by the model's own tokenizer, with the bytes of text that each token covers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.contract.hooks import Session


@dataclass(frozen=True)
class Encoded:
    """A text's first tokens, the UTF-8 bytes each adds, the characters they cover, and the id put before every text."""

    ids: list[int]
    sizes: list[int]
    end: int
    bos: int | None


def encode(session: Session, text: str, folder: Path, limit: int = 0) -> Encoded:
    """The first `limit` tokens of the text (0: all), special tokens added as the model adds them.

    By the artifact's tokenizer.json; where it has none (a bare GGUF file), by the tokenizer stored with the
    weights, through the engine.
    """
    file = folder / "tokenizer.json"
    if not file.is_file():
        ids, sizes = session.encode(text)
        empty, _ = session.encode("")
        ids, sizes = ids[: limit or None], sizes[: limit or None]
        covered = text.encode()[: sum(sizes)]
        return Encoded(ids, sizes, len(covered.decode(errors="ignore")), _bos(empty, ids, sizes))
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    encoded = tokenizer.encode(text)
    ids = encoded.ids[: limit or None]
    if not ids:
        return Encoded([], [], 0, None)
    sizes, end = _sizes(text, encoded.offsets[: len(ids)])
    return Encoded(ids, sizes, end, _bos(tokenizer.encode("").ids, ids, sizes))


def _bos(empty: Sequence[int], ids: Sequence[int], sizes: Sequence[int]) -> int | None:
    """A model adds BOS if the empty text has a token and the text begins with it, for none of its bytes."""
    return ids[0] if ids and list(empty[:1]) == [ids[0]] and sizes[0] == 0 else None


def _sizes(text: str, offsets: Sequence[Any]) -> tuple[list[int], int]:
    """The UTF-8 bytes of each token, and the character at which the last one ends.

    A token's bytes begin where the one before it ends: characters left out of the offsets (spaces) are counted.
    Tokens that end at the same character (the bytes of an unknown one) share its bytes evenly.
    """
    import numpy as np

    ends = np.maximum.accumulate([end for _, end in offsets])
    points = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
    width = 1 + (points >= 0x80).astype(np.int64) + (points >= 0x800) + (points >= 0x10000)
    before = np.concatenate([[0], np.cumsum(width)])  # bytes before each character
    stops, first, inverse, count = np.unique(ends, return_index=True, return_inverse=True, return_counts=True)
    share, rest = np.divmod(np.diff(before[stops], prepend=0), count)
    sizes = share[inverse] + (np.arange(len(ends)) - first[inverse] < rest[inverse])
    return sizes.tolist(), int(ends[-1])
