"""`bench bundle`: records, their machine and the pins of their environments in one file, with the hash of each part.

A bundle is a zip file. `results/` has the records as they lie in a results folder, `environments/` the files of
configs/envs that their engines and methods are installed from, and `manifest.json` the SHA-256 of every other file.
The same records give the same bytes.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bench import paths
from bench.contract import plugins, wire
from bench.contract.errors import UserError
from bench.contract.record import SCHEMA, Result
from bench.envs import environment
from bench.share.selection import selected
from bench.store import MAX_BYTES, Store, attachment_of, safe_name

FORMAT, VERSION, MANIFEST = "llm-bench bundle", 1, "manifest.json"
RESULTS, ENVIRONMENTS = "results", "environments"
ATTACHED = ("traces", "items")
OF_A_DEVICE = ("machine.json", "ceiling.json")


@dataclass(frozen=True)
class Manifest:
    """What a bundle holds: `files` are paths in it with their SHA-256, `id` is a hash of them.

    `environments`: name -> hash of what was installed, as this machine has it. `schema`: of the records.
    """

    format: Literal["llm-bench bundle"]
    version: Literal[1]
    id: str
    schema: int
    records: int
    devices: tuple[str, ...]
    suites: tuple[str, ...]
    environments: Mapping[str, str]
    files: Mapping[str, str]


def bundle_id(files: Mapping[str, str]) -> str:
    """The hash that names a bundle with these files, in 16 hexadecimal digits."""
    return wire.digest(dict(files))


def write(store: Store, file: Path, suites: Sequence[str] = (), device: str = "") -> Manifest:
    """Bundle records of the suites and devices that the globs name; UserError where there are none, or damaged ones.

    Imported records are left out unless `device` names them. A file that is there is replaced, once all is written.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.part")
    try:
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
            manifest = _fill(archive, store, suites, device)
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)
    return manifest


def _fill(archive: zipfile.ZipFile, store: Store, suites: Sequence[str], device: str) -> Manifest:
    files: dict[str, str] = {}
    results = selected(store, suites, device)
    for path in (path for result in results for path in _files_of(result, store)):
        _add(archive, files, f"{RESULTS}/{path.relative_to(store.root).as_posix()}", path)
    devices = tuple(dict.fromkeys(result.hardware.slug for result in results))
    for slug in devices:
        for name in OF_A_DEVICE:
            path = store.root / safe_name(slug) / name
            if wire.is_file(path):
                _add(archive, files, f"{RESULTS}/{safe_name(slug)}/{name}", path)
    environments = {name: environment.spec(name).digest for name in sorted(set(_environments(results)))}
    for path in _definitions(environments):
        _add(archive, files, f"{ENVIRONMENTS}/{path.relative_to(paths.CONFIGS / 'envs').as_posix()}", path)
    suite_names = tuple(dict.fromkeys(result.suite for result in results))
    of_files = (bundle_id(files), SCHEMA, len(results), devices, suite_names, environments, files)
    manifest = Manifest("llm-bench bundle", 1, *of_files)
    _put(archive, MANIFEST, (wire.dumps(manifest, indent=1) + "\n").encode())
    return manifest


def _files_of(result: Result, store: Store) -> Iterator[Path]:
    """A record's file and those beside it, which are read to see that they are whole."""
    path = store.path(result)
    if not wire.is_file(path):
        raise UserError(f"a record does not lie where it belongs, at {path}: move it there, or away")
    yield path
    for name, read in zip(ATTACHED, (store.traces, store.items), strict=True):
        if read(path):
            yield attachment_of(path, name)


def _environments(results: Sequence[Result]) -> Iterator[str]:
    """Those that engines ran in and that artifacts were made in, as far as this version has them."""
    known = frozenset(environment.names())
    for engine, format_ in {(r.cell.engine.name, r.artifact.format if r.artifact else "") for r in results}:
        with suppress(UserError):  # the compression itself has no engine, and a plugin may be gone
            yield plugins.engine_env(plugins.load(plugins.ENGINES, engine), format_)
    for result in results:
        if result.artifact is not None:
            yield from known.intersection(result.artifact.environments)


def _definitions(names: Mapping[str, str]) -> Iterator[Path]:
    """The files of this suite's own environments: definition, pins and hashes, with those for GPUs."""
    folder = paths.CONFIGS / "envs"
    for name in names:
        for pattern in (f"{name}.yaml", f"{name}.txt", f"{name}-*.txt"):
            yield from sorted(path for path in (*folder.glob(pattern), *(folder / "hashes").glob(pattern)))


def _add(archive: zipfile.ZipFile, files: dict[str, str], name: str, path: Path) -> None:
    data = wire.read_bytes(path, MAX_BYTES)
    files[name] = hashlib.sha256(data).hexdigest()
    _put(archive, name, data)


def _put(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    """At a fixed time, so that the same records give the same bytes."""
    archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED, 6)
