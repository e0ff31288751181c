"""The environments of workers: built once with uv or pip, or the interpreters that LLM_BENCH_PYTHON_<NAME> name."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from bench import paths, yaml
from bench.contract import plugins, wire
from bench.contract.errors import UserError
from bench.contract.job import Report
from bench.contract.record import Hardware
from bench.envs import checked, installer, pins, source_build
from bench.envs.build_log import Build, python_variable
from bench.envs.pins import Pins
from bench.envs.source_build import SourceSpec
from bench.machine import nvml
from bench.process.cache import build_once

_PROBE = """
import importlib.metadata as m, json, platform, sys
def version(name):
    try: return m.version(name)
    except m.PackageNotFoundError: return "not installed"
print(json.dumps({"python": platform.python_version(), **{n: version(n) for n in sys.argv[1:]}}))
"""


@dataclass(frozen=True)
class EnvSpec:
    """configs/envs/<name>.yaml with its pins, as it is on this machine.

    `source` is a package that is compiled here. `no_deps`: packages installed after the others, without what they ask
    for. `digest` names the build by requirements, pins, Python, platform, and what was compiled. `least_capability`: of
    a GPU whose kernels it has, "" where that is not known. `varies`: other packages are installed where there is a GPU.
    `hashes`: the file of hashes for the pins; where there is none, pip installs what the index serves.
    """

    name: str
    requirements: tuple[str, ...]
    variables: Mapping[str, str]
    records: tuple[str, ...]
    pins: str
    source: SourceSpec | None = None
    no_deps: tuple[str, ...] = ()
    least_capability: str = ""
    varies: bool = False
    hashes: Path = Path()
    __pydantic_config__ = {"coerce_numbers_to_str": True}  # noqa: RUF012  (pydantic's attribute)

    @property
    def digest(self) -> str:
        target = (platform.python_version(), platform.system(), platform.machine())
        compiled = (self.source.target,) if self.source else ()
        alone = (self.no_deps,) if self.no_deps else ()
        text = wire.dumps([self.name, self.requirements, self.pins, target, *compiled, *alone])
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def folder(self) -> Path:
        return paths.cache() / "envs" / f"{self.name}-{self.digest}"


@dataclass(frozen=True)
class Environment:
    """A ready interpreter: `identity` goes into digests, `versions` into records, `variables` to workers."""

    name: str
    python: str
    identity: str
    versions: Mapping[str, str] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)


def names() -> tuple[str, ...]:
    return tuple(sorted({f.stem for folder in _folders() for f in folder.glob("*.yaml")}))


@cache
def spec(name: str) -> EnvSpec:
    return variant(name, "cuda" if nvml.gpus() else "cpu")


def variant(name: str, kind: str) -> EnvSpec:
    """The environment as it is on a machine with a GPU (`cuda`) or without (`cpu`)."""
    file = next((f for folder in _folders() if (f := folder / f"{name}.yaml").exists()), None)
    if file is None:
        raise UserError(f"unknown environment '{name}' (known: {', '.join(names())})")
    data: dict[str, Any] = yaml.load_file(file)
    variants = data.get("variants", {})
    data |= variants.get(kind, {})
    constraints = file.with_name(data.get("pins", f"{name}.txt"))
    text = constraints.read_text() if constraints.exists() else ""
    data |= {"name": name, "pins": text, "varies": "cuda" in variants}
    data |= {"hashes": constraints.parent / "hashes" / constraints.name}
    try:
        return TypeAdapter(EnvSpec).validate_python(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise UserError(f"{file}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def _folders() -> list[Path]:
    return [paths.CONFIGS / "envs", *plugins.user_folders("envs")]


def too_old(name: str, hardware: Hardware) -> str:
    """Why the environment's packages have no kernels for this GPU, or nothing.

    The user's own interpreter may have them, and a GPU of unknown capability may run them.
    """
    least = "" if _user_python(name) else spec(name).least_capability
    for gpu in hardware.gpus if least else ():
        if 0.0 < float(gpu.compute_capability) < float(least):
            return (
                f"environment {name} needs a GPU of compute capability {least} or newer, and {gpu.name} has "
                f"{gpu.compute_capability}: name a build for it with {python_variable(name)}"
            )
    return ""


def without_gpu(name: str, hardware: Hardware) -> str:
    """Why the environment, compiled on this machine, could not use its GPU, or nothing."""
    source = None if _user_python(name) else spec(name).source
    if not hardware.gpus or source is None or not source.cuda or source_build.compiles_cuda():
        return ""
    return (
        f"environment {name} is compiled here, and for a GPU that takes nvcc: install NVIDIA's CUDA toolkit, "
        f"or name a build for GPUs with {python_variable(name)}"
    )


def identity(name: str) -> str:
    """The part of a digest that pins an engine's versions, known without building the environment."""
    interpreter = _user_python(name)
    if interpreter is None and name != "core":
        return spec(name).digest
    versions = _versions(interpreter or sys.executable, spec(name).records)
    return wire.digest([name, versions])[:12]


def lacks(name: str, packages: tuple[str, ...]) -> tuple[str, ...]:
    """Those of the packages that the environment has not, or will not have; known without building it."""
    if interpreter := _user_python(name):
        versions = _versions(interpreter, packages)
        return tuple(package for package in packages if versions[package] == "not installed")
    env_spec = spec(name)
    lines = (*env_spec.requirements, *env_spec.no_deps, *env_spec.pins.splitlines())
    named = {re.split(r"[^A-Za-z0-9_.-]", line, maxsplit=1)[0].lower() for line in lines}
    return tuple(package for package in packages if package not in named)


def find(name: str) -> Environment | None:
    """The environment if it is ready now; None when it has to be built."""
    env_spec = spec(name)
    interpreter = sys.executable if name == "core" else _user_python(name)
    if interpreter is not None:
        versions = _versions(interpreter, env_spec.records)
        return Environment(name, interpreter, identity(name), versions, env_spec.variables)
    ready = env_spec.folder / "READY.json"
    if not ready.exists():
        return None
    versions = json.loads(ready.read_text())["versions"]
    return Environment(name, str(env_spec.folder / "bin" / "python"), env_spec.digest, versions, env_spec.variables)


def ensure(name: str, report: Report) -> Environment:
    """The environment, built if it has to be, with a line of progress for each thing pip does."""
    if (ready := find(name)) is not None:
        return ready
    env_spec = spec(name)
    return build_once(
        env_spec.folder, lambda: find(name), lambda folder: _build(env_spec, folder, report), report, in_place=True
    )


def tools(name: str, report: Report) -> Path:
    """The folder of the command-line tools that an environment's source comes with, built on request.

    They lie beside the environment's interpreter too, where its engine looks for them.
    """
    env_spec = spec(name)
    if env_spec.source is None or not env_spec.source.tools:
        raise UserError(f"environment '{name}' has no tools to build")
    build = Build(name, _log(env_spec.folder), report)
    built = source_build.tools(env_spec.source, _locked(env_spec, build), build)
    if (env_spec.folder / "READY.json").exists():
        for tool in env_spec.source.tools:
            if not (link := env_spec.folder / "bin" / tool).exists():
                link.symlink_to(built / tool)
    return built


def has_tools(name: str) -> bool:
    """Whether there are tools to build for the environment as the suite builds it."""
    source = spec(name).source
    return _user_python(name) is None and source is not None and bool(source.tools)


def remove(name: str) -> list[Path]:
    """Delete every build of this environment, older pins included; returns what was removed."""
    spec(name)
    builds = [f for f in (paths.cache() / "envs").glob(f"{name}-*") if f.is_dir()]
    for folder in builds:
        (folder / "READY.json").unlink(missing_ok=True)
        shutil.rmtree(folder)
        _log(folder).unlink(missing_ok=True)
        folder.with_suffix(".lock").unlink(missing_ok=True)
    return builds


def _user_python(name: str) -> str | None:
    chosen = os.environ.get(python_variable(name))
    if chosen and not os.access(chosen, os.X_OK):
        raise UserError(f"{python_variable(name)}: '{chosen}' is not an executable file; name a Python interpreter")
    return chosen or None


@cache
def _versions(python: str, packages: tuple[str, ...]) -> dict[str, str]:
    try:
        done = subprocess.run([python, "-c", _PROBE, *packages], capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise UserError(f"{python} does not run as a Python interpreter: {error}") from None
    versions: dict[str, str] = json.loads(done.stdout)
    return versions


def _build(env_spec: EnvSpec, folder: Path, report: Report) -> None:
    """Create a venv in its final folder (its scripts hold its path) and mark it ready last."""
    began = time.monotonic()
    build = Build(env_spec.name, _log(folder), report)
    build.log.unlink(missing_ok=True)
    locked = _locked(env_spec, build)
    compiled = source_build.wheel(env_spec.source, locked, build) if env_spec.source else None
    python = str(folder / "bin" / "python")
    build.say(f"creating {folder}")
    build.step([sys.executable, "-m", "venv", str(folder)])
    requirements, alone = env_spec.requirements, env_spec.no_deps
    if locked is not None:
        checked.install(python, requirements, alone, compiled, locked, build)
        installer.compile_all(python, folder, build)
    else:
        build.say("no file of hashes covers it: pip installs what the index serves under these names")
        constraints = folder / "constraints.txt"
        constraints.write_text(env_spec.pins)
        install = [python, "-m", "pip", "install", *checked.PIP_OPTIONS, "-c", str(constraints)]
        build.step([*install, *requirements, *([str(compiled)] if compiled else [])])
        if alone:
            build.step([*install, "--no-deps", *alone])
    if env_spec.source:
        source_build.copy_kept(env_spec.source, folder)
    versions = _versions(python, env_spec.records)
    wire.write(folder / "READY.json", wire.dumps({"versions": versions, "built_s": time.monotonic() - began}))
    build.say(f"ready in {time.monotonic() - began:.0f} s")


def _locked(env_spec: EnvSpec, build: Build) -> Pins | None:
    """The file of hashes that covers the environment, read and compared with its pins; None where there is none."""
    if not env_spec.hashes.is_file():
        return None
    locked = pins.read(env_spec.hashes)
    checked.check(env_spec.pins, locked, build)
    return locked


def _log(folder: Path) -> Path:
    return folder.with_suffix(".log")
