"""Records on disk: one JSON file a round, at a path that is a function of the record, whole or not there.

<device slug>/machine.json, ceiling.json
<device slug>/<suite>/artifacts/<model>/<recipe>/r0.json
<device slug>/<suite>/{quality,serving}/<model>/<recipe>/<engine>/<task or workload>/r<round>.json
... r<round>.traces.jsonl.gz: first the record's digest, then one request a line
... r<round>.items.jsonl.gz: first the digest, then the names of columns, then one item a line
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import math
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from bench.contract import outside, wire
from bench.contract.errors import UserError
from bench.contract.record import SCHEMA, Ceiling, Hardware, RequestTrace, Result

_RECORD = re.compile(r"r\d+\.json")
_UNSAFE = re.compile(r"[^A-Za-z0-9._+=-]")
_LONGEST = 100
_OUTSIDE = ("reason", "receipts", "facts", "environment", "marks")  # may hold what servers and libraries wrote
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
        """Write a record, replacing the one at its path; its traces and items are on disk before it is.

        No secret of this process's variables gets in, whoever wrote it into a reason or a fact.
        """
        path = self.path(result)
        path.parent.mkdir(parents=True, exist_ok=True)
        scrub = outside.scrubber(*_key_variables(result))
        attached = {
            "traces": [wire.dumps(_microseconds(replace(trace, error=scrub(trace.error)))) for trace in traces],
            "items": [wire.dumps(outside.each_text(wire.rounded(wire.plain(item)), scrub)) for item in items],
        }
        for name, lines in attached.items():
            if lines:
                wire.write(_attachment(path, name), _packed(result, lines))
        record = wire.rounded(wire.plain(result))
        record |= {name: outside.each_text(record[name], scrub) for name in _OUTSIDE}
        if record["artifact"]:
            record["artifact"]["facts"] = outside.each_text(record["artifact"]["facts"], scrub)
        wire.write(path, wire.dumps(record, indent=1) + "\n")
        for name, lines in attached.items():
            if not lines:
                _attachment(path, name).unlink(missing_ok=True)
        self.put_machine(result.hardware)
        return path

    def put_machine(self, hardware: Hardware) -> None:
        """Describe the device in its folder."""
        _update(self.root / safe_name(hardware.slug) / "machine.json", wire.dumps(hardware, indent=1) + "\n")

    def put_ceiling(self, hardware: Hardware, ceiling: Ceiling) -> None:
        """Record the measured ceiling of the device in its folder."""
        _update(self._ceiling(hardware), wire.dumps(wire.rounded(wire.plain(ceiling)), indent=1) + "\n")

    def ceiling(self, hardware: Hardware) -> Ceiling | None:
        """The measured ceiling of the device; None where there is none, or no valid one."""
        try:
            ceiling = TypeAdapter(Ceiling).validate_json(self._ceiling(hardware).read_bytes())
        except (FileNotFoundError, ValidationError):
            return None
        rates = (*ceiling.bandwidth.values(), *ceiling.flop_per_s.values())
        return ceiling if all(0 < rate < math.inf for rate in rates) else None

    def get(self, path: Path) -> Result | None:
        """The record at a path; None where there is no file. UserError for a file that is no record."""
        try:
            text = path.read_bytes()
        except FileNotFoundError:
            return None
        return parsed(path, text)

    def find(self, like: Result) -> Result | None:
        """The record at the path of this one."""
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
        """The traces of the record at `path`, if any; UserError for a damaged file, or one of another record."""
        from bench.measure import bounds  # slow to import

        lines = self._lines(path, "traces")
        try:
            traces = tuple(map(_trace, lines))
            ordered = all(map(bounds.is_ordered, traces))
        except (KeyError, TypeError) as error:
            raise UserError(f"{_attachment(path, 'traces')} {_DAMAGED}") from error
        if not ordered:
            raise UserError(f"{_attachment(path, 'traces')} has times that cannot be, and {_DAMAGED}")
        return traces

    def items(self, path: Path) -> tuple[dict[str, Any], ...]:
        """The items of a task's record, as `traces` has requests: columns by name."""
        heads, *rows = self._lines(path, "items") or [[]]
        return tuple(dict(zip(heads, row, strict=True)) for row in rows)

    def _ceiling(self, hardware: Hardware) -> Path:
        return self.root / safe_name(hardware.slug) / "ceiling.json"

    def _lines(self, path: Path, name: str) -> list[Any]:
        attachment = _attachment(path, name)
        if not attachment.exists():
            return []
        try:
            head, *lines = map(json.loads, gzip.decompress(attachment.read_bytes()).decode().splitlines())
            digest = head["digest"]
        except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{attachment} {_DAMAGED}") from error
        record = self.get(path)
        if record is None or record.digest != digest:
            raise UserError(f"{attachment} belongs to another record; delete it and run the cell again")
        return lines


def _key_variables(result: Result) -> list[str]:
    """The variables that hold the keys of the record's engine: options that end in _variable name them."""
    return [str(value) for name, value in result.cell.engine.options.items() if name.endswith("_variable") and value]


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
    """The record in the bytes; UserError, which names the path, where there is none, or its figures cannot be."""
    try:
        record = _adapter().validate_json(text)
    except ValidationError as error:
        raise UserError(f"{path} is not a record: {_fault(text, error)}; move it away") from error
    if record.schema != SCHEMA:
        raise UserError(f"{path} is not a record: {_other_schema(record.schema)}; move it away")
    from bench.measure import bounds  # slow to import

    if faults := bounds.impossible(record):
        raise UserError(f"{path} has figures that cannot be: {faults[0]}; move it away and run the cell again")
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


def _attachment(path: Path, name: str) -> Path:
    return path.with_name(f"{path.stem}.{name}.jsonl.gz")


def _packed(result: Result, lines: Sequence[str]) -> bytes:
    """Gzipped JSON lines below the record's digest, the same bytes for the same lines."""
    lines = [wire.dumps({"digest": result.digest}), *lines]
    with io.BytesIO() as out:
        with gzip.GzipFile(fileobj=out, mode="wb", filename="", mtime=0) as file:
            file.write(("\n".join(lines) + "\n").encode())
        return out.getvalue()


def _trace(line: dict[str, Any]) -> RequestTrace:
    """As `wire.build`, in a tenth of the time: reports read tens of thousands."""
    stamps = {key: tuple(line[key]) for key in ("token_s", "event_tokens")}
    return RequestTrace(**{**line, **stamps})


def _microseconds(trace: RequestTrace) -> Any:
    """The trace's JSON form, times to the microsecond: six digits, as in records, are too few for an ITL late on."""
    return json.loads(wire.dumps(trace), parse_float=lambda text: round(float(text), 6))


def _update(path: Path, text: str) -> None:
    """Write the text unless the file has it already."""
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        wire.write(path, text)


def _fault(text: bytes, error: ValidationError) -> str:
    """What is wrong: another schema, else the first invalid field."""
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
