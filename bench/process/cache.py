"""Folders in the cache that a worker fills once: built beside and renamed, found by their digest.

Each says in one JSON file what it is and how large its files are: one that was cut short is made again.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from bench import paths
from bench.contract import wire
from bench.process import supervisor


def find(place: str, digest: str, about: str) -> Path | None:
    """The folder of this digest under the cache's `place` if it is there and whole."""
    folder = _folder(place, digest)
    try:
        known = json.loads((folder / about).read_text(encoding="utf-8"))
        whole = known["digest"] == digest and known["files"] == _sizes(folder, about)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return folder if whole else None


def ensure(
    place: str,
    digest: str,
    about: str,
    make: Callable[[Path], supervisor.Outcome],
    describe: Callable[[supervisor.Outcome], Mapping[str, Any]],
) -> Path | str:
    """The folder, filled now by `make` if it is not there; or why it could not be."""
    folder = _folder(place, digest)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        if found := find(place, digest, about):
            return found
        shutil.rmtree(folder, ignore_errors=True)
        building = folder.with_suffix(".part")
        shutil.rmtree(building, ignore_errors=True)
        building.mkdir()
        try:
            outcome = make(building)
            if outcome.answer.error:
                return paths.scrubbed(outcome.answer.error)
            known = {**describe(outcome), "digest": digest, "files": _sizes(building, about)}
            wire.write(building / about, wire.dumps(known, indent=1))
            building.rename(folder)
        finally:
            shutil.rmtree(building, ignore_errors=True)
    return folder


def _sizes(folder: Path, about: str) -> dict[str, int]:
    """Bytes of each file the worker wrote."""
    return {f.name: f.stat().st_size for f in sorted(folder.iterdir()) if f.name != about}


def _folder(place: str, digest: str) -> Path:
    return paths.cache() / place / digest
