"""A package that is compiled here, from its own source distribution, for this very machine.

What comes of it is kept beside the environments, in a folder named after everything it depends on: the
wheel, the files of the source that are worth keeping, and, once asked for, its command-line tools. A second
environment takes the wheel as it is.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import sys
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from filelock import FileLock

from bench import paths
from bench.contract import wire
from bench.contract.errors import UserError
from bench.envs.build_log import Build
from bench.machine import nvml


@dataclass(frozen=True)
class SourceSpec:
    """`source:` of an environment's file.

    `package`: pinned requirement. `cmake`, `cuda`: arguments always, and where nvcc and a GPU are. `keeps`:
    paths in the source that are copied to share/<package> of the environment. `tools`: targets of the CMake
    project in `tools_folder`, built with `tools_cmake` on request.
    """

    package: str
    cmake: tuple[str, ...]
    cuda: tuple[str, ...]
    keeps: tuple[str, ...]
    tools: tuple[str, ...]
    tools_folder: str
    tools_cmake: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.package.partition("==")[0]

    @property
    def arguments(self) -> tuple[str, ...]:
        """CMake's arguments on this machine."""
        return (*self.cmake, *_cuda(self.cuda))

    @property
    def target(self) -> str:
        """A digest of all that the binary depends on: source, arguments, Python's platform, the CPU."""
        kind = (platform.system(), platform.machine(), _cpu_flags())
        return hashlib.sha256(wire.dumps([self.package, self.arguments, kind]).encode()).hexdigest()[:12]

    @property
    def folder(self) -> Path:
        return paths.cache() / "built" / f"{self.name}-{self.target}"


def parse(data: Mapping[str, Any]) -> SourceSpec:
    return SourceSpec(
        package=data["package"],
        cmake=tuple(data["cmake"]),
        cuda=tuple(data["cuda"]),
        keeps=tuple(data["keeps"]),
        tools=tuple(data["tools"]),
        tools_folder=data["tools_folder"],
        tools_cmake=tuple(data["tools_cmake"]),
    )


def wheel(what: SourceSpec, build: Build) -> Path:
    """The wheel for this machine, compiled if it is not in the cache; minutes the first time."""
    paths.cache_folder("built")
    with FileLock(what.folder.with_suffix(".lock")):
        if not (what.folder / "wheel").is_dir():
            _compiler(build.name)
            _compile(what, build)
    return next((what.folder / "wheel").glob("*.whl"))


def tools(what: SourceSpec, build: Build) -> Path:
    """The folder of the source's own command-line tools, compiled if they are not in the cache."""
    paths.cache_folder("built")
    with FileLock(what.folder.with_suffix(".lock")):
        if not (what.folder / "bin").is_dir():
            _compiler(build.name)
            if lost := [tool for tool in ("cmake", "ninja") if shutil.which(tool) is None]:
                raise UserError(f"the tools are built with {lost[0]}, which is not installed: install it")
            with _unpacked(what, build) as source:
                tree = source.parent / "tools"
                begin = [
                    "cmake",
                    "-G",
                    "Ninja",
                    "-S",
                    str(source / what.tools_folder),
                    "-B",
                    str(tree),
                    "-DCMAKE_BUILD_TYPE=Release",
                    *what.arguments,
                    *what.tools_cmake,
                ]
                build.step(begin)
                build.step(["cmake", "--build", str(tree), "--target", *what.tools])
                _settle(what, "bin", [tree / "bin" / tool for tool in what.tools])
    return what.folder / "bin"


def keep(what: SourceSpec, environment: Path) -> None:
    """Copy the kept files into share/<package> of an environment."""
    shutil.copytree(what.folder / "share", environment / "share" / what.name, dirs_exist_ok=True)


def _compile(what: SourceSpec, build: Build) -> None:
    with _unpacked(what, build) as source:
        made = source.parent / "wheel"
        argv = [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "--no-deps",
            "--verbose",
            "--no-input",
            "--disable-pip-version-check",
            "-w",
            str(made),
            str(source),
        ]
        build.step(argv, {"CMAKE_ARGS": " ".join(what.arguments)})
        _settle(what, "share", [source / path for path in what.keeps])
        _settle(what, "wheel", list(made.glob("*.whl")))


def _settle(what: SourceSpec, word: str, files: list[Path]) -> None:
    """Put what was made into its place, beside and renamed."""
    beside = what.folder / f".{word}.part"
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    for file in files:
        copy = shutil.copytree if file.is_dir() else shutil.copy2
        copy(file, beside / file.name)
    shutil.rmtree(what.folder / word, ignore_errors=True)
    beside.rename(what.folder / word)


@contextmanager
def _unpacked(what: SourceSpec, build: Build) -> Iterator[Path]:
    """The source distribution in a folder of its own, which is gone afterwards; under this build's lock."""
    place = what.folder.with_suffix(".part")
    shutil.rmtree(place, ignore_errors=True)  # of a build that was killed
    place.mkdir()
    try:
        build.say(f"fetching the source of {what.package}")
        argv = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--no-deps",
            "--no-binary",
            what.name,
            "--no-input",
            "--disable-pip-version-check",
            "--progress-bar",
            "off",
            "-d",
            str(place),
            what.package,
        ]
        build.step(argv)
        archive = next(place.glob("*.tar.gz"))
        with tarfile.open(archive) as packed:
            packed.extractall(place, filter="data")
        archive.unlink()
        yield next(path for path in place.iterdir() if path.is_dir())
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _cuda(arguments: tuple[str, ...]) -> tuple[str, ...]:
    """The CUDA arguments with this machine's architectures; none without nvcc or without a GPU."""
    found = {gpu.compute_capability.replace(".", "") for gpu in nvml.gpus()}
    found.discard("00")  # of a GPU that does not tell
    if not found or not compiles_cuda():
        return ()
    return (*arguments, f"-DCMAKE_CUDA_ARCHITECTURES={';'.join(sorted(found))}")


def compiles_cuda() -> bool:
    """Whether NVIDIA's compiler is on the path."""
    return shutil.which("nvcc") is not None


@cache
def _cpu_flags() -> str:
    """What the compiler may use of this CPU: a digest of the kernel's list of features."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return hashlib.sha256(" ".join(sorted(flags.split())).encode()).hexdigest()[:12]


def _compiler(name: str) -> None:
    chosen = os.environ.get("CXX", "")
    if not any(shutil.which(word) for word in (chosen, "c++", "g++", "clang++") if word):
        raise UserError(
            f"environment '{name}' is compiled on this machine, which has no C++ compiler: install one "
            f"(Debian: apt install g++) or name an interpreter with LLM_BENCH_PYTHON_{name.upper()}"
        )
