"""Folders of the cache that are built once: under a lock, in a temporary folder that is renamed when complete."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout

from bench import paths
from bench.contract import wire
from bench.contract.errors import UserError
from bench.contract.job import Report

T = TypeVar("T")
_POLL_S, _WAIT_LIMIT_S = 0.5, 2 * 3600.0


def build_once(
    folder: Path,
    find: Callable[[], T | None],
    build: Callable[[Path], object],
    report: Report = lambda _: None,
    *,
    in_place: bool = False,
    wait_limit_s: float = _WAIT_LIMIT_S,
) -> T:
    """The result of `find`, after `build` has filled the folder if `find` returned None.

    Processes that want the same folder wait for each other, and `report` it again and again, so that it can raise;
    the kernel frees the lock of one that died. UserError where another takes longer than `wait_limit_s`.
    `build` is given an empty folder `<folder>.part`, renamed in the end, or, `in_place`, the folder itself
    (a venv's scripts hold its path): `find` must then not take a half-built one for whole. What `build`
    raises passes through, and what it had built is removed.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _locked(folder, report, wait_limit_s):
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


@contextmanager
def _locked(folder: Path, report: Report, limit_s: float) -> Iterator[None]:
    lock, began = FileLock(folder.with_name(f"{folder.name}.lock")), time.monotonic()
    while True:
        with suppress(Timeout):
            lock.acquire(timeout=_POLL_S)
            break
        if time.monotonic() - began > limit_s:
            raise UserError(
                f"another run has been building {folder} for {limit_s / 60:.0f} min: wait for its end, or end it"
            )
        report(f"waiting for another run that builds {folder.name}, {limit_s / 60:.0f} min at most")
    try:
        yield
    finally:
        lock.release()


def find(kind: str, digest: str, about: str) -> Path | None:
    """The folder of this digest if it is whole: `about` in it has the digest and the size of every other file."""
    folder = paths.cache() / kind / digest
    try:
        description = json.loads((folder / about).read_text(encoding="utf-8"))
        whole = description["digest"] == digest and description["files"] == _sizes(folder, about)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return folder if whole else None


def ensure(
    kind: str, digest: str, about: str, fill: Callable[[Path], Mapping[str, Any]], report: Report = lambda _: None
) -> Path:
    """The folder of this digest, filled now if it is not there whole; what `fill` returns goes into `about`."""

    def build(part: Path) -> None:
        facts = {**fill(part), "digest": digest, "files": _sizes(part, about)}
        wire.write(part / about, wire.dumps(facts, indent=1))

    return build_once(paths.cache() / kind / digest, lambda: find(kind, digest, about), build, report)


def _sizes(folder: Path, about: str) -> dict[str, int]:
    """Bytes of each file but the description."""
    return {f.name: f.stat().st_size for f in sorted(folder.iterdir()) if f.name != about}
