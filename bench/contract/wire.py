"""Dataclass <-> JSON, and the digest of anything that has a JSON form."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import types
import typing
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
_ATOMS = frozenset({str, int, bool, type(None)})


def plain(value: Any) -> Any:
    """The JSON form: dataclasses to objects, tuples and sets to lists, paths to strings, NaN and infinity to null."""
    kind = type(value)
    if kind in _ATOMS:  # nearly all values: reports convert millions
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, tuple | list | set | frozenset):
        items = [plain(v) for v in value]
        return sorted(items) if isinstance(value, set | frozenset) else items
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {name: plain(field) for name, field in vars(value).items()}
    return str(value) if isinstance(value, Path) else value


def rounded(value: Any) -> Any:
    """The same JSON form with floats to six significant digits, as records are committed."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {k: rounded(v) for k, v in value.items()}
    return [rounded(v) for v in value] if isinstance(value, list) else value


def dumps(value: Any, *, indent: int | None = None) -> str:
    """Canonical JSON: sorted keys, no NaN."""
    separators = (",", ":") if indent is None else None
    return json.dumps(plain(value), sort_keys=True, indent=indent, separators=separators, allow_nan=False)


def digest(value: Any) -> str:
    """The first 16 hex digits of the SHA-256 of the canonical JSON."""
    return hashlib.sha256(dumps(value).encode()).hexdigest()[:16]


def write(path: Path, data: str | bytes) -> None:
    """Write to a temporary file, flush, rename: a reader sees the old file or the whole new one. Text is UTF-8."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with partial.open("wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def build(kind: type[T], data: Any) -> T:
    """A dataclass of type `kind` from its JSON form, whose types are trusted: our own processes wrote it."""
    return typing.cast("T", _build(kind, data))


@cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _build(kind: Any, data: Any) -> Any:
    if data is None or kind is Any:
        return data
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        hints = _hints(kind)
        return kind(**{k: _build(hints[k], v) for k, v in data.items()})
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple:
        kinds = (args[0],) * len(data) if args[-1] is Ellipsis else args
        return tuple(_build(k, v) for k, v in zip(kinds, data, strict=True))
    if origin in (typing.Union, types.UnionType):
        real: list[Any] = [a for a in args if a is not type(None)]
        if len(real) > 1:  # of dataclasses the one of this kind; of plain values any
            real = [a for a in real if isinstance(data, dict) and a.kind == data["kind"]]
        return _build(real[0], data) if real else data
    return data
