"""Files of hashes: one version of each package, and the sha256 of every file that an index may serve for it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from bench.contract.errors import UserError

Entries = Mapping[tuple[str, str], frozenset[str]]  # (name, version) -> sha256 of its files; a version may end in +cpu
_PIN = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)==(\S+)((?:\s+--hash=sha256:[0-9a-f]{64})+)")
_SOURCE = re.compile(r"--no-binary[ =](\S+)")


@dataclass(frozen=True)
class Pin:
    """The version of a package. `files`: sha256 of its own files, and of those of its builds (2.13.0+cpu)."""

    name: str
    version: str
    files: Mapping[str, frozenset[str]]

    @property
    def builds(self) -> list[str]:
        """The versions of its builds, in the order in which pip prefers them."""
        return sorted((version for version in self.files if version != self.version), key=Version, reverse=True)

    def line(self, version: str) -> str:
        """The requirement of one of these versions as pip reads it from a file."""
        hashes = sorted(self.files.get(version, ()))
        return " ".join([f"{self.name}=={version}", *(f"--hash=sha256:{value}" for value in hashes)])


@dataclass(frozen=True)
class Pins:
    """A file of hashes, read. `sources`: packages that come as a source archive, and are built here."""

    file: Path
    entries: Entries
    sources: frozenset[str]

    @property
    def by_name(self) -> dict[str, Pin]:
        pinned: dict[str, Pin] = {}
        for (name, version), hashes in self.entries.items():
            public = Version(version).public
            before = pinned.get(name, Pin(name, public, {}))
            if before.version != public:
                raise UserError(f"{self.file} lists {name} {before.version} and {public}: leave one of the two")
            pinned[name] = Pin(name, public, {**before.files, version: hashes})
        return pinned


def read(file: Path) -> Pins:
    """The file of hashes; UserError that names the line which is none."""
    entries: dict[tuple[str, str], frozenset[str]] = {}
    sources = set()
    for line in re.sub(r"\\\n", " ", file.read_text(encoding="utf-8")).splitlines():
        text = line.partition("#")[0].strip()
        if match := _SOURCE.fullmatch(text):
            sources.add(canonicalize_name(match[1]))
        elif match := _PIN.fullmatch(text):
            key = (canonicalize_name(match[1]), _version(match[2], file))
            entries[key] = entries.get(key, frozenset()) | set(re.findall(r"sha256:([0-9a-f]{64})", match[3]))
        elif text and text != "--only-binary :all:":
            raise UserError(f"{file}: '{text[:80]}' is not NAME==VERSION --hash=sha256:...: make the file again")
    return Pins(file, entries, frozenset(sources))


def text(heading: str, entries: Entries, sources: Iterable[str]) -> str:
    """A file of hashes, in the form in which `pip install --require-hashes -r` reads it too."""
    lines = [f"# {heading}", "--only-binary :all:", *(f"--no-binary {name}" for name in sorted(sources))]
    for (name, version), hashes in sorted(entries.items()):
        lines += [" \\\n".join([f"{name}=={version}", *(f"    --hash=sha256:{value}" for value in sorted(hashes))])]
    return "\n".join([*lines, ""])


def constrained(constraints: str) -> dict[str, str]:
    """The exact versions of a file of constraints, by name."""
    exact = (line.partition("#")[0].strip().partition("==") for line in constraints.splitlines())
    return {canonicalize_name(name): version for name, equals, version in exact if equals}


def _version(version: str, file: Path) -> str:
    try:
        return str(Version(version))
    except InvalidVersion:
        raise UserError(f"{file}: '{version}' is not a version: make the file again") from None
