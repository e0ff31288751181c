"""`bench import`: records that were measured elsewhere, shown apart as devices whose names begin with `foreign-`.

Of a bundle each hash is compared first, and each record is read as those of this machine are. Other tools' files
become records with the mark `other-tool`. Either all of it is there in the end or nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from bench.contract import wire
from bench.contract.errors import UserError
from bench.contract.record import Ceiling, Result
from bench.foreign import PREFIX
from bench.measure.sanity import FOREIGN
from bench.share import archive, tools
from bench.share.archive import AGAIN, Archive
from bench.share.bundle import ATTACHED, ENVIRONMENTS, RESULTS
from bench.share.staging import Source, Staging, require_new, slug, staging
from bench.share.tools import Names
from bench.store import Store, attachment_of, parsed, safe_name

MAX_JSON = 1 << 28


@dataclass(frozen=True)
class Imported:
    """An imported device: its folder, where it is from, and what to know of its figures."""

    folder: Path
    source: Source


def import_files(files: Sequence[Path], root: Path, name: str = "", names: Names | None = None) -> list[Imported]:
    """Import one bundle, or files of other tools, below the results folder `root`; UserError, and nothing imported.

    `name`: of the device, after `foreign-`. `names`: what other tools' files do not say.
    """
    bundles = [file for file in files if _is_bundle(file)]
    if bundles and len(files) > 1:
        raise UserError(f"{bundles[0]} is a bundle: import it alone, and other files after it")
    with staging(root) as staged:
        if bundles:
            if names and names != Names():
                raise UserError(f"{bundles[0]} is a bundle, whose records say what they are: name only --as")
            sources = _bundle(bundles[0], staged, name)
        else:
            sources = _tool_files(files, staged, name, names or Names())
        by_folder = {safe_name(device): source for device, source in sources.items()}
        return [Imported(folder, by_folder[folder.name]) for folder in staged.commit()]


def _is_bundle(file: Path) -> bool:
    try:
        return archive.is_archive(file)
    except FileNotFoundError:
        raise UserError(f"{file} does not exist") from None
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from None


def _bundle(file: Path, staged: Staging, name: str) -> dict[str, Source]:
    with archive.opened(file) as bundle:
        bundle.verify()
        require_new(staged.root, bundle.manifest.id, file)
        members = [member for member in bundle.names() if _is_record(member)]
        several = len({member.split("/")[1] for member in members}) > 1
        written: dict[tuple[str, str], list[Path]] = {}
        for member in members:
            text = bundle.read(member)
            result = _record(bundle, member, text)
            device = result.hardware.slug
            new = slug(name, f"{device}-{bundle.manifest.id[:8]}", device if several else "")
            if (device, new) not in written:
                _describe(bundle, device, replace(result, hardware=replace(result.hardware, slug=new)), staged)
            written.setdefault((device, new), []).append(_put(bundle, member, text, result, new, staged))
        if not written or len({new for _, new in written}) < len(written):
            why = "has devices that would be one here" if written else "holds no records"
            raise UserError(f"{file} {why}: nothing was imported")
        sources = {new: _source(bundle, device, len(paths)) for (device, new), paths in written.items()}
        for (_, new), paths in written.items():
            staged.put_source(new, sources[new])
            _check_attached(file, staged, paths)
    return sources


def _is_record(member: str) -> bool:
    return member.startswith(f"{RESULTS}/") and member.count("/") > 2 and member.endswith(".json")


def _record(bundle: Archive, member: str, text: bytes) -> Result:
    """The record in a member; UserError where it is none, or another's than the member's name says."""
    try:
        result = parsed(Path(member), text)
    except UserError as error:
        raise UserError(f"{bundle.file}: {str(error).partition('; move it away')[0]}; nothing was imported") from None
    if f"{RESULTS}/{Store(Path()).name(result)}" != member:
        raise UserError(f"{bundle.file}: {member} is the record of another cell: {AGAIN}")
    return result


def _put(bundle: Archive, member: str, text: bytes, result: Result, device: str, staged: Staging) -> Path:
    """The record with its files, under the name of its new device and marked."""
    fields = wire.parse(text)
    fields["hardware"]["slug"] = device
    fields["marks"] = sorted({*fields.get("marks", ()), FOREIGN})
    moved = replace(result, hardware=replace(result.hardware, slug=device))
    path = staged.put_record(moved, wire.dumps(fields, indent=1) + "\n")
    listed = set(bundle.manifest.files)
    for kind in ATTACHED:
        attached = attachment_of(Path(member), kind).as_posix()
        if attached in listed:
            staged.put_file(attachment_of(path, kind).relative_to(staged.folder).as_posix(), bundle.read(attached))
    return path


def _describe(bundle: Archive, device: str, first: Result, staged: Staging) -> None:
    """The device's machine and its ceiling, and the definitions of the environments that records came from."""
    staged.put_machine(first)
    folder, listed = safe_name(first.hardware.slug), set(bundle.manifest.files)
    if (member := f"{RESULTS}/{safe_name(device)}/ceiling.json") in listed:
        text = bundle.read(member)
        try:
            TypeAdapter(Ceiling).validate_json(text)
        except ValidationError:
            raise UserError(f"{bundle.file}: {member} is not the ceiling of a device: {AGAIN}") from None
        staged.put_file(f"{folder}/ceiling.json", text)
    for member in sorted(listed):
        if member.startswith(f"{ENVIRONMENTS}/"):
            staged.put_file(f"{folder}/{member}", bundle.read(member))


def _check_attached(file: Path, staged: Staging, paths: Sequence[Path]) -> None:
    try:
        staged.check_attached(paths)
    except UserError as error:
        text = str(error).replace(f"{staged.folder}/", "").partition(";")[0]
        raise UserError(f"{file}: {text}: {AGAIN}") from None


def _source(bundle: Archive, device: str, count: int) -> Source:
    return Source(bundle.manifest.id, "bundle", (bundle.file.name,), device, count, _now())


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _tool_files(files: Sequence[Path], staged: Staging, name: str, names: Names) -> dict[str, Source]:
    contents = [(file, _content(file)) for file in files]
    digests = sorted({hashlib.sha256(text).hexdigest() for _, text in contents})
    if len(digests) < len(contents):
        raise UserError("two of the files have the same content: name each once")
    source_id = wire.digest(digests)
    require_new(staged.root, source_id, files[0])
    read = [tools.read(file, text) for file, text in contents]
    kinds = "-".join(dict.fromkeys(each.tool for each in read))
    device = slug(name, f"{kinds}-{source_id[:8]}")
    results = tools.results(read, device, names)
    for result in results:
        text = wire.dumps(wire.rounded(wire.plain(result)), indent=1) + "\n"
        try:
            parsed(Path(PREFIX), text.encode())
        except UserError as error:
            why = str(error).partition(" ")[2].partition("; move it away")[0]
            raise UserError(f"{', '.join(map(str, files))}: {result.cell.measurement} {why}: {AGAIN}") from None
        staged.put_record(result, text)
    staged.put_machine(results[0])
    notes = tuple(dict.fromkeys(note for each in read for note in each.notes))
    source = Source(source_id, kinds, tuple(file.name for file in files), "", len(results), _now(), notes)
    staged.put_source(device, source)
    return {device: source}


def _content(file: Path) -> bytes:
    try:
        return wire.read_bytes(file, MAX_JSON)
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from None
