"""Making the files of hashes: uv finds what each environment's pins ask for, and the index tells each file's sha256."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename
from packaging.version import Version

from bench.contract import wire
from bench.contract.errors import UserError
from bench.contract.job import Report
from bench.envs import checked, environment, pins
from bench.envs.checked import BUILD_TOOLS
from bench.envs.environment import EnvSpec
from bench.process import scratch

PYPI = "https://pypi.org/simple"
_TOOLS = ("setuptools>=79,<83", "wheel", "scikit-build-core>=0.9.2", "cmake>=3.27", "ninja")
_OLDEST_PYTHON = 11  # 3.11, as pyproject.toml has it
_MACHINES = ("x86_64", "aarch64")
_PYTHONS = tuple(f"3.{minor}" for minor in range(_OLDEST_PYTHON, 16))


def locked_names() -> list[str]:
    """The environments that have files of hashes, and `build`."""
    return [BUILD_TOOLS, *(name for name in environment.names() if any(s.hashes.is_file() for s in _variants(name)))]


def make(name: str, index: str, report: Report) -> list[Path]:
    """Write the environment's files of hashes from an index; a build that was added to a pin (2.13.0+cpu) stays."""
    if name == BUILD_TOOLS:
        _write(checked.build_tools(), _TOOLS, (), "", index, name)
        return [checked.build_tools()]
    files = []
    if not (variants := _variants(name)):
        raise UserError(f"environment '{name}' has no pins: write them to {name}.txt beside its file")
    for spec in variants:
        report(f"environment {name}: asking {index} for what {spec.hashes.name} pins")
        source = (spec.source.package,) if spec.source else ()
        _write(spec.hashes, (*spec.requirements, *source), spec.no_deps, spec.pins, index, name)
        files.append(spec.hashes)
    return files


def add(name: str, package: str, report: Report) -> list[Path]:
    """Add the sha256 of the wheel that pip, as it is configured here, is offered for one pinned package."""
    file = checked.build_tools() if name == BUILD_TOOLS else environment.spec(name).hashes
    wanted = canonicalize_name(package)
    locked = pins.read(file) if file.is_file() else None
    if locked is None or wanted not in locked.by_name:
        raise UserError(f"no file of hashes of environment '{name}' lists '{package}': name a package that it pins")
    pin = locked.by_name[wanted]
    with scratch.folder() as folder:
        report(f"environment {name}: fetching {pin.name} {pin.version}")
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        _run([*pip, "-d", str(folder), f"{pin.name}=={pin.version}"], f"{pin.name}=={pin.version}: pip")
        (wheel,) = folder.glob("*.whl")
        version = str(parse_wheel_filename(wheel.name)[1])
        digest = wire.sha256(wheel)
    entries = dict(locked.entries)
    entries[wanted, version] = entries.get((wanted, version), frozenset()) | {digest}
    file.write_text(pins.text(_heading(name), entries, locked.sources))
    return [file]


def _variants(name: str) -> list[EnvSpec]:
    """The environment's variants that have pins of their own."""
    every = {spec.hashes: spec for spec in (environment.variant(name, kind) for kind in ("cpu", "cuda"))}
    return [spec for spec in every.values() if spec.pins]


def _write(
    file: Path, requirements: Sequence[str], alone: Sequence[str], constraints: str, index: str, name: str
) -> None:
    """Resolve for Linux on any Python, the pins decide; then write each file's sha256 that Linux can install."""
    exact = pins.constrained(constraints)
    names = {canonicalize_name(Requirement(text).name) for text in alone}
    lines = [f"{pinned}=={version}" for pinned, version in exact.items()]
    packages = [
        *_resolved([*requirements, *(t for t in lines if t.partition("==")[0] not in names)], lines, index, name),
        *_resolved(alone, lines, index, name, "--no-deps"),
    ]
    entries: dict[tuple[str, str], frozenset[str]] = {}
    sources = set()
    for package in packages:
        key = (canonicalize_name(package["name"]), str(Version(package["version"])))
        hashes = {_sha256(wheel) for wheel in package.get("wheels", ()) if _on_linux(_filename(wheel))}
        if not package.get("wheels") and "sdist" in package:
            sources.add(key[0])
            hashes = {_sha256(package["sdist"])}
        if hashes and _on_this_system(package.get("marker", "")):
            entries[key] = frozenset(hashes)
    file.parent.mkdir(exist_ok=True)
    before = pins.read(file).entries if file.is_file() else {}
    builds = {key: old for key, old in before.items() if "+" in key[1] and (key[0], Version(key[1]).public) in entries}
    file.write_text(pins.text(_heading(name), {**entries, **builds}, sources))


def _heading(name: str) -> str:
    return f"python -m bench envs lock {name} makes this file: the sha256 of each file that pip may install on Linux"


def _resolved(
    requirements: Sequence[str], overrides: Sequence[str], index: str, name: str, *options: str
) -> list[dict[str, Any]]:
    """What uv resolves, as the packages of a pylock.toml (PEP 751)."""
    if not requirements:
        return []
    if importlib.util.find_spec("uv") is None:
        raise UserError("files of hashes are made with uv, which is not installed: pip install uv")
    with scratch.folder() as folder:
        (folder / "requirements.in").write_text("\n".join(map(_linux_alone, requirements)))
        (folder / "overrides.txt").write_text("\n".join(overrides))
        written = folder / "pylock.toml"
        compile_ = ["--universal", "--python-version", _PYTHONS[0], "--format", "pylock.toml", "--no-config", "--quiet"]
        argv = [*compile_, "--index-url", index, "--override", str(folder / "overrides.txt"), *options]
        _run(
            [sys.executable, "-m", "uv", "pip", "compile", *argv, "-o", str(written), str(folder / "requirements.in")],
            f"the pins of '{name}' cannot be resolved with {index}: uv",
        )
        packages: list[dict[str, Any]] = tomllib.loads(written.read_text())["packages"]
        return packages


def _run(argv: Sequence[str], what: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env={**os.environ, "NO_COLOR": "1"})
    if done.returncode:
        reason = " ".join(done.stderr.split())[-400:]
        raise UserError(f"{what} says: {reason}")


def _linux_alone(requirement: str) -> str:
    wanted = Requirement(requirement)
    linux = "sys_platform == 'linux'"
    wanted.marker = Marker(f"({wanted.marker}) and {linux}" if wanted.marker else linux)
    return str(wanted)


def _on_this_system(marker: str) -> bool:
    """Whether a package is for Linux, on any machine and Python that this suite runs on."""
    return not marker or any(Marker(marker).evaluate(place) for place in _places())


def _places() -> Iterator[dict[str, str]]:
    for machine in _MACHINES:
        for python in _PYTHONS:
            names = {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix"}
            versions = {"python_version": python, "python_full_version": f"{python}.0"}
            yield {**names, **versions, "platform_machine": machine, "implementation_name": "cpython"}


def _on_linux(filename: str) -> bool:
    """Whether CPython on Linux with glibc, 3.11 or newer, can install the wheel."""
    return any(
        (tag.platform == "any" or re.fullmatch(rf"(many)?linux.*_({'|'.join(_MACHINES)})", tag.platform))
        and (tag.abi == "abi3" or re.fullmatch(r"py3\d*", tag.interpreter) or _recent(tag.interpreter))
        for tag in parse_wheel_filename(filename)[3]
    )


def _recent(interpreter: str) -> bool:
    match = re.fullmatch(r"cp3(\d+)", interpreter)
    return match is not None and int(match[1]) >= _OLDEST_PYTHON


def _filename(file: dict[str, Any]) -> str:
    return file.get("name") or unquote(urlsplit(file["url"]).path.rsplit("/", 1)[-1])


def _sha256(file: dict[str, Any]) -> str:
    try:
        value: str = file["hashes"]["sha256"]
    except KeyError:
        raise UserError(f"the index has no sha256 of {_filename(file)}: name another with --index") from None
    return value
