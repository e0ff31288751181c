"""Files of real prompts: Spec-Bench's questions, ShareGPT's conversations, or a `prompt` or `messages` a line.

Each line is recognised by its keys. ShareGPT's one JSON list is read as lines of objects are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import orjson

from bench.contract import wire
from bench.contract.errors import UserError
from bench.contract.prompt import TextPrompt
from bench.load.prompt_files.formats import FORMATS, damaged, prompt

_BYTES_MAX = 1 << 31
_VALUES_MAX = 40_000_000  # lists, objects and their members, by the signs that open and part them


@dataclass(frozen=True)
class PromptFile:
    """`prompts` in the file's order; `kinds`: the keys by which its lines were recognised."""

    name: str
    sha256: str
    prompts: tuple[TextPrompt, ...]
    kinds: tuple[str, ...]


def read(path: Path) -> PromptFile:
    """The prompts of a file; UserError, which names the file and the line, for what is none."""
    try:
        status = path.stat()
        return _read(path, status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise UserError(f"cannot read the prompts {path}: {error.strerror}") from None


@lru_cache(maxsize=4)
def _read(path: Path, size: int, _: int) -> PromptFile:
    if size > _BYTES_MAX:
        raise UserError(f"{path} has over {_BYTES_MAX >> 30} GiB: give a part of it")
    data = wire.read_bytes(path, _BYTES_MAX)
    if sum(map(data.count, (b"[", b"{", b","))) > _VALUES_MAX:
        raise UserError(f"{path} has over {_VALUES_MAX:,} values: give a part of it")
    read = [prompt(path, line, fields) for line, fields in _objects(path, data)]
    prompts = tuple(its for its, _ in read if its is not None)
    if not prompts:
        raise UserError(f"{path} has no prompt in it: expected {FORMATS}")
    return PromptFile(path.name, wire.sha256(path), prompts, tuple(sorted({kind for _, kind in read})))


def _objects(path: Path, data: bytes) -> Iterator[tuple[int, Any]]:
    """(line, value) of each line, or of each member of the one list; of a list the line is the member's number."""
    data = data.removeprefix(b"\xef\xbb\xbf")
    if data.lstrip().startswith(b"["):
        try:
            yield from enumerate(orjson.loads(data), 1)
        except orjson.JSONDecodeError as error:
            raise damaged(path, error.lineno, f"not valid JSON ({error.msg})") from None
        return
    for number, line in enumerate(data.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            yield number, orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise damaged(path, number, f"not valid JSON ({error.msg})") from None
