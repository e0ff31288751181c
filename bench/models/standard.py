"""Model files as people have them, in the form that today's libraries take: links in the cache, nothing copied.

A GPTQ or AWQ model whose settings are in a file of its own (quantize_config.json, quant_config.json) or lack their
method, weights under other names than transformers looks for, X.GGUF, and a vision projector beside a GGUF model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench import formats, paths
from bench.contract import wire
from bench.contract.errors import UserError
from bench.formats import folder as model_folder
from bench.formats import gguf_reader, packing
from bench.process.cache import build_once


def standard(path: Path) -> Path:
    """The file or folder itself where it has that form already; else a folder of links to its files, or a link.

    UserError for packed weights whose settings are nowhere.
    """
    if path.is_file():
        return _linked_file(path)
    if (path / model_folder.CONFIG).is_file() and any(path.glob("*.safetensors")):
        return _checkpoint(path)
    names = {file: file.name for suffix in formats.file_suffixes() for file in path.iterdir() if _ends(file, suffix)}
    if not names or any(path.glob("*.safetensors")):
        return path
    projectors = [file for file in names if gguf_reader.is_projector(file.name)]
    if projectors == list(names) or not (projectors or any(file.suffix.isupper() for file in names)):
        return path
    return _links(path, {f: _lower(f) for f in path.iterdir() if f not in projectors}, {})


def with_files(folder: Path, files: Mapping[str, Path]) -> Path:
    """A folder of links to the folder's files (or to a single-file model's) and to `files`, with their names here."""
    own = folder.iterdir() if folder.is_dir() else formats.files(folder)
    return _links(folder, {**{f: f.name for f in own if f.name not in files}, **_by_file(files)}, {})


def _by_file(files: Mapping[str, Path]) -> dict[Path, str]:
    return {file: name for name, file in files.items()}


def _linked_file(path: Path) -> Path:
    if path.suffix in formats.file_suffixes() or path.suffix.lower() not in formats.file_suffixes():
        return path
    return _links(path, {file: _lower(file) for file in formats.files(path)}, {}) / _lower(path)


def _checkpoint(folder: Path) -> Path:
    config = model_folder.read_config(folder)
    settings = packing.completed(folder, config)
    files = model_folder.weight_files(folder)
    named = (folder / model_folder.SINGLE).exists() or (folder / model_folder.INDEX).exists()
    if named and settings is None:
        return folder
    texts: dict[str, Any] = {} if settings is None else {model_folder.CONFIG: {**config, packing.KEY: settings}}
    names = {file: file.name for file in folder.iterdir() if file.name not in texts}
    if not named and len(files) == 1:
        names[files[0]] = model_folder.SINGLE
    elif not named:
        texts[model_folder.INDEX] = {"metadata": {}, "weight_map": _weight_map(files)}
    return _links(folder, names, texts)


def _weight_map(files: tuple[Path, ...]) -> dict[str, str]:
    weight_map: dict[str, str] = {}
    for file in files:
        for tensor in model_folder.read_header(file).tensors:
            if tensor in weight_map:
                both = f"{file.name} and {weight_map[tensor]} both hold tensor {tensor}"
                raise UserError(f"{both}: leave the files of one model in the folder")
            weight_map[tensor] = file.name
    return weight_map


def _links(source: Path, names: Mapping[Path, str], texts: Mapping[str, Any]) -> Path:
    """A folder with these files under these names, and JSON files of these values; called as the source is."""
    targets = {name: str(file.absolute()) for file, name in names.items()}
    folder = paths.cache() / "models" / wire.digest([str(source.absolute()), targets, texts])
    inner = source.name if source.is_dir() else "file"

    def build(part: Path) -> None:
        (part / inner).mkdir()
        for name, target in targets.items():
            (part / inner / name).symlink_to(target)
        for name, value in texts.items():
            (part / inner / name).write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")

    return build_once(folder, lambda: folder / inner if (folder / inner).is_dir() else None, build)


def _lower(file: Path) -> str:
    return file.stem + file.suffix.lower() if file.suffix.lower() in formats.file_suffixes() else file.name


def _ends(file: Path, suffix: str) -> bool:
    return file.suffix.lower() == suffix and file.is_file()
