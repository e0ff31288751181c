"""A model folder around its weights: config and tokenizer files, which every method copies from its source.

Compression libraries change them (another padding token, no tokenizer.model): a model's artifacts must tokenize
the same.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bench.contract import wire
from bench.contract.errors import UserError
from bench.formats import folder as model_folder

_CALIBRATION = "calibration.json"
_GLOBAL_SCALE = "_global_scale"
_SETTINGS = frozenset({".json", ".model", ".txt", ".jinja", ".tiktoken"})
_OWN_FILES = frozenset({model_folder.CONFIG, "quantize_config.json", _CALIBRATION, model_folder.INDEX})


def with_dtype(config: Mapping[str, Any], dtype: str) -> dict[str, Any]:
    """The same config, and the configs inside it, with the weights' type renamed wherever it is named."""
    renamed = {k: with_dtype(v, dtype) if isinstance(v, Mapping) else v for k, v in config.items()}
    return {k: dtype if k in model_folder.DTYPE_KEYS and v else v for k, v in renamed.items()}


def write_config(out: Path, config: Mapping[str, Any]) -> None:
    (out / model_folder.CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def copy_settings(folder: Path, out: Path) -> None:
    """Copy tokenizer, generation and processor files over what a library wrote; never weights or config.json.

    Python files only where the config names its own code (`auto_map`); the record of calibration text too.
    """
    suffixes = _SETTINGS | ({".py"} if "auto_map" in model_folder.read_config(folder) else set())
    for file in sorted(folder.iterdir()):
        if file.is_file() and file.suffix in suffixes and file.name not in _OWN_FILES:
            shutil.copyfile(file, out / file.name)
    if (folder / _CALIBRATION).is_file():
        record_text(out, json.loads((folder / _CALIBRATION).read_text(encoding="utf-8")))


def record_text(out: Path, text: Mapping[str, Any]) -> None:
    """Record the text that weights were fitted to (corpus, sha256, paragraphs), with any recorded before."""
    file = out / _CALIBRATION
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
    """Give weights that a library wrote in `dtype` the files of their source, `changes` laid over its config."""
    copy_settings(folder, out)
    write_config(out, {**with_dtype({"dtype": dtype, **model_folder.read_config(folder)}, dtype), **changes})


def rewrite(out: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Store in each weight file what `change` makes of its tensors, by name."""
    from safetensors.torch import load_file, save_file

    weight_map: dict[str, str] = {}
    for file in model_folder.weight_files(out):
        tensors = {name: tensor.contiguous() for name, tensor in change(load_file(file)).items()}
        save_file(tensors, file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(tensors, file.name)
    index = out / model_folder.INDEX
    if index.is_file():
        contents = json.loads(index.read_text(encoding="utf-8"))
        index.write_text(json.dumps({**contents, "weight_map": weight_map}, indent=2) + "\n", encoding="utf-8")


def finish(folder: Path, out: Path, dtype: str, quantization: Mapping[str, Any]) -> None:
    """As `complete`, after storing in `dtype` what is in float32 only because the library computed in it.

    Global scales stay: NVFP4 has them in float32, and they multiply a whole layer.
    """
    import torch
    from safetensors.torch import load_file, save_file

    files = model_folder.weight_files(out)
    for file in files:
        tensors = load_file(file)
        wide = {k: v for k, v in tensors.items() if v.dtype == torch.float32 and not k.endswith(_GLOBAL_SCALE)}
        cast = {k: v.to(getattr(torch, dtype)) for k, v in wide.items()}
        for name, tensor in cast.items():
            if not torch.isfinite(tensor).all():
                raise UserError(f"tensor {name} does not fit in {dtype}: save the source in bfloat16 first")
        if cast:
            save_file({**tensors, **cast}, file, metadata={"format": "pt"})
    index = out / model_folder.INDEX
    if index.is_file():
        contents = json.loads(index.read_text(encoding="utf-8"))
        total = sum(file.stat().st_size for file in files)
        contents["metadata"] = {**contents.get("metadata", {}), "total_size": total}
        index.write_text(json.dumps(contents, indent=2) + "\n", encoding="utf-8")
    complete(folder, out, dtype, {"quantization_config": quantization})
