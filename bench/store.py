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
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from bench.contract import outside, wire
from bench.contract.errors import UserError
from bench.contract.record import SCHEMA, Architecture, Ceiling, Hardware, RequestTrace, Result
from bench.record_index import Index, shard_of

_RECORD = re.compile(r"r\d+\.json")
_UNSAFE = re.compile(r"[^A-Za-z0-9._+=-]")
_LONGEST = 100
MAX_BYTES, _MAX_UNPACKED = 1 << 28, 1 << 29
_LARGEST = 1e100
_HUGE = re.compile(rb"[\[:,\s]-?(?:\d{100}|\d[\d.]*[eE]\+?\d{3}|Infinity|NaN)")
# Facts that tables and figures compute from, where a record has them.
_NUMBERS = (
    "client_cpu_fraction",
    "client_lag_p99_s",
    "idle_power_w",
    "in_flight_mean",
    "power_limit_w",
    "unread_bytes",
    "weights_bytes",
    "window_s",
)
_OBJECTS = ("energy_samples", "energy_window", "prefix")
Ceilings, Categories = Mapping[str, Ceiling], Mapping[str, Mapping[str, float]]
_OUTSIDE = ("reason", "receipts", "facts", "environment", "marks")  # may hold what servers and libraries wrote
_DAMAGED = "is damaged; delete it and run the cell again"


class Store:
    """The records under one folder. `problems` has a sentence for each file that `all` could not read."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.problems: list[str] = []
        self._index = Index(root)

    def path(self, result: Result) -> Path:
        """Where a record belongs, whether or not it is there."""
        return self.root / self.name(result)

    def folder(self, slug: str, suite: str) -> Path:
        """Where a suite's records of a device belong, whether or not there are any."""
        return self.root / safe_name(slug) / safe_name(suite)

    def name(self, result: Result) -> str:
        """The path of a record below the root."""
        cell = result.cell
        kind = "serving" if cell.workload else "quality" if cell.task else "artifacts"
        parts = [result.hardware.slug, result.suite, kind, cell.model.label, cell.recipe.name]
        if kind != "artifacts":
            parts += [cell.engine.title, cell.measurement]
        return "/".join((*map(safe_name, parts), f"r{result.round}.json"))

    def put(self, result: Result, traces: Sequence[RequestTrace] = (), items: Sequence[Sequence[Any]] = ()) -> Path:
        """Write a record, replacing the one at its path; its traces and items are on disk before it is.

        No secret of this process's variables gets in, whoever wrote it into a reason or a fact. UserError, which names
        the folder, where it cannot be written.
        """
        path = self.path(result)
        scrub = outside.scrubber(*_key_variables(result))
        attached = {
            "traces": [wire.dumps(_microseconds(replace(trace, error=scrub(trace.error)))) for trace in traces],
            "items": [wire.dumps(outside.each_text(wire.rounded(wire.plain(item)), scrub)) for item in items],
        }
        record = wire.rounded(wire.plain(result))
        record |= {name: outside.each_text(record[name], scrub) for name in _OUTSIDE}
        if record["artifact"]:
            record["artifact"]["facts"] = outside.each_text(record["artifact"]["facts"], scrub)
        with self._writing():
            path.parent.mkdir(parents=True, exist_ok=True)
            for name, lines in attached.items():
                if lines:
                    wire.write(attachment_of(path, name), _packed(result, lines))
                else:  # of the record before: no record may have another's
                    attachment_of(path, name).unlink(missing_ok=True)
            wire.write(path, wire.dumps(record, indent=1) + "\n")
        self.put_machine(result.hardware)
        return path

    def put_machine(self, hardware: Hardware) -> None:
        """Describe the device in its folder."""
        with self._writing():
            _update(self.root / safe_name(hardware.slug) / "machine.json", wire.dumps(hardware, indent=1) + "\n")

    def put_ceiling(self, hardware: Hardware, ceiling: Ceiling) -> None:
        """Record the measured ceiling of the device in its folder."""
        with self._writing():
            _update(self._ceiling(hardware), wire.dumps(wire.rounded(wire.plain(ceiling)), indent=1) + "\n")

    def ceiling(self, hardware: Hardware) -> Ceiling | None:
        """The measured ceiling of the device; None where there is none, or no valid one."""
        try:
            ceiling = TypeAdapter(Ceiling).validate_json(wire.read_bytes(self._ceiling(hardware), MAX_BYTES))
        except (OSError, ValidationError):
            return None
        rates = (*ceiling.bandwidth.values(), *ceiling.flop_per_s.values())
        return ceiling if all(0 < rate < math.inf for rate in rates) else None

    def get(self, path: Path) -> Result | None:
        """The record at a path; None where there is no file. UserError for a file that is no record."""
        try:
            text = wire.read_bytes(path, MAX_BYTES)
        except FileNotFoundError:
            return None
        except NotADirectoryError:
            raise UserError(f"{path} would lie below a file: choose another results folder (--results)") from None
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror}; move it away") from None
        return parsed(path, text)

    def find(self, like: Result) -> Result | None:
        """The record at the path of this one."""
        return self.get(self.path(like))

    def find_all(self, records: Iterable[Result]) -> Iterator[Result | None]:
        """The record at the path of each of these, in their order; quicker than one after the other."""
        try:
            for like in records:
                yield self._indexed(self.name(like))
        finally:
            self._index.close()

    def all(self, pattern: str = "*") -> Iterator[Result]:
        """Every record whose path below the root matches (fnmatch, * crosses folders), in the order of paths.

        Files that cannot be read are skipped, with their names and reasons in `problems`.
        """
        self.problems = []
        shard = ""
        for name in _records(str(self.root)):
            if pattern != "*" and not fnmatchcase(name, pattern):
                continue
            if shard != (shard := shard_of(name)):
                self._index.close()  # so that memory holds one at a time
            try:
                record = self._indexed(name)
            except UserError as error:
                self.problems.append(str(error))
            else:
                if record is not None:
                    yield record
        self._index.close()

    def traces(self, path: Path) -> tuple[RequestTrace, ...]:
        """The traces of the record at `path`, if any; UserError for a damaged file, or one of another record."""
        from bench.measure import bounds  # slow to import

        lines = self._lines(path, "traces")
        try:
            traces = tuple(map(_trace, lines))
            ordered = all(map(bounds.is_ordered, traces))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise UserError(f"{attachment_of(path, 'traces')} {_DAMAGED}") from error
        if not ordered:
            raise UserError(f"{attachment_of(path, 'traces')} has times that cannot be, and {_DAMAGED}")
        return traces

    def items(self, path: Path) -> tuple[dict[str, Any], ...]:
        """The items of a task's record, as `traces` has requests: columns by name."""
        heads, *rows = self._lines(path, "items") or [[]]
        try:
            return tuple(dict(zip(heads, row, strict=True)) for row in rows)
        except (TypeError, ValueError) as error:
            raise UserError(f"{attachment_of(path, 'items')} {_DAMAGED}") from error

    def _indexed(self, name: str) -> Result | None:
        """As `get`, of the file of that name below the root."""
        return self._index.get(name, lambda: self.get(self.root / name))

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(
                f"the results folder {self.root} cannot be written ({error.strerror}): free some space or choose "
                "another folder (--results; LLM_BENCH_CACHE where it is the cache's); what was recorded is kept"
            ) from error

    def _ceiling(self, hardware: Hardware) -> Path:
        return self.root / safe_name(hardware.slug) / "ceiling.json"

    def _lines(self, path: Path, name: str) -> list[Any]:
        attachment = attachment_of(path, name)
        try:
            head, *lines = map(wire.parse, _unpacked(attachment).splitlines())
            digest = head["digest"]
        except FileNotFoundError:
            return []
        except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{attachment} {_DAMAGED}") from error
        record = self.get(path)
        if record is None or record.digest != digest:
            raise UserError(f"{attachment} belongs to another record; delete it and run the cell again")
        return lines


def _key_variables(result: Result) -> list[str]:
    """The variables that hold the keys of the record's engine: options that end in _variable name them."""
    return [str(value) for name, value in result.cell.engine.options.items() if name.endswith("_variable") and value]


@cache
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
    huge = _HUGE.search(text) and _is_huge(wire.parse(text))
    if fault := "a number in it is beyond 1e100" if huge else _wrong_fact(record.facts):
        raise UserError(f"{path} is not a record: {fault}; move it away")
    return record


def _is_huge(value: Any) -> bool:
    """Whether a number in the JSON form is none that arithmetic goes on with: infinite, or all but."""
    pending = [value]
    while pending:
        each = pending.pop()
        if isinstance(each, dict | list):
            pending += each.values() if isinstance(each, dict) else each
        elif isinstance(each, int | float) and not abs(each) < _LARGEST:
            return True
    return False


def _wrong_fact(facts: Mapping[str, Any]) -> str:
    """What is wrong with the types of the facts that tables and figures compute from; "" where nothing is."""
    for name in _NUMBERS:
        if not isinstance(facts.get(name, 0), int | float):
            return f"facts.{name}: expected a number"
    for name in _OBJECTS:
        if not isinstance(facts.get(name, {}), dict):
            return f"facts.{name}: expected an object"
    stages = facts.get("stages", [])
    if not isinstance(stages, list) or not all(map(_is_stage, stages)):
        return "facts.stages: expected a list of objects with a level and metrics"
    chosen = facts.get("chosen", -1)
    if stages and not (isinstance(chosen, int) and -len(stages) <= chosen < len(stages)):
        return "facts.chosen: expected the place of a stage"
    for name, kind in {"architecture": Architecture, "ceiling": Ceilings, "by_category": Categories}.items():
        try:
            if facts.get(name):
                _of(kind).validate_python(facts[name])
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            return f"facts.{'.'.join(map(str, (name, *first['loc'])))}: {first['msg']}"
    return ""


def _is_stage(stage: Any) -> bool:
    return (
        isinstance(stage, dict)
        and isinstance(stage.get("level"), int | float)
        and isinstance(metrics := stage.get("metrics"), dict)
        and all(isinstance(value, int | float) for value in metrics.values())
        and all(isinstance(stage.get(name, 0), int | float) for name in _NUMBERS)
    )


@cache
def _of(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


@cache
def _adapter() -> TypeAdapter[Result]:
    """Built once: that costs as much as reading some hundred records."""
    return TypeAdapter(Result)


def _records(root: str) -> Iterator[str]:
    """The names of the records below a folder, those in it before those in its folders, both sorted.

    Hidden folders have none: an import puts there what is not whole yet.
    """
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        below = f"{folder[len(root) :].lstrip('/')}/" if folder != root else ""
        yield from (f"{below}{name}" for name in sorted(files) if _RECORD.fullmatch(name))


def attachment_of(path: Path, name: str) -> Path:
    """Where the traces or items of the record at `path` are, if it has any."""
    return path.with_name(f"{path.stem}.{name}.jsonl.gz")


def _unpacked(attachment: Path) -> str:
    """The text in a gzipped file; ValueError for one of over _MAX_UNPACKED bytes, which a small file can become."""
    with gzip.GzipFile(fileobj=io.BytesIO(wire.read_bytes(attachment, MAX_BYTES))) as file:
        text = file.read(_MAX_UNPACKED + 1)
    if len(text) > _MAX_UNPACKED:
        raise ValueError
    return text.decode()


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
    numbers = [line[key] for key in ("request", "window", "prompt_tokens", "due_s", "sent_s")]
    numbers += [line.get("reasoning_tokens", 0), line.get("answer_s") or 0.0]
    if not math.isfinite(sum(stamps["token_s"]) + sum(stamps["event_tokens"]) + sum(numbers)):
        raise ValueError
    return RequestTrace(**{**line, **stamps})


def _microseconds(trace: RequestTrace) -> Any:
    """The trace's JSON form, times to the microsecond: six digits, as in records, are too few for an ITL late on."""
    return json.loads(wire.dumps(trace), parse_float=lambda text: round(float(text), 6))


def _update(path: Path, text: str) -> None:
    """Write the text unless the file has it already."""
    try:
        stored = wire.read_bytes(path, MAX_BYTES)
    except OSError:
        stored = b""
    if stored != text.encode():
        path.parent.mkdir(parents=True, exist_ok=True)
        wire.write(path, text)


def _fault(text: bytes, error: ValidationError) -> str:
    """What is wrong: another schema, else the first invalid field."""
    try:
        schema = wire.parse(text)["schema"]
    except (ValueError, KeyError, TypeError):
        schema = SCHEMA
    if schema != SCHEMA:
        return _other_schema(schema)
    first = error.errors(include_url=False)[0]
    where = ".".join(map(str, first["loc"]))
    return f"{where}: {first['msg']}" if where else str(first["msg"])


def _other_schema(schema: object) -> str:
    return f"it has schema {schema}, this version reads {SCHEMA}"
