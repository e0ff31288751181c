"""The environments workers run in: pinned and built once with pip, or interpreters that exist already.

`LLM_BENCH_PYTHON_<NAME>` names such an interpreter (a vendor container, a cluster image). A build that was
interrupted left no READY.json and is therefore no environment: it is removed and built again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock

from bench.contract import wire
from bench.contract.errors import UserError
from bench.run import paths

Report = Callable[[str], None]

# Runs a command that dies with this process (Linux): a build must not go on beside the next one's.
_MORTAL = """
import ctypes, os, sys
if sys.platform == "linux": ctypes.CDLL(None).prctl(1, 9)
os.execv(sys.argv[1], sys.argv[1:])
"""
_PROBE = """
import importlib.metadata as m, json, platform, sys
def version(name):
    try: return m.version(name)
    except m.PackageNotFoundError: return "not installed"
print(json.dumps({"python": platform.python_version(), **{n: version(n) for n in sys.argv[1:]}}))
"""


@dataclass(frozen=True)
class EnvSpec:
    """configs/envs/<name>.yaml with its pins.

    `digest` names the build by requirements, pins, Python, platform.
    """

    name: str
    requirements: tuple[str, ...]
    variables: Mapping[str, str]
    records: tuple[str, ...]
    pins: str

    @property
    def digest(self) -> str:
        target = (platform.python_version(), platform.system(), platform.machine())
        text = wire.dumps([self.name, self.requirements, self.pins, target])
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def folder(self) -> Path:
        return paths.cache() / "envs" / f"{self.name}-{self.digest}"


@dataclass(frozen=True)
class Environment:
    """An interpreter that is ready.

    `identity` goes into digests, `versions` into records, `variables` to workers.
    """

    name: str
    python: str
    identity: str
    versions: Mapping[str, str] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)


def names() -> tuple[str, ...]:
    return tuple(sorted(f.stem for f in (paths.CONFIGS / "envs").glob("*.yaml")))


@cache
def spec(name: str) -> EnvSpec:
    file = paths.CONFIGS / "envs" / f"{name}.yaml"
    if not file.exists():
        raise UserError(f"unknown environment '{name}' (known: {', '.join(names())})")
    data: dict[str, Any] = yaml.safe_load(file.read_text())
    pins = file.with_suffix(".txt")
    return EnvSpec(
        name=name,
        requirements=tuple(data["requirements"]),
        variables={k: str(v) for k, v in data["variables"].items()},
        records=tuple(data["records"]),
        pins=pins.read_text() if pins.exists() else "",
    )


def identity(name: str) -> str:
    """What the environment will be, without building it.

    The part of a digest that pins an engine's versions.
    """
    outside = _outside(name)
    if outside is None and name != "core":
        return spec(name).digest
    versions = _versions(outside or sys.executable, spec(name).records)
    return wire.digest([name, versions])[:12]


def find(name: str) -> Environment | None:
    """The environment if it is ready now; None when it has to be built."""
    what = spec(name)
    outside = sys.executable if name == "core" else _outside(name)
    if outside is not None:
        versions = _versions(outside, what.records)
        return Environment(name, outside, identity(name), versions, what.variables)
    ready = what.folder / "READY.json"
    if not ready.exists():
        return None
    versions = json.loads(ready.read_text())["versions"]
    return Environment(name, str(what.folder / "bin" / "python"), what.digest, versions, what.variables)


def ensure(name: str, report: Report) -> Environment:
    """The environment, built if it has to be, with a line of progress for each thing pip does."""
    if (ready := find(name)) is not None:
        return ready
    what = spec(name)
    folder = what.folder
    paths.cache_folder("envs")
    with FileLock(folder.with_suffix(".lock")):
        if (ready := find(name)) is None:
            _build(what, folder, report)
            ready = find(name)
    if ready is None:
        raise UserError(f"environment '{name}' was built but is not usable; see {folder.with_suffix('.log')}")
    return ready


def remove(name: str) -> list[Path]:
    """Delete every build of this environment, older pins included; returns what was removed."""
    spec(name)
    gone = [f for f in (paths.cache() / "envs").glob(f"{name}-*") if f.is_dir()]
    for folder in gone:
        (folder / "READY.json").unlink(missing_ok=True)
        shutil.rmtree(folder)
        folder.with_suffix(".log").unlink(missing_ok=True)
        folder.with_suffix(".lock").unlink(missing_ok=True)
    return gone


def _outside(name: str) -> str | None:
    chosen = os.environ.get(f"LLM_BENCH_PYTHON_{name.upper().replace('-', '_')}")
    if chosen and not os.access(chosen, os.X_OK):
        raise UserError(f"LLM_BENCH_PYTHON_{name.upper()} is '{chosen}', which is no executable file")
    return chosen or None


@cache
def _versions(python: str, packages: tuple[str, ...]) -> dict[str, str]:
    try:
        done = subprocess.run(
            [python, "-c", _PROBE, *packages], capture_output=True, text=True, timeout=60, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise UserError(f"{python} does not run as a Python interpreter: {error}") from None
    versions: dict[str, str] = json.loads(done.stdout)
    return versions


def _build(what: EnvSpec, folder: Path, report: Report) -> None:
    """Create a venv in its final place (its scripts hold its path) and mark it ready last."""
    shutil.rmtree(folder, ignore_errors=True)
    began = time.monotonic()
    log = folder.with_suffix(".log")
    python = str(folder / "bin" / "python")
    report(f"environment {what.name}: creating {folder}")
    with log.open("w") as sink:
        _step([sys.executable, "-m", "venv", str(folder)], what.name, log, sink, report)
        constraints = folder / "constraints.txt"
        constraints.write_text(what.pins)
        install = [python, "-m", "pip", "install", "--no-input", "--progress-bar", "off",
                   "--disable-pip-version-check", "-c", str(constraints), *what.requirements]  # fmt: skip
        _step(install, what.name, log, sink, report)
    versions = _versions(python, what.records)
    wire.write(folder / "READY.json", wire.dumps({"versions": versions, "built_s": time.monotonic() - began}))
    report(f"environment {what.name}: ready in {time.monotonic() - began:.0f} s")


def _step(argv: list[str], name: str, log: Path, sink: Any, report: Report) -> None:
    """Run one command of a build, its output in the log and its milestones reported."""
    mortal = [sys.executable, "-c", _MORTAL, *argv]
    with subprocess.Popen(
        mortal, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as process:
        try:
            for line in process.stdout or ():
                sink.write(line)
                if words := _milestone(line.strip()):
                    report(f"environment {name}: {words}")
            code = process.wait()
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise
    if code:
        sink.flush()
        last = [text for text in log.read_text().splitlines() if text.strip()][-3:]
        raise UserError(
            f"environment '{name}' could not be built ({' | '.join(last)[-400:]}); the whole log is {log}"
        )


def _milestone(line: str) -> str:
    """The part of a line of pip's output that tells a person what is happening, or nothing."""
    for start in ("Collecting ", "Downloading ", "Building wheel for ", "Installing collected packages"):
        if line.startswith(start):
            return line.split(" (from ", 1)[0].split(":", 1)[0][:90]
    return ""
