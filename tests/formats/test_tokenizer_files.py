"""Whether a tokenizer.json can be made of a folder's files is known without any library, and told in a sentence."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from bench.formats import tokenizer_files
from tests.formats import tokenizer_folders

_ROOT = Path(__file__).resolve().parents[2]
_REMOTE = {"auto_map": {"AutoTokenizer": ["tokenization_mine.MineTokenizer", None]}, "tokenizer_class": "MineTokenizer"}


def _write(folder: Path, files: dict[str, Any]) -> Path:
    for name, value in files.items():
        (folder / name).write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return folder


def test_the_forms_that_are_converted(tmp_path: Path) -> None:
    """tokenizer.model; vocab.json with merges.txt; and the files of the class where both are there."""
    pieces = tokenizer_folders.of_pieces(tmp_path / "pieces", {"tokenizer_class": "LlamaTokenizerFast"})
    merges = tokenizer_folders.of_merges(tmp_path / "merges")

    assert tokenizer_files.form(pieces) == tokenizer_files.Form("SentencePiece", ("tokenizer.model",))
    assert tokenizer_files.form(merges) == tokenizer_files.Form("BPE", ("vocab.json", "merges.txt"))
    (merges / "tokenizer.model").write_bytes((pieces / "tokenizer.model").read_bytes())
    assert tokenizer_files.form(merges) == tokenizer_files.Form("BPE", ("vocab.json", "merges.txt"))
    assert [tokenizer_files.unusable(folder) for folder in (pieces, merges)] == ["", ""]


@pytest.mark.parametrize(
    ("config", "around"),
    [
        (None, (True, False)),
        ({"tokenizer_class": "LlamaTokenizer"}, (True, False)),
        ({"tokenizer_class": "LlamaTokenizer", "add_bos_token": None}, (True, False)),
        ({"tokenizer_class": "LlamaTokenizer", "add_bos_token": False, "add_eos_token": True}, (False, True)),
        ({"tokenizer_class": "T5Tokenizer"}, None),
    ],
)
def test_bos_is_added_where_the_class_says_so(
    tmp_path: Path, config: dict[str, Any] | None, around: tuple[bool, bool] | None
) -> None:
    """A key left out is the class's default, not false."""
    assert tokenizer_files.added(tokenizer_folders.of_pieces(tmp_path / "m", config)) == around


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({}, "m has no tokenizer; text needs tokenizer.json, tokenizer.model, or vocab.json with merges.txt: put the"),
        ({"vocab.json": {"a": 0}}, "m has no tokenizer: vocab.json is there without merges.txt; text needs"),
        ({"tokenizer.model": "no model"}, "m/tokenizer.model is no whole SentencePiece model"),
        ({"tokenizer.model": "IQ== 0\nIg== 1\n"}, "m/tokenizer.model is tiktoken's, not SentencePiece's"),
        (
            {"vocab.json": {"a": 0}, "merges.txt": "a b\n", "tokenizer_config.json": _REMOTE},
            "the tokenizer of m is code of its own (tokenization_mine.MineTokenizer), which is not run: put a",
        ),
        (
            {
                "vocab.json": {"a": 0},
                "merges.txt": "a b\n",
                "tokenizer_config.json": {"tokenizer_class": "MyTokenizer"},
            },
            "the tokenizer of m is of a class that Transformers does not know (MyTokenizer)",
        ),
        (
            {
                "vocab.json": {"a": 0},
                "merges.txt": "a b\n",
                "tokenizer_config.json": {"tokenizer_class": "CTRLTokenizer"},
            },
            "the tokenizer of m, CTRLTokenizer, has no form as tokenizer.json",
        ),
        (
            {"vocab.json": {"a": 0}, "merges.txt": "a b\n"},
            "m has vocab.json and merges.txt, and nothing says of which class they are: name theirs as tokenizer_class",
        ),
        (
            {
                "vocab.json": {"a": 0},
                "merges.txt": "a b\n",
                "tokenizer_config.json": {"tokenizer_class": "LlamaTokenizer"},
            },
            "m has vocab.json and merges.txt, and the class LlamaTokenizer does not read them",
        ),
        (
            {"vocab.json": ["a"], "merges.txt": "a b\n", "tokenizer_config.json": {"tokenizer_class": "GPT2Tokenizer"}},
            "m/vocab.json is not a vocabulary",
        ),
        (
            {
                "vocab.json": {"a": 0},
                "merges.txt": "abc\n",
                "tokenizer_config.json": {"tokenizer_class": "GPT2Tokenizer"},
            },
            "m/merges.txt is not a list of merges",
        ),
        ({"vocab.json": "{", "merges.txt": "", "tokenizer_config.json": "[]"}, "m/tokenizer_config.json is not a JSON"),
    ],
)
def test_why_none_can_be_made(tmp_path: Path, files: dict[str, Any], sentence: str) -> None:
    """What is missing or broken, and what to do."""
    folder = _write(tokenizer_folders.model(tmp_path / "m"), files)

    assert tokenizer_files.unusable(folder).startswith(sentence)
    _write(folder, {"tokenizer.json": {}})
    assert not tokenizer_files.unusable(folder)


@pytest.mark.engine
def test_the_table_of_classes_is_what_transformers_says(hf_python: Path) -> None:
    """Printed anew by the library in the hf environment, it is the file beside the reader, byte for byte."""
    argv = [str(hf_python), "-m", "tests.formats.tokenizer_classes"]
    done = subprocess.run(argv, cwd=_ROOT, capture_output=True, text=True, check=True)

    assert done.stdout == (_ROOT / "bench/formats/tokenizer_classes.json").read_text()
