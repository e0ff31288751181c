"""A package compiled here from its source distribution: the wheel, kept files and, on request, tools are cached."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from bench import paths
from bench.contract import wire
from bench.contract.errors import UserError
from bench.envs import checked
from bench.envs.build_log import Build, python_variable
from bench.envs.pins import Pins
from bench.machine import nvml
from bench.process import scratch
from bench.process.cache import build_once


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


def wheel(source: SourceSpec, locked: Pins | None, build: Build) -> Path:
    """The wheel for this machine, compiled if it is not in the cache; minutes the first time."""
    folder = source.folder / "wheel"
    find = lambda: next(folder.glob("*.whl"), None)  # noqa: E731
    return build_once(folder, find, lambda out: _compile(source, locked, build, out), build.say)


def tools(source: SourceSpec, locked: Pins | None, build: Build) -> Path:
    """The folder of the source's own command-line tools, compiled if they are not in the cache."""
    folder = source.folder / "bin"
    return build_once(
        folder,
        lambda: folder if folder.is_dir() else None,
        lambda out: _compile_tools(source, locked, build, out),
        build.say,
    )


def copy_kept(source: SourceSpec, environment: Path) -> None:
    """Copy the kept files into share/<package> of an environment."""
    shutil.copytree(source.folder / "share", environment / "share" / source.name, dirs_exist_ok=True)


def _compile(source: SourceSpec, locked: Pins | None, build: Build, out: Path) -> None:
    """Build the wheel into `out`, and copy the kept files into `share` beside it."""
    with _unpacked(source, locked, build) as tree:
        variables = {"CMAKE_ARGS": " ".join(source.arguments)}
        python, options = sys.executable, ["--no-deps", "--verbose"]
        if locked is not None:
            python, tool_variables = checked.builder(build)
            variables |= tool_variables
            options += ["--no-build-isolation", "--check-build-dependencies"]
        build.step([python, "-m", "pip", "wheel", *checked.PIP_OPTIONS, *options, "-w", str(out), str(tree)], variables)
        shutil.rmtree(share := source.folder / "share", ignore_errors=True)
        share.mkdir()
        for path in map(tree.joinpath, source.keeps):
            copy = shutil.copytree if path.is_dir() else shutil.copy2
            copy(path, share / path.name)


def _compile_tools(source: SourceSpec, locked: Pins | None, build: Build, out: Path) -> None:
    if missing := [tool for tool in ("cmake", "ninja") if shutil.which(tool) is None]:
        raise UserError(f"the tools are built with {missing[0]}, which is not installed: install it")
    with _unpacked(source, locked, build) as tree:
        folder = tree.parent / "tools"
        configure = ["cmake", "-G", "Ninja", "-S", str(tree / source.tools_folder), "-B", str(folder)]
        build.step([*configure, "-DCMAKE_BUILD_TYPE=Release", *source.arguments, *source.tools_cmake])
        build.step(["cmake", "--build", str(folder), "--target", *source.tools])
        for tool in source.tools:
            shutil.copy2(folder / "bin" / tool, out / tool)


@contextmanager
def _unpacked(source: SourceSpec, locked: Pins | None, build: Build) -> Iterator[Path]:
    """The source distribution in a temporary folder; UserError where nothing here could compile it."""
    if not any(shutil.which(name) for name in (os.environ.get("CXX", ""), "c++", "g++", "clang++") if name):
        raise UserError(
            f"environment '{build.name}' is compiled on this machine, which has no C++ compiler: install one "
            f"(Debian: apt install g++) or name an interpreter with {python_variable(build.name)}"
        )
    with scratch.folder() as folder:
        build.say(f"fetching the source of {source.package}")
        if locked is not None:
            checked.download(source.package, locked, folder, build)
        else:
            options = [*checked.PIP_OPTIONS, "--no-deps", "--no-binary", source.name]
            build.step([sys.executable, "-m", "pip", "download", *options, "-d", str(folder), source.package])
        archive = next(folder.glob("*.tar.gz"))
        with tarfile.open(archive) as packed:
            packed.extractall(folder, filter="data")
        yield next(path for path in folder.iterdir() if path.is_dir())


def _cuda(arguments: tuple[str, ...]) -> tuple[str, ...]:
    """The CUDA arguments with this machine's architectures; none without nvcc or without a GPU."""
    architectures = {gpu.compute_capability.replace(".", "") for gpu in nvml.gpus()}
    architectures.discard("00")  # of a GPU that does not tell
    if not architectures or not compiles_cuda():
        return ()
    return (*arguments, f"-DCMAKE_CUDA_ARCHITECTURES={';'.join(sorted(architectures))}")


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
