"""What environments take on disk, and which of them are left over."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench import paths
from bench.contract.errors import UserError
from bench.envs import checked, environment, installer

_BLOCK_BYTES = 512  # of st_blocks (POSIX)


@dataclass(frozen=True)
class Leftover:
    """A folder that no suite needs, with the reason; `frees_bytes` leaves out what others link to."""

    folder: Path
    reason: str
    frees_bytes: int


def size_bytes(*folders: Path) -> int:
    """Bytes on disk of these folders together; a file that several of them link to counts once."""
    blocks = {(entry.st_dev, entry.st_ino): entry.st_blocks for entry in _entries(folders)}
    return _BLOCK_BYTES * sum(blocks.values())


def freed_bytes(*folders: Path) -> int:
    """Bytes that removing these folders together frees: a file that others link to stays."""
    links: dict[tuple[int, int], int] = {}
    blocks: dict[tuple[int, int], int] = {}
    for entry in _entries(folders):
        key = (entry.st_dev, entry.st_ino)
        links[key] = links.get(key, entry.st_nlink) - 1
        blocks[key] = entry.st_blocks
    return _BLOCK_BYTES * sum(count for key, count in blocks.items() if links[key] <= 0)


def shown(size: int) -> str:
    """A size in bytes as a person reads it."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"


def leftovers(needed: Iterable[str]) -> list[Leftover]:
    """Builds of environments that are not among the needed, or of pins, Pythons or sources that are not today's.

    Of a needed environment the builds for machines with and without a GPU stay, as two machines may share a cache;
    so does one that the user brought along (LLM_BENCH_PLUGINS).
    """
    known = environment.names()
    own = {name for name in known if not (paths.CONFIGS / "envs" / f"{name}.yaml").exists()}
    names, keep = {*needed, *own}, {checked.builder_folder()}
    for name in names:
        for kind in ("cpu", "cuda"):
            spec = environment.variant(name, kind)
            keep |= {spec.folder, *([spec.source.folder] if spec.source else [])}
    result = []
    for folder in _builds():
        if folder in keep:
            continue
        result.append(Leftover(folder, _reason(folder, known, names), freed_bytes(folder)))
    return result


def _reason(folder: Path, known: Container[str], needed: Container[str]) -> str:
    name = folder.name.rpartition("-")[0]
    if folder.parent.name == "envs" and name not in known:
        return "no environment of this name is known here"
    if folder.parent.name == "envs" and name not in needed:
        return "no suite needs it"
    return "of another version, Python or machine"


def in_use(folder: Path) -> bool:
    """Whether a process of this machine runs from the folder."""
    prefix = f"{folder}{os.sep}"
    for process in psutil.process_iter(["cmdline"]):
        if any(word.startswith(prefix) for word in process.info["cmdline"] or ()):
            return True
    return False


def remove(leftover: Leftover) -> None:
    """Delete the folder with its log and lock; UserError where a process runs from it."""
    folder = leftover.folder
    if in_use(folder):
        raise UserError(f"{folder.name} is in use by a process: end it, then run the command again")
    (folder / "READY.json").unlink(missing_ok=True)
    shutil.rmtree(folder)
    for suffix in (".log", ".lock"):
        folder.with_name(f"{folder.name}{suffix}").unlink(missing_ok=True)


def clear_downloads() -> int:
    """Empty the folder of downloads that environments are linked from; returns the bytes that this frees."""
    folder = installer.download_cache()
    if not folder.is_dir() or not (uv := installer.command()):
        return 0
    before = freed_bytes(folder)
    subprocess.run([*uv, "cache", "clean", "--cache-dir", str(folder)], check=False, capture_output=True)
    return before - freed_bytes(folder)


def _builds() -> list[Path]:
    folders = (paths.cache() / "envs", paths.cache() / "built")
    return sorted(build for folder in folders if folder.is_dir() for build in folder.iterdir() if build.is_dir())


def _entries(folders: Iterable[Path]) -> Iterator[os.stat_result]:
    """Every file and folder below; a link is not followed, and what vanishes meanwhile is left out."""
    stack = [str(folder) for folder in folders]
    while stack:
        with contextlib.suppress(OSError), os.scandir(stack.pop()) as entries:
            for entry in entries:
                yield entry.stat(follow_symlinks=False)
                if entry.is_dir(follow_symlinks=False):
                    stack.append(entry.path)
