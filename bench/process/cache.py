"""Folders of the cache that are built once: under a lock, in a temporary folder that is renamed when complete."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock

from bench import paths
from bench.contract import wire
from bench.contract.errors import UserError

T = TypeVar("T")


def build_once(
    folder: Path, find: Callable[[], T | None], build: Callable[[Path], object], *, in_place: bool = False
) -> T:
    """The result of `find`, after `build` has filled the folder if `find` returned None.

    Processes that want the same folder wait for each other; the kernel frees the lock of one that died.
    `build` is given an empty folder `<folder>.part`, renamed in the end, or, `in_place`, the folder itself
    (a venv's scripts hold its path): `find` must then not take a half-built one for whole. What `build`
    raises passes through, and what it had built is removed.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f"{folder.name}.lock")):
        if (existing := find()) is not None:
            return existing
        target = folder if in_place else folder.with_name(f"{folder.name}.part")
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        try:
            build(target)
            target.rename(folder)
        except BaseException:
            shutil.rmtree(target, ignore_errors=True)
            raise
        if (built := find()) is None:
            raise UserError(f"{folder} was built but is not usable: delete it and run the command again")
        return built


def find(kind: str, digest: str, about: str) -> Path | None:
    """The folder of this digest if it is whole: `about` in it has the digest and the size of every other file."""
    folder = paths.cache() / kind / digest
    try:
        description = json.loads((folder / about).read_text(encoding="utf-8"))
        whole = description["digest"] == digest and description["files"] == _sizes(folder, about)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return folder if whole else None


def ensure(kind: str, digest: str, about: str, fill: Callable[[Path], Mapping[str, Any]]) -> Path:
    """The folder of this digest, filled now if it is not there whole; what `fill` returns goes into `about`."""

    def build(part: Path) -> None:
        facts = {**fill(part), "digest": digest, "files": _sizes(part, about)}
        wire.write(part / about, wire.dumps(facts, indent=1))

    return build_once(paths.cache() / kind / digest, lambda: find(kind, digest, about), build)


def _sizes(folder: Path, about: str) -> dict[str, int]:
    """Bytes of each file but the description."""
    return {f.name: f.stat().st_size for f in sorted(folder.iterdir()) if f.name != about}
