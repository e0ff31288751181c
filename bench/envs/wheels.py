"""A folder with every file that environments are built from, for a machine without a network."""

from __future__ import annotations

import re
import tarfile
import zipfile
from collections.abc import Iterator
from email.parser import HeaderParser
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from bench import paths
from bench.contract.errors import UserError
from bench.contract.job import Report
from bench.envs import checked, environment, pins
from bench.envs.build_log import Build
from bench.envs.checked import Package
from bench.envs.pins import Pins

_METADATA = re.compile(r"[^/]+\.dist-info/METADATA|[^/]+/PKG-INFO")  # in a wheel, in a source archive


def download(name: str, kind: str, folder: Path, report: Report) -> None:
    """Fetch what the environment is built from on a machine with a GPU (`cuda`) or without (`cpu`), checked.

    For this Python and kind of machine. UserError where the environment has no file of hashes.
    """
    spec = environment.variant(name, kind)
    if not spec.hashes.is_file():
        raise UserError(f"environment '{name}' has no file of hashes: make it with python -m bench envs lock {name}")
    folder.mkdir(parents=True, exist_ok=True)
    build = Build(name, paths.cache_folder("logs") / f"download-{name}.log", report)
    locked = pins.read(spec.hashes)
    checked.check(spec.pins, locked, build)
    roots = [Requirement(text) for text in spec.requirements]
    if spec.source is not None:
        checked.download(spec.source.package, locked, folder, build)
        roots.append(Requirement(spec.source.package))
    while names := checked.missing(_packages(folder, locked), roots, locked, build):
        checked.fetch(names, locked, folder, build)
    checked.fetch(checked.pinned_names(spec.no_deps, locked, build), locked, folder, build)
    if spec.source is not None or locked.sources:
        tools = pins.read(checked.build_tools())
        checked.fetch(sorted(tools.by_name), tools, folder, build)


def _packages(folder: Path, locked: Pins) -> dict[str, Package]:
    """What the folder has in the version that is pinned, by name: others are of another environment."""
    pinned, packages = locked.by_name, dict[str, Package]()
    for headers in map(HeaderParser().parsestr, _metadata(folder)):
        name, version = canonicalize_name(headers["Name"]), headers["Version"]
        if name in pinned and Version(version).public == pinned[name].version:
            packages[name] = Package(name, version, tuple(map(str, headers.get_all("Requires-Dist", []))))
    return packages


def _metadata(folder: Path) -> Iterator[str]:
    """Of wheels and source archives; one that is neither, or damaged, is a UserError."""
    for file in sorted({*folder.glob("*.whl"), *folder.glob("*.zip"), *folder.glob("*.tar.gz")}):
        try:
            yield _of_archive(file) if file.suffix == ".gz" else _of_zip(file)
        except (OSError, StopIteration, KeyError, zipfile.BadZipFile, tarfile.TarError):
            raise UserError(f"{file} is not a whole package: remove it and run the command again") from None


def _of_zip(file: Path) -> str:
    with zipfile.ZipFile(file) as archive:
        name = next(name for name in archive.namelist() if _METADATA.fullmatch(name))
        return archive.read(name).decode()


def _of_archive(file: Path) -> str:
    with tarfile.open(file) as archive:
        member = next(member for member in archive if _METADATA.fullmatch(member.name))
        content = archive.extractfile(member)
        return content.read().decode() if content else ""
