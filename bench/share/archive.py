"""A bundle that came from elsewhere, read with distrust: nothing in it is used before all of it is what it claims.

Nothing is unpacked to a path that the file names: members are read into memory, each up to a limit.
"""

from __future__ import annotations

import hashlib
import re
import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from bench.contract import wire
from bench.contract.errors import UserError
from bench.contract.record import SCHEMA
from bench.share.bundle import ENVIRONMENTS, FORMAT, MANIFEST, OF_A_DEVICE, RESULTS, VERSION, Manifest, bundle_id
from bench.store import MAX_BYTES

MAX_UNPACKED, MAX_MEMBERS = 1 << 32, 500_000
AGAIN = "get it again from where it is from; nothing was imported"
_ENDS = ("PK\x03\x04", "PK\x05\x06")  # what a zip file begins with, and an empty one
_PART = r"[A-Za-z0-9_+=~-][A-Za-z0-9._+=~-]{0,149}"
_ROUND = r"r\d{1,9}(\.json|\.(traces|items)\.jsonl\.gz)"
_RECORD = rf"{RESULTS}/{_PART}/{_PART}/(artifacts|quality|serving)(/{_PART}){{2,4}}/{_ROUND}"
_DEVICE = rf"{RESULTS}/{_PART}/({'|'.join(map(re.escape, OF_A_DEVICE))})"
_ENVIRONMENT = rf"{ENVIRONMENTS}/(hashes/)?[A-Za-z0-9_-]{{1,99}}\.(yaml|txt)"
_MEMBER = re.compile(rf"({_RECORD}|{_DEVICE}|{_ENVIRONMENT})")
_DAMAGES = (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError, ValueError)


class Archive:
    """The members of a bundle whose hashes are those of its manifest."""

    def __init__(self, file: Path, archive: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo]) -> None:
        self.file, self._archive, self._members = file, archive, members
        self.manifest = _manifest(file, self.read(MANIFEST))
        self._compare_names()

    def names(self) -> list[str]:
        """All but the manifest, sorted."""
        return sorted(self.manifest.files)

    def verify(self) -> None:
        """Compare each member with its hash; UserError that names the first which differs."""
        for name in self.names():
            if hashlib.sha256(self.read(name)).hexdigest() != self.manifest.files[name]:
                raise UserError(f"{self.file}: {name} was changed after the bundle was made: {AGAIN}")
        if bundle_id(self.manifest.files) != self.manifest.id:
            raise UserError(f"{self.file}: {MANIFEST} was changed after the bundle was made: {AGAIN}")

    def read(self, name: str) -> bytes:
        """The bytes of a member; UserError where they are damaged, or more than a record takes."""
        try:
            with self._archive.open(self._members[name]) as member:
                data = member.read(MAX_BYTES + 1)
        except KeyError:
            raise UserError(f"{self.file} lacks {name}, and is no whole bundle: {AGAIN}") from None
        except _DAMAGES as error:
            raise UserError(f"{self.file}: {name} is damaged ({error or type(error).__name__}): {AGAIN}") from None
        if len(data) > MAX_BYTES:
            raise UserError(_too_large(self.file))
        return data

    def _compare_names(self) -> None:
        listed, present = set(self.manifest.files), set(self._members) - {MANIFEST}
        for name in sorted(present - listed):
            raise UserError(f"{self.file}: {name} is not in its manifest: {AGAIN}")
        for name in sorted(listed - present):
            raise UserError(f"{self.file} lacks {name}, which its manifest lists: {AGAIN}")


def is_archive(file: Path) -> bool:
    """Whether a file begins as a zip file does; OSError where it cannot be read."""
    with wire.open_regular(file) as opened:
        return opened.read(4).decode("latin-1") in _ENDS


@contextmanager
def opened(file: Path) -> Iterator[Archive]:
    """The bundle in a file, its names checked and its hashes not yet; UserError for what is none."""
    with wire.open_regular(file) as stream:
        try:
            archive = zipfile.ZipFile(stream)
        except _DAMAGES:
            raise UserError(f"{file} is a bundle that was cut short or changed: {AGAIN}") from None
        with archive:
            yield Archive(file, archive, _members(file, archive))


def _members(file: Path, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """By name; UserError for a name that no bundle has, as one that leads elsewhere, and for more than records take.

    Sizes are those that the file states: zipfile reads no more of a member than that.
    """
    infos = archive.infolist()
    if len(infos) > MAX_MEMBERS or sum(info.file_size for info in infos) > MAX_UNPACKED:
        raise UserError(_too_large(file))
    members: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        mode = info.external_attr >> 16
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
            raise UserError(f"{file}: {info.filename} is a link or no regular file: {AGAIN}")
        if info.filename != MANIFEST and not _MEMBER.fullmatch(info.filename):
            raise UserError(f"{file}: {info.filename} is no file of a bundle: {AGAIN}")
        if info.filename in members:
            raise UserError(f"{file} has {info.filename} twice: {AGAIN}")
        members[info.filename] = info
    return members


def _too_large(file: Path) -> str:
    limits = f"{MAX_UNPACKED >> 30} GiB in all or {MAX_BYTES >> 20} MiB in a file"
    return f"{file} unpacks to more than {limits}, which no bundle does: {AGAIN}"


def _manifest(file: Path, text: bytes) -> Manifest:
    try:
        data: Any = wire.parse(text)
    except ValueError:
        data = None
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise UserError(f"{file} is a zip file and no bundle of `bench bundle`: its {MANIFEST} does not say so")
    for key, ours in (("version", VERSION), ("schema", SCHEMA)):
        if data.get(key) != ours:
            what = "a bundle of version" if key == "version" else "a bundle of records of schema"
            raise UserError(f"{file} is {what} {data.get(key)}, this version reads {ours}: import it with its own")
    try:
        return TypeAdapter(Manifest).validate_python(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(f"{file}: {MANIFEST} is damaged ({where}: {first['msg']}): {AGAIN}") from None
