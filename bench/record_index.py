"""An index of the records that were read: thousands are there again in a fraction of the time, their files unopened.

The files are the truth. An entry stands for a file of one size, time, inode and device alone, which had not changed
for a while when it was read, and holds the whole record; what is missing or damaged, or was written by other
sources, is read from the files. There is a shard for each two folders below the results (a device and a suite),
written beside and renamed: readers and writers need no lock, the last one wins, and each shard is whole.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, get_args

import orjson
from pydantic import TypeAdapter

from bench import paths
from bench.contract import wire
from bench.contract.record import Artifact, Hardware, Result, Status
from bench.contract.spec import Cell, EngineSpec, Model, Recipe, Task
from bench.contract.workload import Workload

WORTH = 50  # records that had to be read from their files before a shard is written
SETTLED_NS = 3_000_000_000  # the clock of a file system may stand still for two seconds: edits in them leave no trace
# What many records have in common is stored once.
_OF_CELL: Mapping[str, Any] = {
    "model": Model,
    "recipe": Recipe,
    "engine": EngineSpec,
    "device": str,
    "workload": Workload | None,
    "task": Task | None,
}
_OF_RECORD: Mapping[str, Any] = {
    "suite": str,
    "hardware": Hardware,
    "artifact": Artifact | None,
    "environment": dict[str, str],
    "receipts": dict[str, str],
}
_PARTS = {**_OF_CELL, **_OF_RECORD}
_OWN = ("digest", "round", "status", "reason", "facts", "metrics", "marks", "started", "duration_s")
_STATUSES: Mapping[str, Status] = {status: status for status in get_args(Status)}
State = list[int]  # of a file: size, times in ns when it was modified and changed, inode, device
_STATE, _CELL, _SHARED = 5, 5 + len(_OF_CELL), 5 + len(_PARTS)  # where the parts of an entry end


class Index:
    """The index of the records below one folder."""

    def __init__(self, root: Path) -> None:
        self._root = str(root)
        self._shards: dict[str, _Shard] = {}

    def get(self, name: str, read: Callable[[], Result | None]) -> Result | None:
        """The record in the file `name`, a path below the root, by `read` if the index does not have it.

        None where `read` finds no file; what it raises passes through.
        """
        now = time.time_ns()
        try:
            state = _state(f"{self._root}/{name}")
        except (OSError, ValueError):
            return read()
        if (shard := self._shards.get(shard_of(name))) is None:
            shard = self._shards[shard_of(name)] = _Shard(self._file(shard_of(name)))
        result = shard.get(name, state)
        if result is None and (result := read()) is not None and max(state[1:3]) < now - SETTLED_NS:
            shard.fresh[name] = state, result
        return result

    def close(self) -> None:
        """Write the shards that are worth it, and forget all of them."""
        for shard in self._shards.values():
            if len(shard.fresh) >= WORTH:
                with contextlib.suppress(OSError):  # a cache that is full, or cannot be written
                    shard.write(lambda name: os.path.exists(f"{self._root}/{name}"))  # noqa: PTH110
        self._shards = {}

    def _file(self, folder: str) -> Path:
        names = (os.path.realpath(self._root), folder)
        root, shard = (hashlib.sha256(os.fsencode(name)).hexdigest()[:16] for name in names)
        return paths.cache() / "records" / root / f"{shard}.json"


def shard_of(name: str) -> str:
    """The folders below the root that name the shard of a record: two at most."""
    return "/".join(name.split("/")[:-1][:2])


class _Shard:
    """Entries by the names of their files, as they are on disk; `fresh`: records that were read from their files."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.fresh: dict[str, tuple[State, Result]] = {}
        self._entries, self._parts = _read(file)
        self._cells: dict[tuple[int, ...], Cell] = {}

    def get(self, name: str, state: State) -> Result | None:
        entry = self._entries.get(name)
        return self._result(entry) if entry is not None and entry[:_STATE] == state else None

    def _result(self, entry: Sequence[Any]) -> Result:
        key = tuple(entry[_STATE:_CELL])
        if (cell := self._cells.get(key)) is None:
            cell = self._cells[key] = Cell(*(self._parts[name][i] for name, i in zip(_OF_CELL, key, strict=True)))
        suite, hardware, artifact, environment, receipts = (
            self._parts[name][i] for name, i in zip(_OF_RECORD, entry[_CELL:_SHARED], strict=True)
        )
        digest, number, status, reason, facts, metrics, marks, started, duration_s = entry[_SHARED:]
        return Result(
            digest,
            suite,
            cell,
            number,
            _STATUSES[status],
            hardware,
            reason,
            artifact,
            environment,
            receipts,
            facts,
            metrics,
            tuple(marks),
            started,
            duration_s,
        )

    def write(self, exists: Callable[[str], bool]) -> None:
        """Write the entries that are there and the fresh records, as far as they read back as they are."""
        encoder = _Encoder()
        for name, entry in self._entries.items():
            if name not in self.fresh and exists(name):
                encoder.add(name, entry[:_STATE], self._result(entry))
        for name, (state, result) in self.fresh.items():
            encoder.add(name, state, result)
        self._file.parent.mkdir(parents=True, exist_ok=True)
        body = orjson.dumps([encoder.entries, encoder.parts])
        wire.write(self._file, _seal(body) + b"\n" + body)


class _Encoder:
    """The entries of a shard and the parts that they share, in their JSON form."""

    def __init__(self) -> None:
        self.entries: dict[str, list[Any]] = {}
        self.parts: dict[str, list[Any]] = {name: [] for name in _PARTS}
        self._numbers: dict[str, dict[bytes, int | None]] = {name: {} for name in _PARTS}

    def add(self, name: str, state: State, result: Result) -> None:
        """Add a record; not one that JSON would change, as one with a number of more than 64 bits."""
        own = [getattr(result, field) for field in _OWN]
        own[_OWN.index("marks")] = list(result.marks)
        try:
            numbers = [self._number(part, getattr(result.cell, part)) for part in _OF_CELL]
            numbers += [self._number(part, getattr(result, part)) for part in _OF_RECORD]
            same = orjson.loads(orjson.dumps(own)) == own
        except (TypeError, ValueError):
            return
        if same and None not in numbers:
            self.entries[name] = [*state, *numbers, *own]

    def _number(self, part: str, value: Any) -> int | None:
        """The position of a part among those of its kind; None where JSON would change it."""
        text, known = orjson.dumps(value), self._numbers[part]
        if text not in known:
            plain = orjson.loads(text)
            known[text] = len(self.parts[part]) if _adapter(part).validate_python(plain) == value else None
            self.parts[part] += [plain] if known[text] is not None else []
        return known[text]


def _read(file: Path) -> tuple[dict[str, list[Any]], dict[str, list[Any]]]:
    """Entries and parts; none of a file that is missing, damaged or written by other sources."""
    try:
        seal, _, body = file.read_bytes().partition(b"\n")
        if seal == _seal(body):
            entries, parts = orjson.loads(body)
            return entries, {name: [_adapter(name).validate_python(v) for v in its] for name, its in parts.items()}
    except (OSError, ValueError):
        pass
    return {}, {}


def _state(file: str) -> State:
    its = os.stat(file)  # noqa: PTH116  (a Path takes longer than the rest)
    return [its.st_size, its.st_mtime_ns, its.st_ctime_ns, its.st_ino, its.st_dev]


def _seal(body: bytes) -> bytes:
    """The hash of the content and of the sources that say what a valid record is."""
    return hashlib.sha256(_sources() + body).hexdigest().encode()


@cache
def _sources() -> bytes:
    here = Path(__file__).parent
    rooms = (file for room in ("contract", "measure") for file in sorted((here / room).glob("*.py")))
    files = (Path(__file__), here / "store.py", *rooms)
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).digest()


@cache
def _adapter(part: str) -> TypeAdapter[Any]:
    return TypeAdapter(_PARTS[part])
