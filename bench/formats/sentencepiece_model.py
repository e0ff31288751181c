"""A SentencePiece model's pieces, read from its file (a protobuf message) without any library.

The message is sentencepiece_model.proto's ModelProto, at github.com/google/sentencepiece: 1 the pieces, each
of 1 text, 2 score and 3 type, 2 the trainer's settings, 3 the normalizer's.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from bench.contract import wire
from bench.contract.errors import UserError

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6
BPE = 2  # of the trainer's model_type
_LARGEST = 1 << 26
_PIECES, _TRAINER, _NORMALIZER = 1, 2, 3
_TEXT, _TYPE = 1, 3
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_PIECE_KEY, _SCORE_KEY, _TYPE_KEY = _PIECES << 3 | _BYTES, 2 << 3 | _FIXED32, _TYPE << 3 | _VARINT
_LONG = 0x80  # from here on a length has more than one byte
_LFS = b"version https://git-lfs"


class Piece(NamedTuple):
    """A text with its type; ids are their places in the file."""

    text: str
    type: int


def read(file: Path) -> list[Piece]:
    """The pieces in the order of their ids; UserError for a file that is no whole SentencePiece model."""
    try:
        stat = file.stat()
    except OSError as error:
        raise UserError(f"{file.parent.name}/{file.name} cannot be read: {error.strerror}") from None
    return _read(file, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=2)
def _read(file: Path, size: int, mtime_ns: int) -> list[Piece]:  # noqa: ARG001  (a file that changed is another one)
    try:
        with wire.open_regular(file) as opened:
            data = opened.read(_LARGEST + 1)
    except OSError as error:
        raise UserError(f"{file.parent.name}/{file.name} cannot be read: {error.strerror}") from None
    if data.startswith(_LFS):
        raise UserError(f"{file.parent.name}/{file.name} is a Git LFS pointer, not the tokenizer: run `git lfs pull`")
    if len(data) > _LARGEST:
        raise UserError(corrupt(file, f"it is larger than {_LARGEST >> 20} MiB"))
    try:
        pieces, settings = _pieces(data)
    except (ValueError, IndexError) as error:
        raise UserError(corrupt(file, str(error) or "it is cut short")) from None
    if not {_TRAINER, _NORMALIZER} <= settings or sum(piece.type == UNKNOWN for piece in pieces) != 1:
        raise UserError(corrupt(file, f"it has {len(pieces)} pieces and not the settings that belong to them"))
    return pieces


def corrupt(file: Path, why: str) -> str:
    """The sentence for a file that is no SentencePiece model."""
    name = f"{file.parent.name}/{file.name}"
    return (
        f"{name} is no whole SentencePiece model ({why}): fetch it again, or put the model's tokenizer.json beside it"
    )


def _pieces(data: bytes) -> tuple[list[Piece], set[int]]:
    """The pieces, and the numbers of the other fields. A quarter of a million pieces are read in a second."""
    pieces: list[Piece] = []
    at = 0
    while at < len(data) - 1 and data[at] == _PIECE_KEY and data[at + 1] < _LONG:  # as they lie in every file
        end = at + 2 + data[at + 1]
        part = data[at + 2 : end]
        if end > len(data):
            raise ValueError("it is cut short")
        pieces.append(_piece(part))
        at = end
    settings = set()
    for number, value in _fields(data[at:]):
        if number == _PIECES and isinstance(value, bytes):
            pieces.append(_piece(value))
        settings.add(number)
    return pieces, settings


def _piece(data: bytes) -> Piece:
    """Text, score, and a type where it is not NORMAL, in this order as the library writes them; else by their keys."""
    after = data[1] + 2 if len(data) > 2 and data[0] == _PIECE_KEY and data[1] < _LONG else len(data) + 1
    if len(data) - after == 5 and data[after] == _SCORE_KEY:
        return Piece(data[2:after].decode(), NORMAL)
    if len(data) - after == 7 and data[after] == _SCORE_KEY and data[after + 5] == _TYPE_KEY:
        return Piece(data[2:after].decode(), data[after + 6])
    fields = dict(_fields(data))
    text, kind = fields.get(_TEXT, b""), fields.get(_TYPE, NORMAL)
    if not isinstance(text, bytes) or not isinstance(kind, int):
        raise ValueError("a piece is not of its type")  # noqa: TRY004  (of the file, not of a caller)
    return Piece(text.decode("utf-8"), kind)


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(number, value) of a message's fields: whole numbers as such, all else as its bytes."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            value, at = _varint(data, at)
            yield number, value
            continue
        if kind == _BYTES:
            size, at = _varint(data, at)
        else:
            size = {_FIXED32: 4, _FIXED64: 8}.get(kind, 0)
        if not number or not (size or kind == _BYTES):
            raise ValueError("it is no protobuf message")
        if at + size > len(data):
            raise ValueError("it is cut short")
        yield number, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < _LONG:
            return value, at
    raise ValueError("it is no protobuf message")
