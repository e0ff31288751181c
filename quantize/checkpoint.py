"""A model folder around its weights: what a method writes must be as complete as what it read.

Libraries that compress rewrite config and tokenizer files (another padding token, no tokenizer.model). Every
method copies them from its source, so that all artifacts of a model tokenize the same.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.contract import wire
from bench.contract.errors import UserError
from bench.formats import folder as model_folder

_TEXT_RECORD = "calibration.json"
_COPIED = frozenset({".json", ".model", ".txt", ".jinja", ".tiktoken"})
_OWN = frozenset({model_folder.CONFIG, "quantize_config.json", _TEXT_RECORD, model_folder.INDEX})


def with_dtype(config: Mapping[str, Any], dtype: str) -> dict[str, Any]:
    """The config, and those nested in it, with the weights' type replaced wherever it is named."""
    changed = {k: with_dtype(v, dtype) if isinstance(v, Mapping) else v for k, v in config.items()}
    return {k: dtype if k in model_folder.DTYPE_KEYS and v else v for k, v in changed.items()}


def write_config(out: Path, config: Mapping[str, Any]) -> None:
    (out / model_folder.CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def carry(folder: Path, out: Path) -> None:
    """Copy tokenizer, generation and processor files over what a library wrote; never weights or config.json.

    Python files are copied only where the config names code of its own (`auto_map`). The record of the text that
    the source was calibrated or trained on is taken over.
    """
    suffixes = _COPIED | ({".py"} if "auto_map" in model_folder.read_config(folder) else set())
    for file in sorted(folder.iterdir()):
        if file.is_file() and file.suffix in suffixes and file.name not in _OWN:
            shutil.copyfile(file, out / file.name)
    if (folder / _TEXT_RECORD).is_file():
        add_text(out, json.loads((folder / _TEXT_RECORD).read_text(encoding="utf-8")))


def add_text(out: Path, text: Mapping[str, Any]) -> None:
    """Add a text that the model was calibrated or trained on (corpus, sha256, paragraphs) to the folder's record."""
    file = out / _TEXT_RECORD
    if file.is_file():
        earlier = json.loads(file.read_text(encoding="utf-8"))
        if earlier["sha256"] != text["sha256"]:
            text = {
                "corpus": f"{earlier['corpus']}, {text['corpus']}",
                "sha256": text["sha256"],
                "paragraphs": sorted({*earlier["paragraphs"], *text["paragraphs"]}),
            }
    wire.write(file, wire.dumps(text))


def complete(folder: Path, out: Path, dtype: str, changes: Mapping[str, Any]) -> None:
    """Give `out` its source's files and config.json, with `dtype` as the weights' type and `changes` over it."""
    carry(folder, out)
    config = model_folder.read_config(folder)
    write_config(out, {**with_dtype({"dtype": dtype, **config}, dtype), **changes})


def finish(folder: Path, out: Path, dtype: str, quantization: Mapping[str, Any]) -> None:
    """As `complete`, with `dtype` for all that a library did not quantize."""
    narrow(out, dtype)
    complete(folder, out, dtype, {"quantization_config": quantization})


def narrow(out: Path, dtype: str) -> None:
    """Store as `dtype` what is in float32 only because the library computed in it (embeddings, norms)."""
    import torch
    from safetensors.torch import load_file, save_file

    for file in model_folder.weight_files(out):
        tensors = load_file(file)
        if any(tensor.dtype == torch.float32 for tensor in tensors.values()):
            kind = getattr(torch, dtype)
            cast = {k: v.to(kind) for k, v in tensors.items() if v.dtype == torch.float32}
            for name, tensor in cast.items():
                if not torch.isfinite(tensor).all():
                    raise UserError(f"tensor {name} does not fit in {dtype}: save the source in bfloat16 first")
            save_file({**tensors, **cast}, file, metadata={"format": "pt"})
    _resize(out)


def _resize(out: Path) -> None:
    index = out / model_folder.INDEX
    if index.is_file():
        content = json.loads(index.read_text(encoding="utf-8"))
        total = sum(file.stat().st_size for file in model_folder.weight_files(out))
        content["metadata"] = {**content.get("metadata", {}), "total_size": total}
        index.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
