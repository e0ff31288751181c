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
_STATE = 5  # of the items of an entry; the numbers of its parts follow, then what it has for itself


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
        if result is None and (result := read()) is not None:
            result = shard.add(name, state, result, settled=max(state[1:3]) < now - SETTLED_NS)
        return result

    def close(self) -> None:
        """Write the shards that are worth it, and forget all of them."""
        for shard in self._shards.values():
            if shard.added >= WORTH:
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
    """Entries by the names of their files, and what they share; `added`: how many are not in the file of the shard."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.added = 0
        self._entries, self._parts = _read(file)
        self._numbers: dict[str, dict[bytes, int]] = {}  # of the parts, by their JSON
        self._cells: dict[tuple[int, ...], Cell] = {}

    def get(self, name: str, state: State) -> Result | None:
        entry = self._entries.get(name)
        return self._result(entry[_STATE:]) if entry is not None and entry[:_STATE] == state else None

    def add(self, name: str, state: State, result: Result, *, settled: bool) -> Result:
        """The record, which shares with others what it has in common with them; an entry where its file is settled."""
        own = [getattr(result, field) for field in _OWN]
        own[_OWN.index("marks")] = list(result.marks)
        try:
            values = [
                *(getattr(result.cell, part) for part in _OF_CELL),
                *(getattr(result, part) for part in _OF_RECORD),
            ]
            numbers = [self._number(part, value) for part, value in zip(_PARTS, values, strict=True)]
            if orjson.loads(orjson.dumps(own)) != own:
                return result
        except (TypeError, ValueError):  # JSON would change it, as a number of more than 64 bits
            return result
        if settled:
            self._entries[name] = [*state, *numbers, *own]
            self.added += 1
        return self._result([*numbers, *own])

    def write(self, exists: Callable[[str], bool]) -> None:
        """Write the entries of files that are there, as far as they read back as they are."""
        good = {part: [_reads_back(part, value) for value in values] for part, values in self._parts.items()}
        entries = {
            name: entry
            for name, entry in self._entries.items()
            if all(good[part][i] for part, i in zip(_PARTS, entry[_STATE:], strict=False)) and exists(name)
        }
        parts = {
            part: [value if fits else None for value, fits in zip(values, good[part], strict=True)]
            for part, values in self._parts.items()
        }
        body = orjson.dumps([entries, parts])
        self._file.parent.mkdir(parents=True, exist_ok=True)
        wire.write(self._file, _seal(body) + b"\n" + body)

    def _number(self, part: str, value: Any) -> int:
        """The position of a part among those of its kind, the last one if it is new."""
        values = self._parts[part]
        if part not in self._numbers:
            self._numbers[part] = {orjson.dumps(known): i for i, known in enumerate(values)}
        number = self._numbers[part].setdefault(orjson.dumps(value), len(values))
        if number == len(values):
            values.append(value)
        elif values[number] != value:
            raise ValueError(f"another {part} has the same JSON")
        return number

    def _result(self, entry: Sequence[Any]) -> Result:
        key = tuple(entry[: len(_OF_CELL)])
        if (cell := self._cells.get(key)) is None:
            cell = self._cells[key] = Cell(*(self._parts[part][i] for part, i in zip(_OF_CELL, key, strict=True)))
        suite, hardware, artifact, environment, receipts = (
            self._parts[part][i] for part, i in zip(_OF_RECORD, entry[len(_OF_CELL) :], strict=False)
        )
        digest, number, status, reason, facts, metrics, marks, started, duration_s = entry[len(_PARTS) :]
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


def _read(file: Path) -> tuple[dict[str, list[Any]], dict[str, list[Any]]]:
    """Entries and parts; none of a file that is missing, damaged or written by other sources."""
    try:
        seal, _, body = file.read_bytes().partition(b"\n")
        if seal == _seal(body):
            entries, parts = orjson.loads(body)
            return entries, {
                name: [v and _adapter(name).validate_python(v) for v in its] for name, its in parts.items()
            }
    except (OSError, ValueError):
        pass
    return {}, {name: [] for name in _PARTS}


def _reads_back(part: str, value: Any) -> bool:
    try:
        return bool(_adapter(part).validate_python(orjson.loads(orjson.dumps(value))) == value)
    except (TypeError, ValueError):
        return False


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
