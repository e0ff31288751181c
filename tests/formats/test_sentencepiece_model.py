"""SentencePiece models are read without their library, and broken ones are refused in a sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.contract.errors import UserError
from bench.formats import sentencepiece_model
from tests.formats.tokenizer_folders import DEMO

WHOLE = (DEMO / "tokenizer.model").read_bytes()


def test_the_pieces_are_those_of_the_tokenizer() -> None:
    """Texts in the order of their ids as tokenizer.json has them, and the types of the special ones and the bytes."""
    pieces = sentencepiece_model.read(DEMO / "tokenizer.model")
    vocabulary = json.loads((DEMO / "tokenizer.json").read_text())["model"]["vocab"]

    assert {piece.text: number for number, piece in enumerate(pieces)} == vocabulary
    assert [piece.type for piece in pieces[:4]] == [
        sentencepiece_model.UNKNOWN,
        sentencepiece_model.CONTROL,
        sentencepiece_model.CONTROL,
        sentencepiece_model.BYTE,
    ]
    assert pieces[-1].type == sentencepiece_model.NORMAL


def test_pieces_are_read_in_any_order_of_their_fields(tmp_path: Path) -> None:
    """Type before text, a text longer than one byte of length can say, and pieces behind the settings."""
    long = "\u2581" * 100
    unknown = b"\x0a\x09\x18\x02\x0a\x05<unk>"
    inner = b"\x0a\xac\x02" + long.encode()
    text = b"\x0a\xaf\x02" + inner
    (tmp_path / "m.model").write_bytes(unknown + b"\x12\x02\x18\x02" + b"\x1a\x00" + text)

    assert sentencepiece_model.read(tmp_path / "m.model") == [
        ("<unk>", sentencepiece_model.UNKNOWN),
        (long, sentencepiece_model.NORMAL),
    ]


@pytest.mark.parametrize("size", [0, 1, 2, 100, 5000, len(WHOLE) // 2, len(WHOLE) - 1, len(WHOLE) - 20])
def test_a_file_cut_short_is_refused(tmp_path: Path, size: int) -> None:
    """Wherever a download or a full disk ended it, between two pieces too."""
    (tmp_path / "tokenizer.model").write_bytes(WHOLE[:size])

    with pytest.raises(UserError, match=r"tokenizer\.model is no whole SentencePiece model \(.*tokenizer\.json beside"):
        sentencepiece_model.read(tmp_path / "tokenizer.model")


def test_a_pointer_of_git_lfs_is_told(tmp_path: Path) -> None:
    """What a clone without LFS leaves in place of the file."""
    (tmp_path / "tokenizer.model").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n")

    with pytest.raises(UserError, match="run `git lfs pull`"):
        sentencepiece_model.read(tmp_path / "tokenizer.model")


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=200))
def test_whatever_the_bytes_only_a_sentence_comes_out(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    """No traceback, no endless loop."""
    file = tmp_path_factory.mktemp("m") / "tokenizer.model"
    file.write_bytes(data)

    with pytest.raises(UserError):
        sentencepiece_model.read(file)
