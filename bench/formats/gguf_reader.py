"""What a GGUF file stores, read from its header: the metadata and the table of tensors, no weight touched.

The format is at github.com/ggml-org/ggml, docs/gguf.md. The reader of the package `gguf` takes seconds over a
vocabulary and does not report truncated files; only its tables of types are used. Tests compare the two.
"""

from __future__ import annotations

import glob
import math
import mmap
import os
import re
import struct
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from bench.contract.errors import UserError
from bench.formats.folder import Tensor, open_weights

_MAGIC, _VERSIONS, _ALIGNMENT, _MAX_DIMENSIONS = b"GGUF", (2, 3), 32, 4
_STRING, _ARRAY, _MAX_NESTING = 8, 9, 4
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_SPLIT = re.compile(r"(?P<stem>.+)-(?P<part>\d{5})-of-(?P<parts>\d{5})\.(?P<suffix>gguf|GGUF)")
_PROJECTOR = re.compile(r"(^|[-_.])mmproj([-_.]|$)", re.IGNORECASE)
_LENGTH = struct.Struct("<Q")
_NAMED_AT_MOST = 3
_MAX_ITEMS = 10_000_000  # keys, tensors, and the texts in arrays: a vocabulary and its merges are under a million
_LARGEST = 2**48  # of any size
_MAX_KEYS, _MAX_TENSORS = 10_000, 200_000
_MAX_TEXT_BYTES = 1 << 26  # of all texts that are not in arrays


@dataclass(frozen=True)
class Gguf:
    """A model in GGUF, all its parts together.

    `file_type` as in Q4_K_M, empty where the file does not say. Tensors by name, their shapes outermost
    dimension first as in safetensors, their types in ggml's spelling (f16, q4_K).
    """

    files: tuple[Path, ...]
    architecture: str
    file_type: str
    context: int
    vocab_size: int
    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, Any] = field(default_factory=dict)


class _CutShortError(Exception):
    """The header goes on where the file ends."""


class _TooLargeError(Exception):
    """The header is larger than any model's."""


@dataclass
class _Cursor:
    """A position in the header, which advances with each value read; `where` names the part of it for errors."""

    data: mmap.mmap
    size: int
    at: int = 0
    where: str = field(default="its metadata", init=False)
    items: int = field(default=_MAX_ITEMS, init=False)
    text_bytes: int = field(default=_MAX_TEXT_BYTES, init=False)

    def number(self, code: str) -> Any:
        return struct.unpack("<" + code, self.bytes(struct.calcsize("<" + code)))[0]

    def bytes(self, count: int) -> bytes:
        start = self.at
        self.skip(count)
        return self.data[start : self.at]

    def skip(self, count: int) -> None:
        if count > self.size - self.at:
            raise _CutShortError
        self.at += count

    def count(self, items: int) -> None:
        """Take so many items of those that a file may have."""
        self.items -= items
        if self.items < 0:
            raise _TooLargeError(f"its header has more than {_MAX_ITEMS} entries, and no model's has so many")

    def text(self) -> str:
        size = self.number("Q")
        self.text_bytes -= min(size, self.size - self.at)
        if self.text_bytes < 0:
            raise _TooLargeError(f"its header has over {_MAX_TEXT_BYTES} bytes of text, and no model's has so many")
        return self.bytes(size).decode("utf-8", errors="replace")

    def skip_strings(self, count: int) -> None:
        self.count(min(count, self.size - self.at))
        at, read, data, last = self.at, _LENGTH.unpack_from, self.data, self.size - _LENGTH.size
        for _ in range(count):
            if at > last:
                raise _CutShortError
            at += _LENGTH.size + read(data, at)[0]
        self.skip(at - self.at)


def files(path: Path) -> tuple[Path, ...]:
    """The files of the model that `path`, a .gguf file or a folder of them, stands for: a split's in order.

    UserError when there is none, when a part is missing, and when a folder holds more than one model.
    """
    file = _only(path) if path.is_dir() else path
    if not file.is_file():
        raise UserError(f"model file {file.name} does not exist")
    split = _SPLIT.fullmatch(file.name)
    count = int(split["parts"]) if split else 0
    if split is None or count == 0:
        return (file,)
    parts = tuple(
        file.with_name(f"{split['stem']}-{n:05d}-of-{count:05d}.{split['suffix']}") for n in range(1, count + 1)
    )
    if missing := [part.name for part in parts if not part.is_file()]:
        raise UserError(f"{missing[0]} is missing: {file.name} is one of the {count} parts of a split model")
    if file != parts[0]:
        raise UserError(f"{file.name} is a later part of a split model: name the first, {parts[0].name}")
    return parts


def read(path: Path) -> Gguf:
    """The model in a .gguf file, its split or its folder; UserError for what is not whole.

    Cached within the process by path, size and time of change: a plan reads it for every recipe.
    """
    return _read(tuple((file, file.stat().st_size, file.stat().st_mtime_ns) for file in files(path)))


def arrays(path: Path, keys: Collection[str]) -> dict[str, list[Any]]:
    """The arrays of texts or numbers under these keys of a model's metadata, those that it has."""
    file = read(path).files[0]  # which is whole then
    values: dict[str, list[Any]] = {}
    with open_weights(file) as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as data:
        cursor = _Cursor(data, len(data), len(_MAGIC) + 4 + 8)
        for _ in range(cursor.number("Q")):
            key, code = cursor.text(), cursor.number("I")
            if key in keys and code == _ARRAY:
                values[key] = _items(cursor, f"{file.name} is corrupt: metadata {key}")
            else:
                _value(cursor, code, file.name)
    return values


def _items(cursor: _Cursor, complaint: str) -> list[Any]:
    kind, count = cursor.number("I"), cursor.number("Q")
    if kind in _SCALARS:
        code = f"<{count}{_SCALARS[kind]}"
        return list(struct.unpack(code, cursor.bytes(struct.calcsize(code))))
    if kind != _STRING:
        raise UserError(f"{complaint} has the unknown type {kind}")
    return [cursor.bytes(cursor.number("Q")).decode("utf-8", errors="replace") for _ in range(count)]


def several_models(names: Sequence[str]) -> str:
    """A phrase for these files where they are more than one model, else "".

    A split's parts are one model, and a vision projector belongs to the model beside it.
    """
    names = [name for name in names if not is_projector(name)]
    if len({(m["stem"], m["parts"]) if (m := _SPLIT.fullmatch(n)) else (n, "") for n in names}) < 2:
        return ""
    more = f" and {len(names) - _NAMED_AT_MOST} more" if len(names) > _NAMED_AT_MOST else ""
    return f"several GGUF models ({', '.join(names[:_NAMED_AT_MOST])}{more})"


def part_pattern(name: str) -> str:
    """A glob pattern of the files of a split model, by the name of its first; any other name by itself."""
    folder, slash, last = name.rpartition("/")
    split = _SPLIT.fullmatch(last)
    escaped = f"{glob.escape(split['stem'])}-*-of-{split['parts']}.{split['suffix']}" if split else glob.escape(last)
    return f"{glob.escape(folder)}{slash}{escaped}"


def is_projector(name: str) -> bool:
    """Whether a file of this name turns pictures into a language model's embeddings, as llama.cpp's tools name it."""
    return _PROJECTOR.search(name) is not None


def _only(folder: Path) -> Path:
    """The folder's GGUF file, or the first present part of the one split it holds."""
    files = sorted(folder.glob("*.gguf"))
    candidates = [file for file in files if not is_projector(file.name)] or files
    if not candidates:
        raise UserError(f"{folder.name} has no GGUF file")
    if several := several_models([file.name for file in candidates]):
        raise UserError(f"{folder.name} holds {several}: name one file as the model")
    return candidates[0]


@cache
def _read(stamped: tuple[tuple[Path, int, int], ...]) -> Gguf:
    paths = tuple(path for path, _, _ in stamped)
    parts = [_part(path) for path in paths]
    first = parts[0][0]
    count = _count(first.get("split.count")) or 1
    if count != len(parts):
        raise UserError(
            f"{paths[0].name} is one of {count} parts of a split model by its metadata, and of {len(parts)} by its "
            f"name: give the parts the names they were split under, as in -00001-of-{count:05d}.gguf"
        )
    tensors = {name: tensor for _, stored in parts for name, tensor in stored.items()}
    architecture = str(first.get("general.architecture", ""))
    rows = tensors["token_embd.weight"].shape[0] if "token_embd.weight" in tensors else 0
    vocabulary = first.get(f"{architecture}.vocab_size") or first.get("tokenizer.ggml.tokens") or rows
    return Gguf(
        files=paths,
        architecture=architecture,
        file_type=_file_type(first.get("general.file_type")),
        context=_count(first.get(f"{architecture}.context_length")),
        vocab_size=_count(vocabulary),
        tensors=tensors,
        metadata=first,
    )


def _count(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _LARGEST else 0


def _file_type(code: object) -> str:
    from gguf.constants import LlamaFileType

    names = {kind.value: kind.name for kind in LlamaFileType}
    name = names.get(code, "") if isinstance(code, int) else ""
    return name.removeprefix("MOSTLY_").removeprefix("ALL_")


def _part(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """One file: its metadata, an array by its length, and its tensors."""
    with open_weights(path) as opened:
        size = os.fstat(opened.fileno()).st_size
        if not _MAGIC.startswith(opened.read(len(_MAGIC))):
            raise UserError(f"{path.name} is not a GGUF file: it does not begin with the bytes GGUF")
        if size <= len(_MAGIC):
            raise UserError(f"{path.name} is cut short: a GGUF file has more than {size} bytes")
        with mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as data:
            cursor = _Cursor(data, size, len(_MAGIC))
            try:
                return _header(cursor, path.name)
            except _TooLargeError as error:
                raise UserError(f"{path.name} is corrupt: {error}") from None
            except _CutShortError:
                raise UserError(f"{path.name} is cut short: {cursor.where} goes on after its {size} bytes") from None


def _header(cursor: _Cursor, name: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    version = cursor.number("I")
    if version not in _VERSIONS:
        order = "big-endian GGUF" if version & 0xFFFF == 0 else f"GGUF of version {version}"
        raise UserError(f"{name} is {order}; little-endian versions 2 and 3 are read: convert the model again")
    tensors, pairs = cursor.number("Q"), cursor.number("Q")
    if pairs > _MAX_KEYS or tensors > _MAX_TENSORS:
        raise _TooLargeError(f"its header has {pairs} keys and {tensors} tensors, and no model's has so many")
    values: dict[str, Any] = {}
    for _ in range(pairs):
        key = cursor.text()
        values[key] = _value(cursor, cursor.number("I"), f"{name} is corrupt: metadata {key}")
    cursor.where = "its table of tensors"
    table = [_entry(cursor, name) for _ in range(tensors)]
    alignment = values.get("general.alignment", _ALIGNMENT)
    if not isinstance(alignment, int) or alignment < 1:
        raise UserError(f"{name} is corrupt: its alignment is {alignment}")
    start = -(-cursor.at // alignment) * alignment
    return values, _placed(table, start, cursor.size, name)


def _value(cursor: _Cursor, code: int, complaint: str, depth: int = 0) -> Any:
    """A value of the metadata; of an array only its length."""
    if code in _SCALARS:
        return cursor.number(_SCALARS[code])
    if code == _STRING:
        return cursor.text()
    if code != _ARRAY or depth > _MAX_NESTING:
        raise UserError(f"{complaint} has the unknown type {code}")
    kind, count = cursor.number("I"), cursor.number("Q")
    if kind in _SCALARS:
        cursor.skip(count * struct.calcsize("<" + _SCALARS[kind]))
    elif kind == _STRING:
        cursor.skip_strings(count)
    else:
        cursor.count(min(count, cursor.size))
        for _ in range(count):
            _value(cursor, kind, complaint, depth + 1)
    return count


def _entry(cursor: _Cursor, file: str) -> tuple[str, int, Tensor]:
    """One tensor as the table has it: name, offset, and what it is."""
    name, dimensions = cursor.text(), cursor.number("I")
    if dimensions > _MAX_DIMENSIONS:
        raise UserError(f"{file} is corrupt: tensor {name} has {dimensions} dimensions")
    shape = tuple(cursor.number("Q") for _ in range(dimensions))
    code, offset = cursor.number("I"), cursor.number("Q")
    kind, block, stored = _ggml_type(code, f"{file}: tensor {name}")
    if shape and shape[0] % block:
        raise UserError(f"{file} is corrupt: tensor {name}, {kind}, has rows of {shape[0]}, not of {block}s")
    return name, offset, Tensor(kind, shape[::-1], math.prod(shape) // block * stored)


def _ggml_type(code: int, tensor: str) -> tuple[str, int, int]:
    """Return ggml's name of a type, the elements of one block and the bytes it takes."""
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    try:
        kind = GGMLQuantizationType(code)
    except ValueError:
        raise UserError(
            f"{tensor} has the unknown type {code}: make the file again with a type that "
            "gguf.GGMLQuantizationType lists"
        ) from None
    block, stored = GGML_QUANT_SIZES[kind]
    lower = kind.name.lower()
    return (f"{lower[:-1]}K" if lower.endswith("_k") else lower), block, stored


def _placed(table: list[tuple[str, int, Tensor]], start: int, size: int, name: str) -> dict[str, Tensor]:
    """The tensors by name; UserError when they overlap or go on after the file's end."""
    after, before = 0, ""
    for tensor, offset, entry in sorted(table, key=lambda row: (row[1], row[2].size)):
        if offset < after:
            raise UserError(f"{name} is corrupt: tensors {before} and {tensor} overlap")
        after, before = offset + entry.size, tensor
        if start + after > size:
            raise UserError(
                f"{name} is cut short: tensor {tensor} ends at byte {start + after} and the file has {size}"
            )
    tensors = {tensor: entry for tensor, _, entry in table}
    if len(tensors) != len(table):
        raise UserError(f"{name} is corrupt: two of its tensors have the same name")
    return tensors
