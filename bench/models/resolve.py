"""What a model reference points to: files on this machine, and an identity that goes into every digest."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

from bench import paths
from bench.contract import wire
from bench.contract.errors import UserError
from bench.contract.record import Source
from bench.contract.spec import Model
from bench.formats import audit, gguf_reader
from bench.formats import folder as model_folder
from bench.models import download as downloads
from bench.models import dummy as shapes
from bench.models.download import Report

_WANTED = ["*.safetensors", "*.json", "*.model", "*.txt", "*.jinja", "*.gguf", "openvino_model.*"]
_LOCAL_ONLY = ["*.onnx*"]  # many repositories have an export beside the weights that are wanted


@dataclass(frozen=True)
class Resolved:
    """`folder` may be a .gguf file; it is None for a Hub model or a shape that is not on this machine yet.

    `identity`: content hash, or Hub id at a commit, or a shape's name with its hash. `dummy`: its weights
    mean nothing. `planned`: what is known without the folder.
    """

    folder: Path | None
    identity: str
    format: str
    dummy: bool = False
    planned: Source | None = None

    @property
    def local_folder(self) -> Path:
        """`folder`; UserError where the model is not on this machine."""
        if self.folder is None:
            raise UserError(f"the model {self.identity} is not on this machine; run without --dry-run to fetch it")
        return self.folder

    @property
    def source(self) -> Source:
        """What a plan may know of the model; its format alone where it is not here yet."""
        return audit.source(self.folder) if self.folder else self.planned or Source(self.format, {}, {})


def resolve(model: Model, *, fetch: bool, report: Report = lambda _: None) -> Resolved:
    """Find the model here; with `fetch`, download a Hub model that is not, and draw a shape that is not.

    Files are checked for being whole. `report` hears of a download.
    """
    if model.source.startswith(shapes.PREFIX):
        place = shapes.build(model.source) if fetch else shapes.find(model.source)
        planned = shapes.planned(model.source)
        return Resolved(place, shapes.identity(model.source), "hf", dummy=True, planned=planned)
    folder = paths.shipped(Path(model.source).expanduser())
    if folder.is_dir() or folder.is_file():
        return _local(folder)
    if folder.suffix == ".gguf":
        raise UserError(f"model file {model.source} does not exist; name a .gguf file, a folder or a Hub id")
    if _is_path(model.source):
        raise UserError(f"model folder {model.source} does not exist; name a local folder or a Hub id (owner/name)")
    local = _snapshot(model, None)
    if local is None and fetch:
        local = _snapshot(model, report)
    if local is None:
        return Resolved(None, f"hub:{model.source}@{model.revision or 'main'}", "hf")
    return _found(local, f"hub:{model.source}@{local.name}")


def _local(place: Path) -> Resolved:
    if place.is_file() and place.suffix != ".gguf":
        raise UserError(f"{place.name} is no model: name the folder it is in, or a .gguf file")
    whole = place.absolute() if place.is_file() else place.resolve()  # a link to a file may have another name
    found = _found(whole, "")
    return replace(found, identity=f"sha256:{content_hash(whole)}")


def _found(folder: Path, identity: str) -> Resolved:
    config = audit.source(folder).config  # refuses a folder with no config or broken files, in one sentence
    return Resolved(folder, identity, audit.detect_format(folder), dummy=bool(config.get(model_folder.DUMMY)))


def _is_path(source: str) -> bool:
    first = Path(source).expanduser()
    return source.startswith((".", "/", "~")) or source.count("/") > 1 or (first.parent.is_dir() and "/" in source)


def _snapshot(model: Model, fetch: Report | None) -> Path | None:
    """The folder that a Hub model has here; downloaded where `fetch` is there to hear of it."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    total = _refuse_collection(model) if fetch else 0
    try:
        if fetch:
            return downloads.snapshot(model.source, model.revision, _WANTED, total, fetch)
        found = snapshot_download(model.source, revision=model.revision, allow_patterns=_WANTED, local_files_only=True)
        return Path(found)
    except LocalEntryNotFoundError:
        if fetch:
            raise UserError(
                f"model '{model.source}' is no folder here and the Hugging Face Hub cannot be reached; "
                "check the name and the network, or name a local folder"
            ) from None
        return None
    except Exception as error:  # noqa: BLE001  (no such repository, gated, no such revision: each has its own class)
        last = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"model '{model.source}' cannot be had from the Hugging Face Hub: {last}") from None


def _refuse_collection(model: Model) -> int:
    """UserError, before a byte is fetched, for a repository of GGUF files of which each is a whole model.

    The bytes of what is to be fetched; 0 where the Hub does not tell.
    """
    from huggingface_hub import HfApi

    names: list[str] = []
    total = 0
    with contextlib.suppress(Exception):  # what is wrong with the Hub or the name, the download says best
        info = HfApi().model_info(model.source, revision=model.revision, files_metadata=True)
        found = info.siblings or []
        names = [file.rfilename for file in found]
        wanted = [file for file in found if any(fnmatchcase(file.rfilename, w) for w in _WANTED)]
        total = sum(file.size or 0 for file in wanted)
    several = gguf_reader.several_models([n for n in names if n.endswith(".gguf")])
    if several and not any(n.endswith(".safetensors") for n in names):
        raise UserError(f"'{model.source}' holds {several}: download one of them and name the file as the model")
    return total


def content_hash(folder: Path) -> str:
    """16 hex digits over the names and contents of the folder's model files (weights, configs, tokenizer).

    Of a .gguf file, or of the parts it was split into, the contents alone: it may be called anything.
    """
    seen = _Hashes()
    if folder.is_file():
        parts = [("", seen.of(f)) for f in gguf_reader.files(folder)]
    else:
        found = (f for pattern in (*_WANTED, *_LOCAL_ONLY) for f in folder.glob(pattern))
        parts = sorted((f.name, seen.of(f)) for f in found if f.is_file() and not f.name.startswith("."))
    seen.save()
    return wire.digest(parts)


class _Hashes:
    """File hashes by path, size and time of change, so that a large model is read once."""

    def __init__(self) -> None:
        self._file = paths.cache() / "hashes.json"
        try:
            self._known: dict[str, str] = json.loads(self._file.read_text())
        except (OSError, ValueError):
            self._known = {}
        self._new = False

    def of(self, file: Path) -> str:
        stat = file.stat()
        key = f"{file}|{stat.st_size}|{stat.st_mtime_ns}|{stat.st_ino}"
        if key not in self._known:
            with file.open("rb") as opened:
                self._known[key] = hashlib.file_digest(opened, "sha256").hexdigest()
            self._new = True
        return self._known[key]

    def save(self) -> None:
        if self._new and os.access(paths.cache_folder(), os.W_OK):
            wire.write(self._file, json.dumps(self._known))


def public(source: str) -> str:
    """A model source as a record may show it: a path outside the working directory loses its folders."""
    return Path(source).name if source.startswith((".", "/", "~")) else source
