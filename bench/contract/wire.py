"""Dataclass <-> JSON, and the digest of anything that has a JSON form."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import hashlib
import json
import math
import os
import stat
import types
import typing
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import IO, Any, BinaryIO, TypeVar

T = TypeVar("T")
_ATOMS = frozenset({str, int, bool, type(None)})
OMITTED_AT_DEFAULT: Mapping[str, Any] = {"omitted_at_default": True}  # metadata of a field younger than records


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
        younger = _younger(value.__class__)
        return {
            name: plain(field) for name, field in vars(value).items() if name not in younger or field != younger[name]
        }
    return str(value) if isinstance(value, Path) else value


@cache
def _younger(kind: type) -> dict[str, Any]:
    """The defaults of the fields that are left out of the JSON form at them: records from before have none."""
    younger = [f for f in dataclasses.fields(kind) if f.metadata.get("omitted_at_default")]
    return {f.name: f.default if f.default_factory is dataclasses.MISSING else f.default_factory() for f in younger}


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


def sha256(file: Path) -> str:
    """Of a file's bytes, in hexadecimal."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def is_file(path: Path) -> bool:
    """Whether a file is there; a name that no file system can have is of none."""
    try:
        return path.is_file()
    except OSError:
        return False


def open_regular(path: Path) -> BinaryIO:
    """A regular file, opened for reading; OSError for a pipe, a device or a folder, which might not end."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return open(descriptor, "rb")  # noqa: PTH123  (a descriptor has no path, and the caller closes it)
    os.close(descriptor)
    raise OSError(errno.EINVAL, "it is no regular file", str(path))


def read_bytes(path: Path, limit_bytes: int) -> bytes:
    """A regular file's bytes, at once; OSError as of `open_regular`, and for a file of over `limit_bytes`."""
    with open_regular(path) as file:
        data = file.read(limit_bytes + 1)
    if len(data) > limit_bytes:
        raise OSError(errno.EFBIG, f"it is longer than {limit_bytes} bytes", str(path))
    return data


def parse(text: str | bytes) -> Any:
    """The value of a JSON text; ValueError for what is no JSON, or nested too deep to be any of ours."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def read_json(path: Path, limit_bytes: int = 1 << 26) -> Any:
    """The value of a JSON file; OSError and ValueError as of `read_bytes` and `parse`."""
    return parse(read_bytes(path, limit_bytes))


def write(path: Path, data: str | bytes) -> None:
    """Write to a file beside it, flush, rename: a reader sees the old file or the whole new one. Text is UTF-8.

    Writers of one path wait for each other, and what one that was killed left is written over. OSError with the path.
    """
    partial = path.with_name(f".{path.name}.part")
    try:
        with _locked(partial) as file:
            try:
                file.truncate(0)
                file.write(data.encode() if isinstance(data, str) else data)
                file.flush()
                os.fsync(file.fileno())
                partial.replace(path)
            except BaseException:
                partial.unlink(missing_ok=True)
                raise
    except OSError as error:
        error.filename, error.filename2 = str(path), None
        raise


def _locked(path: Path) -> IO[bytes]:
    """The file at the path, made if it is not there, under a lock that the kernel frees when its holder ends."""
    while True:
        file = path.open("ab")
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX)
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_ino == os.fstat(file.fileno()).st_ino:
                return file
        file.close()  # the one who had it has renamed it


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
