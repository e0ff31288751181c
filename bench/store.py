"""Records on disk: one JSON file a round, at a path that is a function of the record, whole or not there.

<device slug>/machine.json, ceiling.json
<device slug>/<suite>/artifacts/<model>/<recipe>/r0.json
<device slug>/<suite>/{quality,serving}/<model>/<recipe>/<engine>/<task or workload>/r<round>.json
... r<round>.traces.jsonl.gz beside it: first the record's digest, then one request a line
... r<round>.items.jsonl.gz beside it: first the digest, then the names of columns, then one item a line
"""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import io
import json
import os
import re
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from bench.contract import wire
from bench.contract.errors import UserError
from bench.contract.record import SCHEMA, Ceiling, Hardware, RequestTrace, Result

_RECORD = re.compile(r"r\d+\.json")
_UNSAFE = re.compile(r"[^A-Za-z0-9._+=-]")
_LONGEST = 100
_DAMAGED = "is damaged; delete it and run the cell again"


class Store:
    """The records under one folder. `problems` has a sentence for each file that `all` could not read."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.problems: list[str] = []

    def path(self, result: Result) -> Path:
        """Where a record belongs, whether or not it is there."""
        cell = result.cell
        kind = "serving" if cell.workload else "quality" if cell.task else "artifacts"
        parts = [result.hardware.slug, result.suite, kind, cell.model.label, cell.recipe.name]
        if kind != "artifacts":
            parts += [cell.engine.title, cell.measurement]
        return self.root.joinpath(*map(safe_name, parts), f"r{result.round}.json")

    def put(self, result: Result, traces: Sequence[RequestTrace] = (), items: Sequence[Sequence[Any]] = ()) -> Path:
        """Write a record, replacing the one at its path; what is kept beside it is on disk before it is."""
        path = self.path(result)
        path.parent.mkdir(parents=True, exist_ok=True)
        attached = {
            "traces": [wire.dumps(_microseconds(dataclasses.asdict(trace))) for trace in traces],
            "items": [wire.dumps(wire.rounded(wire.plain(item))) for item in items],
        }
        for name, lines in attached.items():
            if lines:
                wire.write(_beside(path, name), _packed(result, lines))
        wire.write(path, wire.dumps(wire.rounded(wire.plain(result)), indent=1) + "\n")
        for name, lines in attached.items():
            if not lines:
                _beside(path, name).unlink(missing_ok=True)
        self.put_machine(result.hardware)
        return path

    def put_machine(self, hardware: Hardware) -> None:
        """Describe the device in its folder; written when it is not there or says something else."""
        path = self.root / safe_name(hardware.slug) / "machine.json"
        text = wire.dumps(hardware, indent=1) + "\n"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            wire.write(path, text)

    def put_ceiling(self, hardware: Hardware, ceiling: Ceiling) -> None:
        """Keep what was measured of the device in its folder; written when it is not there or differs."""
        path = self._ceiling(hardware)
        text = wire.dumps(wire.rounded(wire.plain(ceiling)), indent=1) + "\n"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            wire.write(path, text)

    def ceiling(self, hardware: Hardware) -> Ceiling | None:
        """What was measured of the device; None where nothing was, and for a file that is not ours."""
        try:
            return TypeAdapter(Ceiling).validate_json(self._ceiling(hardware).read_bytes())
        except (FileNotFoundError, ValidationError):
            return None

    def get(self, path: Path) -> Result | None:
        """The record at a path; None where there is none. UserError for a file that is not one of ours."""
        try:
            text = path.read_bytes()
        except FileNotFoundError:
            return None
        return parsed(path, text)

    def find(self, like: Result) -> Result | None:
        """The record that stands where this one would be put."""
        return self.get(self.path(like))

    def all(self, pattern: str = "*") -> Iterator[Result]:
        """Every record whose path below the root matches (fnmatch, * crosses folders), in the order of paths.

        Files that cannot be read are skipped, with their names and reasons in `problems`.
        """
        self.problems = []
        for path in _records(self.root):
            if not fnmatchcase(path.relative_to(self.root).as_posix(), pattern):
                continue
            try:
                record = self.get(path)
            except UserError as error:
                self.problems.append(str(error))
            else:
                if record is not None:
                    yield record

    def traces(self, path: Path) -> tuple[RequestTrace, ...]:
        """The traces of the record at `path`; empty where none were kept.

        UserError where the file is damaged or belongs to another record than the one that stands there now.
        """
        lines = self._lines(path, "traces")
        try:
            return tuple(map(_trace, lines))
        except (KeyError, TypeError) as error:
            raise UserError(f"{_beside(path, 'traces')} {_DAMAGED}") from error

    def items(self, path: Path) -> tuple[dict[str, Any], ...]:
        """The items of a task's record, as `traces` has requests: columns by name."""
        heads, *rows = self._lines(path, "items") or [[]]
        return tuple(dict(zip(heads, row, strict=True)) for row in rows)

    def _ceiling(self, hardware: Hardware) -> Path:
        return self.root / safe_name(hardware.slug) / "ceiling.json"

    def _lines(self, path: Path, name: str) -> list[Any]:
        beside = _beside(path, name)
        if not beside.exists():
            return []
        try:
            head, *lines = map(json.loads, gzip.decompress(beside.read_bytes()).decode().splitlines())
            digest = head["digest"]
        except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{beside} {_DAMAGED}") from error
        record = self.get(path)
        if record is None or record.digest != digest:
            raise UserError(f"{beside} belongs to another record; delete it and run the cell again")
        return lines


def safe_name(name: str) -> str:
    """A name as one path component; different names stay different.

    What is unsafe, long, hidden or empty is changed and gets ~ and a hash of the whole; no unchanged name
    has a ~.
    """
    safe = _UNSAFE.sub("_", name)[:_LONGEST]
    if safe == name and not name.startswith(".") and name:
        return name
    return f"{safe.lstrip('.') or '_'}~{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def is_record(path: Path) -> bool:
    """Whether a file of that name is a round's record."""
    return _RECORD.fullmatch(path.name) is not None


def parsed(path: Path, text: bytes) -> Result:
    """The record that the bytes are; UserError, which names the path, where they are none of ours."""
    try:
        record = _adapter().validate_json(text)
    except ValidationError as error:
        raise UserError(f"{path} is not a record: {_fault(text, error)}; move it away") from error
    if record.schema != SCHEMA:
        raise UserError(f"{path} is not a record: {_other_schema(record.schema)}; move it away")
    return record


@cache
def _adapter() -> TypeAdapter[Result]:
    """Built once: that costs as much as reading some hundred records."""
    return TypeAdapter(Result)


def _records(root: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(root):
        folders.sort()
        for name in sorted(files):
            if is_record(path := Path(folder, name)):
                yield path


def _beside(path: Path, name: str) -> Path:
    return path.with_name(f"{path.stem}.{name}.jsonl.gz")


def _packed(result: Result, lines: Sequence[str]) -> bytes:
    """Gzipped JSON lines below the record's digest, the same bytes for the same lines."""
    lines = [wire.dumps({"digest": result.digest}), *lines]
    with io.BytesIO() as out:
        with gzip.GzipFile(fileobj=out, mode="wb", filename="", mtime=0) as file:
            file.write(("\n".join(lines) + "\n").encode())
        return out.getvalue()


def _trace(line: dict[str, Any]) -> RequestTrace:
    """What `wire.build` would make of it, in a tenth of the time: reports read tens of thousands."""
    stamps = {key: tuple(line[key]) for key in ("token_s", "event_tokens")}
    return RequestTrace(**{**line, **stamps})


def _microseconds(value: Any) -> Any:
    """Times in a trace keep microseconds.

    Six significant digits, as in records, would leave 0.1 ms of a time late in the window: more than an ITL
    can bear.
    """
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, dict):
        return {k: _microseconds(v) for k, v in value.items()}
    return [_microseconds(v) for v in value] if isinstance(value, list | tuple) else value


def _fault(text: bytes, error: ValidationError) -> str:
    """What is wrong, in a clause: another schema if the file says so, else the first field that is off."""
    try:
        schema = json.loads(text)["schema"]
    except (ValueError, KeyError, TypeError):
        schema = SCHEMA
    if schema != SCHEMA:
        return _other_schema(schema)
    first = error.errors(include_url=False)[0]
    where = ".".join(map(str, first["loc"]))
    return f"{where}: {first['msg']}" if where else str(first["msg"])


def _other_schema(schema: object) -> str:
    return f"it has schema {schema}, this version reads {SCHEMA}"
