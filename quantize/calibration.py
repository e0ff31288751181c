"""Calibration text: every method that looks at data draws it here, so that two methods see the same tokens.

What was seen is written beside the weights. The perplexity task reads it, and refuses to score the text a
model was calibrated on.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.contract.errors import UserError
from bench.contract.record import Source
from bench.formats import folder as model_folder
from eval import corpora
from quantize import checkpoint


@dataclass(frozen=True)
class Calibration:
    """`ids`: windows of equally many token ids, cut from one text without overlap and without special tokens.

    `sha256` is the whole text's, and so are `paragraphs` (see eval.corpora.fingerprint).
    """

    corpus: str
    sha256: str
    paragraphs: tuple[str, ...]
    ids: tuple[tuple[int, ...], ...]

    @property
    def tokens(self) -> int:
        return sum(len(window) for window in self.ids)

    def facts(self) -> dict[str, str | int]:
        """What a record says of it."""
        return {
            "calibration_corpus": self.corpus,
            "calibration_sha256": self.sha256,
            "calibration_samples": len(self.ids),
            "calibration_tokens": self.tokens,
        }

    def write(self, out: Path) -> None:
        """Leave the text's fingerprints in the artifact's folder."""
        seen = {"corpus": self.corpus, "sha256": self.sha256, "paragraphs": self.paragraphs}
        checkpoint.remember(out, seen)


def unsupported_length(source: Source, length: int) -> str | None:
    """Why samples of `length` tokens cannot be cut for the model; None when they can."""
    context = model_folder.context_length(source.config)
    if context and length > context:
        return f"calibration samples of {length} tokens are longer than the model's context of {context}"
    return None


def samples(folder: Path, corpus: str, samples: int, length: int, seed: int) -> Calibration:
    """`samples` windows of `length` tokens of the corpus's calibration split, by the model's own tokenizer.

    Random ids for dummy weights, to which one text is as good as another and which have no tokenizer.
    UserError when the folder has no tokenizer.json, or the text is too short for so many windows.
    """
    if samples < 1 or length < 1:
        raise UserError(f"calibration needs at least 1 sample of 1 token, not {samples} of {length}")
    if model_folder.is_dummy(folder):
        return _drawn(model_folder.vocab_size(model_folder.read_config(folder)), samples, length, seed)
    return cut(folder, corpora.load(corpus, "calibration"), samples, length, seed)


def cut(folder: Path, text: corpora.Corpus, samples: int, length: int, seed: int) -> Calibration:
    """`samples` windows of `length` tokens of a text that is at hand; dummy weights and errors as above."""
    if model_folder.is_dummy(folder):
        return _drawn(model_folder.vocab_size(model_folder.read_config(folder)), samples, length, seed)
    ids = _tokenize(folder, text.text)
    starts = _starts(len(ids), samples, length, seed)
    if starts is None:
        raise UserError(
            f"the {text.split} text '{text.name}' has {len(ids)} tokens: {len(ids) // length} samples of "
            f"{length} fit, not {samples}; ask for fewer or shorter samples"
        )
    windows = tuple(tuple(ids[start : start + length]) for start in starts)
    return Calibration(_shown(text.name), text.sha256, tuple(sorted(corpora.fingerprint(text.text))), windows)


def batches(seen: Calibration, size: int) -> Any:
    """The windows in order as a torch DataLoader of {input_ids, attention_mask}, `size` at a time."""
    import torch
    from torch.utils.data import DataLoader

    samples = [
        {"input_ids": torch.tensor(ids), "attention_mask": torch.ones(len(ids), dtype=torch.long)} for ids in seen.ids
    ]
    return DataLoader(samples, batch_size=size)


def _drawn(vocab: int, samples: int, length: int, seed: int) -> Calibration:
    """Windows of ids that are all equally likely."""
    draw = random.Random(seed)  # noqa: S311  (a reproducible sample, not a secret)
    ids = tuple(tuple(draw.randrange(vocab) for _ in range(length)) for _ in range(samples))
    return Calibration("random ids", "", (), ids)


def _starts(tokens: int, samples: int, length: int, seed: int) -> list[int] | None:
    """Sorted starts of windows that do not overlap, spread over the text by chance; None when too many."""
    slack = tokens - samples * length
    if slack < 0:
        return None
    draw = random.Random(seed)  # noqa: S311  (a reproducible sample, not a secret)
    gaps = sorted(draw.randint(0, slack) for _ in range(samples))
    return [gap + i * length for i, gap in enumerate(gaps)]


def _tokenize(folder: Path, text: str) -> list[int]:
    from tokenizers import Tokenizer

    file = folder / "tokenizer.json"
    if not file.is_file():
        raise UserError("the model folder has no tokenizer.json: save its tokenizer there in the fast format")
    ids: list[int] = Tokenizer.from_file(str(file)).encode(text, add_special_tokens=False).ids
    return ids


def _shown(corpus: str) -> str:
    """The corpus as a record may name it: a file without the folders that only this machine has."""
    return f"path:{Path(corpus).name}" if corpus.startswith("path:") else corpus
