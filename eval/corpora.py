"""Texts to score and to calibrate on, each with a hash: two numbers are never compared over different text.

Standard library only: the demo model's training script and every worker environment read the same files.
"""

from __future__ import annotations

import hashlib
import os
import re
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bench.contract.errors import UserError

Split = Literal["train", "calibration", "evaluation"]

# Charmap tables, generated grammars and vendored wheels teach nothing about Python prose or code.
_SKIPPED_PARTS = frozenset(
    {"site-packages", "dist-packages", "__pycache__", "encodings", "ensurepip", "bad_coding"}
)
_TEST_PARTS = frozenset({"test", "tests", "idle_test"})
_PARAGRAPH_CHARS = 200
_BLANK_LINES = re.compile(r"\n\s*\n")
_HUB_DATASETS = {"wikitext2": ("Salesforce/wikitext", "wikitext-2-raw-v1")}
_HUB_SPLITS = {"evaluation": "test", "calibration": "train", "train": "train"}


@dataclass(frozen=True)
class Corpus:
    """A text with the name a user gave it and the SHA-256 of its UTF-8 bytes."""

    name: str
    split: str
    text: str

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()


def load(name: str, split: Split = "evaluation") -> Corpus:
    """The corpus called `name`: `stdlib`, `wikitext2` (from the Hub) or `path:FILE` (UTF-8 text).

    A `path:` corpus has no splits: whoever names one file for evaluation and for calibration is told so where
    the two meet.
    """
    if name == "stdlib":
        return Corpus(name, split, "\n\n".join(text for _, text in stdlib_modules(split)))
    if name.startswith("path:"):
        return Corpus(name, split, _read(Path(name.removeprefix("path:")).expanduser()))
    if name in _HUB_DATASETS:
        return Corpus(name, split, _from_hub(name, split))
    known = ", ".join(["stdlib", *_HUB_DATASETS, "path:FILE"])
    raise UserError(f"unknown corpus '{name}': use one of {known}")


def split_of(module: str) -> Split:
    """Where a module belongs, by its dotted name alone: held out on one machine is held out on all."""
    bucket = int.from_bytes(hashlib.sha256(module.encode()).digest()[:4], "big") % 20
    if bucket == 0:
        return "evaluation"
    return "calibration" if bucket == 1 else "train"


def fingerprint(text: str) -> set[str]:
    """A text's paragraphs, each as the first 16 hex digits of the SHA-256 of its UTF-8 bytes.

    A paragraph is what stands between blank lines, stripped, if it has at least 200 characters: long enough
    that two texts share one only where one was copied from the other. Two sets tell how much of a text
    another one holds, without keeping either.
    """
    blocks = (block.strip() for block in _BLANK_LINES.split(text))
    return {hashlib.sha256(b.encode()).hexdigest()[:16] for b in blocks if len(b) >= _PARAGRAPH_CHARS}


def stdlib_modules(split: Split, *, tests: bool = False) -> Iterator[tuple[str, str]]:
    """(dotted name, source) of each standard-library module of `split`, in the order of the names' hashes.

    The order mixes packages, so that any prefix of the corpus is a fair sample of it. Test modules are left
    out unless asked for: some distributions do not ship them.
    """
    root = Path(os.environ.get("LLM_BENCH_STDLIB") or sysconfig.get_path("stdlib"))
    found: list[tuple[bytes, str, Path]] = []
    for folder, folders, files in os.walk(root):
        folders[:] = [f for f in folders if f not in _SKIPPED_PARTS and not f.startswith("config-")]
        for file in files:
            if not file.endswith(".py"):
                continue
            path = Path(folder, file)
            parts = path.relative_to(root).with_suffix("").parts
            name = ".".join(parts).removesuffix(".__init__")
            if split_of(name) == split and (tests or not _TEST_PARTS.intersection(parts)):
                found.append((hashlib.sha256(name.encode()).digest(), name, path))
    for _, name, path in sorted(found):
        try:
            text = path.read_text(encoding="utf-8")
        except (UnicodeDecodeError, OSError):
            continue  # deliberately broken sources in the test suite
        if text.strip():
            yield name, text


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"corpus file {path} does not exist") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"corpus file {path} cannot be read as UTF-8 text: {error}") from None


def _from_hub(name: str, split: Split) -> str:
    """Rows joined by blank lines: the text form of the GPTQ paper's code and of those that followed it."""
    dataset, config = _HUB_DATASETS[name]
    try:
        from datasets import load_dataset

        rows = load_dataset(dataset, config, split=_HUB_SPLITS[split])
    except Exception as error:  # noqa: BLE001  (the Hub fails in many ways; each means the same to the user)
        raise UserError(
            f"corpus '{name}' could not be loaded from the Hugging Face Hub ({type(error).__name__}); "
            "without a network, name a local file: corpus: path:wiki.test.raw"
        ) from None
    return "\n\n".join(rows["text"])
