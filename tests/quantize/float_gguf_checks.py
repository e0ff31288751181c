"""Floats of 4 bits in blocks by llama.cpp's quantizer, as one JSON object by type.

`python float_gguf_checks.py MODEL`, in the environment llamacpp; the current directory is scratch. Its values are
unpacked by the package gguf, and the logits compared with those of the same values in a file of floats.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFReader, GGUFWriter, quants

from bench import formats
from bench.contract.record import Artifact
from bench.engines import llamacpp
from quantize.methods import gguf

_IDS = [(31 * i + 7) % 4000 + 5 for i in range(64)]


def main(model: Path) -> dict[str, Any]:
    source = _make(model, "f16")
    original, floats = _logits(source)[0], _values(source / "model.gguf")
    return {kind: _check(source, kind, original, floats) for kind in ("mxfp4", "nvfp4")}


def _make(folder: Path, kind: Any) -> Path:
    out = Path(kind)
    out.mkdir()
    gguf.apply(folder, gguf.Options(type=kind), out, "cpu")
    return out


def _check(source: Path, kind: str, original: Any, floats: dict[str, Any]) -> dict[str, Any]:
    out = _make(source, kind)
    audit = formats.audit(out, None)
    logits, receipts = _logits(out)
    values = _values(out / "model.gguf")
    layers = [name for name, tensor in formats.stored_types(out).items() if tensor == kind]
    errors = [_share(values[f"{name}.weight"], floats[f"{name}.weight"]) for name in layers]
    expected = _logits(_expanded(out, values))[0]
    return {
        "bits": audit.bits_per_weight,
        "types": audit.tensor_types,
        "notes": audit.notes,
        "file_type": receipts.get("weight_dtype"),
        "weights": float(np.mean(errors)),
        "logits": float((logits - expected).std() / expected.std()),
        "error": float((logits - original).std() / original.std()),
    }


def _share(values: Any, floats: Any) -> float:
    return float(np.sqrt(((values - floats) ** 2).mean() / (floats**2).mean()))


def _values(file: Path) -> dict[str, Any]:
    """float32 [out, in] by tensor."""
    return {tensor.name: quants.dequantize(tensor.data, tensor.tensor_type) for tensor in GGUFReader(file).tensors}


def _expanded(folder: Path, values: dict[str, Any]) -> Path:
    """A folder with the same model in float32."""
    out = Path(f"{folder.name}-floats")
    out.mkdir()
    reader = GGUFReader(folder / "model.gguf")
    writer = GGUFWriter(out / "model.gguf", reader.fields["general.architecture"].contents())
    for name, field in reader.fields.items():
        if not name.startswith("GGUF.") and name not in ("general.architecture", "general.file_type"):
            kinds = field.types
            writer.add_key_value(name, field.contents(), kinds[0], kinds[-1] if len(kinds) > 1 else None)
    writer.add_file_type(0)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, np.ascontiguousarray(values[tensor.name], np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return out


def _logits(folder: Path) -> tuple[Any, Any]:
    """float32 [tokens, vocab], and the engine's receipts."""
    artifact = Artifact("", "gguf", "", (), formats.audit(folder, None))
    with llamacpp.open(folder, artifact, llamacpp.Options(threads=1, kv_dtype="f32"), "cpu") as session:
        return np.concatenate([block.logits for block in session.logits(_IDS)]), session.receipts()


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(Path(sys.argv[1]))) + "\n")
