"""Folders of a node's cache that are named by a digest, and how another node gets them: in pieces, whole or not at all.

Pieces go through Ray's object store, a few at a time, so that neither side holds more of a file than these.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

from bench import paths
from bench.contract.errors import CellError
from bench.contract.job import Report
from bench.fleet import cluster
from bench.process import cache
from bench.run import artifacts

_PIECE_BYTES, _AHEAD = 8 * 2**20, 2
ARTIFACTS, REFERENCES, REQUESTS = "artifacts", "references", "requests"  # kinds, as the cache's folders are called
_ABOUT = {REFERENCES: "reference.json", REQUESTS: "facts.json"}


@dataclass(frozen=True)
class CacheFolder:
    """A folder of the cache by its kind (artifacts, references, requests) and digest."""

    kind: str
    digest: str


@dataclass(frozen=True)
class Piece:
    """Bytes of the file `name`, in order; the last piece of a file has its SHA-256."""

    name: str
    data: bytes
    sha256: str = ""


def find(folder: CacheFolder) -> Path | None:
    """Where the folder is on this node; None where it is not, or not whole."""
    if folder.kind == ARTIFACTS:
        built = artifacts.find(folder.digest)
        return built.folder.parent if built is not None else None
    return cache.find(folder.kind, folder.digest, _ABOUT[folder.kind])


def present(folders: Sequence[CacheFolder]) -> list[CacheFolder]:
    """Those of the folders that are on this node."""
    return [folder for folder in folders if find(folder) is not None]


def pieces(folder: CacheFolder) -> Iterator[Piece]:
    """The folder's files, which another node asks for; CellError where it is not here any more."""
    if (root := find(folder)) is None:
        raise CellError(f"{folder.kind}/{folder.digest} is not here any more")
    for file in sorted(f for f in root.rglob("*") if f.is_file()):
        name, hashed = str(file.relative_to(root)), hashlib.sha256()
        with file.open("rb") as opened:
            data = opened.read(_PIECE_BYTES)
            while following := opened.read(_PIECE_BYTES):
                hashed.update(data)
                yield Piece(name, data)
                data = following
        hashed.update(data)
        yield Piece(name, data, hashed.hexdigest())


def fetch(folder: CacheFolder, holders: Sequence[str], report: Report) -> bool:
    """Bring the folder here from the first of the nodes `holders` that gives it; whether it is here then."""
    if find(folder) is not None:
        return True
    library = cluster.ray()
    for node_id in holders:
        with contextlib.suppress(library.exceptions.RayError, CellError):
            target = paths.cache_folder(folder.kind) / folder.digest
            receive = partial(_receive, folder, node_id, report)
            cache.build_once(target, partial(find, folder), receive, report)
            return True
    return False


def _receive(folder: CacheFolder, node_id: str, report: Report, part: Path) -> None:
    library = cluster.ray()
    task = library.remote(num_cpus=0, max_retries=0)(pieces)
    stream = task.options(
        num_returns="streaming",
        _generator_backpressure_num_objects=_AHEAD,
        scheduling_strategy=cluster.on(library, node_id),
    ).remote(folder)
    received = 0
    with contextlib.ExitStack() as stack:
        file: IO[bytes] | None = None
        hashed = hashlib.sha256()
        for ref in stream:
            piece: Piece = library.get(ref)
            del ref
            if file is None:
                (part / piece.name).parent.mkdir(parents=True, exist_ok=True)
                file, hashed = stack.enter_context((part / piece.name).open("wb")), hashlib.sha256()
            file.write(piece.data)
            hashed.update(piece.data)
            received += len(piece.data)
            report(f"fetching {folder.kind}/{folder.digest}: {received / 2**20:.0f} MiB")
            if piece.sha256:
                file.close()
                file = None
                if piece.sha256 != hashed.hexdigest():
                    raise CellError(f"{piece.name} arrived damaged")
