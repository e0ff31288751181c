"""Calibration text, drawn here for every method, so that two methods get the same tokens.

It is recorded next to the weights: tasks refuse to score a model on the text it was calibrated on.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.contract import phase
from bench.contract.errors import UserError
from bench.formats import folder as model_folder
from eval import corpora
from quantize import checkpoint


@dataclass(frozen=True)
class Options:
    """Of every method that draws calibration text: a corpus, and `samples` of `length` tokens of it.

    `bos`: the first token of each is the one that the model's tokenizer puts before a text, if it does.
    """

    calibration: str = "stdlib"
    samples: int = 128
    length: int = 512
    seed: int = 0
    bos: bool = False


@dataclass(frozen=True)
class WeightedOptions(Options):
    """Of methods that minimize an error over the text. `first_token_weight`: of each sample's first token.

    1: it counts as any other, as libraries have it. Else it counts so many times, as if it were no larger than
    others are. All later tokens attend to it, and some models make it an attention sink: docs/attention-sinks.md.
    """

    first_token_weight: float = 1.0


@dataclass(frozen=True)
class Calibration:
    """`ids`: windows of equally many token ids, cut from one text without overlap.

    They have no special tokens but `bos`, where that is not None, in place of each one's first. `sha256` and
    `paragraphs` (see eval.corpora.fingerprint) are of the whole text. Each window's first token weighs
    `first_token_weight` in methods that minimize an error over it.
    """

    corpus: str
    sha256: str
    paragraphs: tuple[str, ...]
    ids: tuple[tuple[int, ...], ...]
    first_token_weight: float = 1.0
    bos: int | None = None

    @property
    def tokens(self) -> int:
        return sum(len(window) for window in self.ids)

    def facts(self) -> dict[str, str | float]:
        """For the artifact's record."""
        return {
            "calibration_corpus": self.corpus,
            "calibration_sha256": self.sha256,
            "calibration_samples": len(self.ids),
            "calibration_tokens": self.tokens,
            **({"first_token_weight": self.first_token_weight} if self.first_token_weight != 1 else {}),
            **({} if self.bos is None else {"calibration_bos": self.bos}),
        }

    def write(self, out: Path) -> None:
        """Put the text's fingerprints into the artifact's folder."""
        checkpoint.record_text(out, {"corpus": self.corpus, "sha256": self.sha256, "paragraphs": self.paragraphs})

    def encodings(self) -> list[dict[str, list[int]]]:
        """A tokenizer's output for each window; all have one length, and need no padding."""
        return [{"input_ids": list(ids), "attention_mask": [1] * len(ids)} for ids in self.ids]


def from_options(folder: Path, options: Options) -> Calibration:
    text = samples(folder, options.calibration, options.samples, options.length, options.seed)
    if options.bos and (bos := _bos(folder)) is not None:
        text = replace(text, bos=bos, ids=tuple((bos, *window[1:]) for window in text.ids))
    return replace(text, first_token_weight=getattr(options, "first_token_weight", 1.0))


def samples(folder: Path, corpus: str, samples: int, length: int, seed: int) -> Calibration:
    """`samples` windows of `length` tokens of the corpus's calibration split; ids and errors as of `cut`."""
    if samples < 1 or length < 1:
        raise UserError(f"calibration needs at least 1 sample of 1 token, not {samples} of {length}")
    if model_folder.is_dummy(folder):
        return _random(folder, samples, length, seed)
    return cut(folder, corpora.load(corpus, "calibration"), samples, length, seed)


def cut(folder: Path, text: corpora.Corpus, samples: int, length: int, seed: int) -> Calibration:
    """`samples` windows of `length` tokens of `text`, by the model's own tokenizer.

    Random ids for dummy weights, which have no tokenizer and for which one text is as good as another.
    UserError when the folder has no tokenizer.json, or the text is too short for so many windows.
    """
    if model_folder.is_dummy(folder):
        return _random(folder, samples, length, seed)
    phase.begin("tokenizing the calibration text")
    ids = _tokenize(folder, text.text)
    starts = _starts(len(ids), samples, length, seed)
    if starts is None:
        raise UserError(
            f"the {text.split} text '{text.name}' has {len(ids)} tokens: {len(ids) // length} samples of "
            f"{length} fit, not {samples}; ask for fewer or shorter samples"
        )
    windows = tuple(tuple(ids[start : start + length]) for start in starts)
    return Calibration(_label(text.name), text.sha256, tuple(sorted(corpora.fingerprint(text.text))), windows)


def batches(text: Calibration, size: int) -> Any:
    """The windows in order as a torch DataLoader of {input_ids, attention_mask}, `size` at a time."""
    import torch
    from torch.utils.data import DataLoader

    rows = [{name: torch.tensor(values) for name, values in row.items()} for row in text.encodings()]
    return DataLoader(rows, batch_size=size)


def _random(folder: Path, samples: int, length: int, seed: int) -> Calibration:
    """Windows of uniformly random ids of the model's vocabulary."""
    vocab = model_folder.vocab_size(model_folder.read_config(folder))
    draw = random.Random(seed)  # noqa: S311  (a reproducible sample, not a secret)
    ids = tuple(tuple(draw.randrange(vocab) for _ in range(length)) for _ in range(samples))
    return Calibration("random ids", "", (), ids)


def _starts(tokens: int, samples: int, length: int, seed: int) -> list[int] | None:
    """Sorted starts of windows that do not overlap, spread randomly over the text; None when too many."""
    slack = tokens - samples * length
    if slack < 0:
        return None
    draw = random.Random(seed)  # noqa: S311  (a reproducible sample, not a secret)
    gaps = sorted(draw.randint(0, slack) for _ in range(samples))
    return [gap + i * length for i, gap in enumerate(gaps)]


def _tokenize(folder: Path, text: str) -> list[int]:
    ids: list[int] = _tokenizer(folder).encode(text, add_special_tokens=False).ids
    return ids


def _bos(folder: Path) -> int | None:
    """The token that the model's tokenizer puts before every text; None where it puts none, or has dummy weights."""
    if model_folder.is_dummy(folder):
        return None
    empty, word = (_tokenizer(folder).encode(text).ids[:1] for text in ("", "a"))
    return empty[0] if empty and empty == word else None


def _tokenizer(folder: Path) -> Any:
    from tokenizers import Tokenizer

    file = folder / "tokenizer.json"
    if not file.is_file():
        raise UserError("the model folder has no tokenizer.json: save its tokenizer there in the fast format")
    return Tokenizer.from_file(str(file))


def _label(corpus: str) -> str:
    """The corpus as a record names it: a file without the folders of this machine."""
    return f"path:{Path(corpus).name}" if corpus.startswith("path:") else corpus
