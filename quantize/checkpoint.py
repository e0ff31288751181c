"""A model folder around its weights: what a method writes must be as complete as what it read.

Libraries that compress rewrite config and tokenizer files as they see fit (another padding token, no
tokenizer.model). Every method copies them from its source, so that all artifacts of a model tokenize alike.
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

SEEN = "calibration.json"
_CARRIED = frozenset({".json", ".model", ".txt", ".jinja", ".tiktoken"})
_OWN = frozenset({model_folder.CONFIG, "quantize_config.json", SEEN, model_folder.INDEX})


def with_dtype(settings: Mapping[str, Any], dtype: str) -> dict[str, Any]:
    """The same config, and the configs inside it, with the weights' type renamed wherever it was named."""
    changed = {k: with_dtype(v, dtype) if isinstance(v, Mapping) else v for k, v in settings.items()}
    return {k: dtype if k in model_folder.DTYPE_KEYS and v else v for k, v in changed.items()}


def write_config(out: Path, settings: Mapping[str, Any]) -> None:
    (out / model_folder.CONFIG).write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def carry(folder: Path, out: Path) -> None:
    """Copy tokenizer, generation and processor files over what a library wrote; never weights or config.json.

    Python files are copied only where the config names code of its own (`auto_map`). What the source was
    calibrated or trained on is remembered.
    """
    wanted = _CARRIED | ({".py"} if "auto_map" in model_folder.read_config(folder) else set())
    for file in sorted(folder.iterdir()):
        if file.is_file() and file.suffix in wanted and file.name not in _OWN:
            shutil.copyfile(file, out / file.name)
    if (folder / SEEN).is_file():
        remember(out, json.loads((folder / SEEN).read_text(encoding="utf-8")))


def remember(out: Path, seen: Mapping[str, Any]) -> None:
    """Write which text a model has seen (corpus, sha256, paragraphs) beside what is written there already."""
    file = out / SEEN
    if file.is_file():
        older = json.loads(file.read_text(encoding="utf-8"))
        if older["sha256"] != seen["sha256"]:
            seen = {
                "corpus": f"{older['corpus']}, {seen['corpus']}",
                "sha256": seen["sha256"],
                "paragraphs": sorted({*older["paragraphs"], *seen["paragraphs"]}),
            }
    wire.write(file, wire.dumps(seen))


def finish(folder: Path, out: Path, dtype: str, quantization: Mapping[str, Any]) -> None:
    """Give what a library wrote its source's files and config, and `dtype` for what it did not quantize."""
    source = model_folder.read_config(folder)
    narrow(out, dtype)
    carry(folder, out)
    named = with_dtype({"dtype": dtype, **source}, dtype)
    write_config(out, {**named, "quantization_config": quantization})


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
        kept = json.loads(index.read_text(encoding="utf-8"))
        total = sum(file.stat().st_size for file in model_folder.weight_files(out))
        kept["metadata"] = {**kept.get("metadata", {}), "total_size": total}
        index.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
