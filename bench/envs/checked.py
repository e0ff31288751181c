"""Installing what a file of hashes lists and nothing else: files of other bytes, or of other packages, are refused."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import sys
import sysconfig
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from bench import paths
from bench.contract.errors import UserError
from bench.envs import installer, pins
from bench.envs.build_log import Build, StepError, python_variable
from bench.envs.pins import Pin, Pins
from bench.process import scratch
from bench.process.cache import build_once

BUILD_TOOLS = "build"
_FROM = re.compile(r"(\S+==\S+) from ([^\s#]+)")
_EXPECTED = re.compile(r"Expected\s+(?:sha256|or)\s+([0-9a-f]{64})")
_GOT = re.compile(r"Got\s+([0-9a-f]{64})")
PIP_OPTIONS = ("--no-input", "--progress-bar", "off", "--disable-pip-version-check")
_CHECKED = (*PIP_OPTIONS, "--no-deps", "--require-hashes")


@dataclass(frozen=True)
class Package:
    """A package that is there, with what it asks for as its metadata says it."""

    name: str
    version: str
    requires: tuple[str, ...]


def install(
    python: str, requirements: Sequence[str], alone: Sequence[str], compiled: Path | None, locked: Pins, build: Build
) -> None:
    """Install the requirements with all that they ask for, then those `alone`, each file checked against `locked`.

    What is asked for is read from what was installed, round by round: pip's own resolver would run a source archive
    before its hash is known. The `compiled` wheel was made here, of a checked source: no index knows its hash.
    """
    folder = Path(python).parents[1]
    roots = [Requirement(text) for text in requirements]
    if compiled is not None:
        build.say(f"installing {compiled.name}, compiled on this machine: no index has its hash")
        build.step([python, "-m", "pip", "install", *PIP_OPTIONS, "--no-deps", "--no-index", str(compiled)])
        roots.append(Requirement(compiled.name.partition("-")[0]))
    while names := missing(_installed(folder), roots, locked, build):
        _install(python, names, locked, build)
    _install(python, pinned_names(alone, locked, build), locked, build)


def check(constraints: str, locked: Pins, build: Build) -> None:
    """UserError where the file of hashes is not of these constraints: one of the two was changed alone."""
    pinned = locked.by_name
    for name, version in pins.constrained(constraints).items():
        if name not in pinned or pinned[name].version != version:
            there = f"{name} {pinned[name].version}" if name in pinned else f"no {name}"
            raise UserError(
                f"environment '{build.name}' pins {name} {version}, and {locked.file} has {there}: "
                f"make it again with python -m bench envs lock {build.name}"
            )


def build_tools() -> Path:
    """The file of hashes of what source archives are built with."""
    return paths.CONFIGS / "envs" / "hashes" / f"{BUILD_TOOLS}.txt"


def builder_folder() -> Path:
    """Where the tools that build source archives are, or will be."""
    target = (platform.python_version(), platform.system(), platform.machine())
    digest = hashlib.sha256("\n".join([*target, build_tools().read_text()]).encode()).hexdigest()[:12]
    return paths.cache() / "built" / f"build-tools-{digest}"


def builder(build: Build) -> tuple[str, dict[str, str]]:
    """The interpreter that builds source archives, with checked tools alone, and its variables; made once."""
    locked, folder = pins.read(build_tools()), builder_folder()
    python = folder / "bin" / "python"
    ready = folder / "READY"

    def make(_folder: Path) -> None:
        build.say("installing the tools that source archives are built with")
        build.step([sys.executable, "-m", "venv", str(folder)])
        _install(str(python), list(locked.by_name), locked, build)
        ready.touch()

    build_once(folder, lambda: python if ready.exists() else None, make, build.say, in_place=True)
    return str(python), {"PATH": os.pathsep.join([str(python.parent), os.environ.get("PATH", os.defpath)])}


def fetch(names: Sequence[str], locked: Pins, folder: Path, build: Build) -> None:
    """Put the files of these pinned packages into a folder, checked, as `install` would take them: builds first."""
    pinned = locked.by_name
    argv = [sys.executable, "-m", "pip", "download", *_CHECKED, "--only-binary", ":all:", "-d", str(folder)]
    with scratch.folder() as listed:

        def take(lines: Sequence[str]) -> None:
            _step(argv, lines, listed, locked, build)

        builds = {name for name in names if _take_build(pinned[name], build, take)}
        if rest := [pinned[name].line(pinned[name].version) for name in names if name not in builds | locked.sources]:
            take(rest)
    for name in sorted(locked.sources.intersection(names)):
        download(f"{name}=={pinned[name].version}", locked, folder, build)


def download(package: str, locked: Pins, folder: Path, build: Build) -> None:
    """Fetch the source archive of a pinned package into a folder, checked."""
    (name,) = pinned_names([package], locked, build)
    pin = locked.by_name[name]
    tools, variables = builder(build)
    options = [*_CHECKED, "--no-build-isolation", "--no-binary", name, "-d", str(folder)]
    with scratch.folder() as listed:
        _step([tools, "-m", "pip", "download", *options], [pin.line(pin.version)], listed, locked, build, variables)


def _install(python: str, names: Sequence[str], locked: Pins, build: Build) -> None:
    """Install these packages and no others: a build of a pin where pip is offered one, sources built here."""
    folder, pinned = Path(python).parents[1], locked.by_name

    def take(lines: Sequence[str]) -> None:
        _install_wheels(python, lines, locked, build)

    builds = {name for name in names if _take_build(pinned[name], build, take)}
    rest = [pinned[name].line(pinned[name].version) for name in names if name not in builds | locked.sources]
    if rest:
        take(rest)
    if sources := [pinned[name].line(pinned[name].version) for name in names if name in locked.sources]:
        out = folder / "wheels"
        tools, variables = builder(build)
        wheel = [tools, "-m", "pip", "wheel", *_CHECKED, "--no-build-isolation", "--check-build-dependencies"]
        _step([*wheel, "-w", str(out)], sources, folder, locked, build, variables)
        built = [str(file) for file in sorted(out.glob("*.whl"))]
        build.step([python, "-m", "pip", "install", *PIP_OPTIONS, "--no-deps", "--no-index", *built])
        shutil.rmtree(out)


def _install_wheels(python: str, lines: Sequence[str], locked: Pins, build: Build) -> None:
    """By uv where it is at hand and can, else by pip, which says why where it cannot either."""
    folder = Path(python).parents[1]
    if not installer.install(python, _listed(lines, folder), build):
        _step([python, "-m", "pip", "install", *_CHECKED, "--only-binary", ":all:"], lines, folder, locked, build)


def _take_build(pin: Pin, build: Build, take: Callable[[Sequence[str]], object]) -> bool:
    """Take the first build of the pin that is offered; False where none is.

    Asked for the bare version, pip takes a file whose hash the index tells before one in a folder (--find-links).
    """
    for version in pin.builds:
        try:
            take([pin.line(version)])
        except StepError as error:
            if any(f"No matching distribution found for {pin.name}=={version}" in line for line in error.lines):
                build.say(f"no index offers {pin.name} {version}: taking {pin.version}")
                continue
            raise
        return True
    return False


def _step(
    pip: Sequence[str],
    lines: Sequence[str],
    folder: Path,
    locked: Pins,
    build: Build,
    variables: Mapping[str, str] | None = None,
) -> None:
    """Run pip on these requirements, written to a file in the folder."""
    try:
        build.fetch([*pip, "-r", str(_listed(lines, folder))], variables)
    except StepError as error:
        if refused := _other_bytes(error.lines, locked, build):
            raise UserError(refused) from None
        raise


def _listed(lines: Sequence[str], folder: Path) -> Path:
    file = folder / "requirements.txt"
    file.write_text("\n".join([*sorted(lines), ""]))
    return file


def _other_bytes(lines: Sequence[str], locked: Pins, build: Build) -> str:
    """What pip says of a file whose hash is not listed, in one sentence; "" where that is not why it stopped."""
    expected: list[str] = []
    package = place = ""
    for line in lines:
        if match := _FROM.match(line):
            expected, package, place = [], match[1], match[2]
        elif match := _EXPECTED.match(line):
            expected.append(match[1])
        elif (match := _GOT.match(line)) and package and expected:
            name = BUILD_TOOLS if locked.file == build_tools() else build.name
            others = f" or {len(expected) - 1} more that {locked.file.name} lists" if expected[1:] else ""
            return (
                f"environment '{build.name}': the file of {package} at {place} is not one that was pinned: its sha256 "
                f"is {match[1]}, expected {expected[0]}{others}. Remove or mend the index or folder that offers it "
                f"(pip config list); only if you trust that file, add it with python -m bench envs lock {name} "
                f"--add {package.partition('==')[0]}"
            )
    return ""


def pinned_names(requirements: Iterable[str], locked: Pins, build: Build) -> list[str]:
    """The names of packages that the environment's file asks for, each of them pinned; UserError where one is not."""
    return [_pinned(Requirement(text), "the environment's file", locked, build) for text in requirements]


def missing(installed: Mapping[str, Package], roots: Sequence[Requirement], locked: Pins, build: Build) -> list[str]:
    """What the roots, and the packages that are there for them, ask for and that is not there in a fit version."""
    names: set[str] = set()
    visited: set[tuple[Requirement, str]] = set()
    todo = [(root, "the environment's file") for root in roots if _applies(root, ())]
    while todo:
        wanted, asker = todo.pop()
        if (wanted, asker) in visited:
            continue
        visited.add((wanted, asker))
        there = installed.get(canonicalize_name(wanted.name))
        if there is None or not wanted.specifier.contains(there.version, prereleases=True):
            names.add(_pinned(wanted, asker, locked, build))
            continue
        children = map(Requirement, there.requires)
        todo += [(child, f"{there.name} {there.version}") for child in children if _applies(child, wanted.extras)]
    return sorted(names)


def _installed(folder: Path) -> dict[str, Package]:
    where = {"base": str(folder), "platbase": str(folder)}
    places = {sysconfig.get_path(kind, "venv", vars=where) for kind in ("purelib", "platlib")}
    every = metadata.distributions(path=sorted(places))
    return {canonicalize_name(it.name): Package(it.name, it.version, tuple(it.requires or ())) for it in every}


def _applies(wanted: Requirement, extras: Iterable[str]) -> bool:
    """Whether this is asked for here, with these extras of the package that asks."""
    return wanted.marker is None or any(wanted.marker.evaluate({"extra": extra}) for extra in ("", *extras))


def _pinned(wanted: Requirement, asker: str, locked: Pins, build: Build) -> str:
    """The name of the package, whose pin is what is wanted; UserError where the file of hashes has no such pin."""
    name = canonicalize_name(wanted.name)
    pin = locked.by_name.get(name)
    if pin is not None and wanted.url is None and wanted.specifier.contains(pin.version, prereleases=True):
        return name
    there = f"has {pin.version} of" if pin else "does not list"
    raise UserError(
        f"environment '{build.name}': {asker} asks for {wanted}, which {locked.file} {there}: nothing is installed "
        f"unchecked; make that file again (python -m bench envs lock {build.name}) or name an interpreter of your own "
        f"with {python_variable(build.name)}"
    )
