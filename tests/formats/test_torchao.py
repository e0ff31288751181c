"""What an audit reads from torchao's files, made by hand so that their sizes are known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from bench import formats
from bench.contract.errors import UserError

LAYER = "model.layers.0.mlp.up_proj"
SHAPE = {LAYER: (256, 512)}  # 131,072 parameters


def _folder(folder: Path, kind: str, parts: dict[str, Any], **data: Any) -> Path:
    """One layer whose weight is in `parts`, an embedding and a layer that was left alone."""
    other = "model.layers.0.mlp.down_proj.weight"
    tensors = {
        "model.embed_tokens.weight": np.zeros((64, 512), np.float16),
        **{f"{LAYER}._weight_{name}": value for name, value in parts.items()},
        other: np.zeros((512, 256), np.float16),
    }
    described = {"_type": kind, "_data": data, "_tensor_data_names": list(parts)}
    weights = {f"{LAYER}.weight": described, **{name: {"_type": "Tensor"} for name in ("lm_head.weight", other)}}
    metadata = {name: json.dumps(one) for name, one in weights.items()}
    save_file(tensors, folder / "model.safetensors", {**metadata, "tensor_names": json.dumps(list(weights))})
    config = {"vocab_size": 64, "tie_word_embeddings": True, "quantization_config": {"quant_method": "torchao"}}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


_SCALE = np.zeros((256, 1), np.float32)
_GROUPS = np.zeros((256, 8), np.float32)
_INT4: dict[str, Any] = {"target_dtype": {"_type": "torch.dtype", "_data": "int4"}}


@pytest.mark.parametrize("reference", [True, False], ids=["against the source", "from the format alone"])
@pytest.mark.parametrize(
    ("kind", "parts", "data", "size", "note"),
    [
        ("Int8Tensor", {"qdata": np.zeros((256, 512), np.int8), "scale": _SCALE}, {}, 131072 + 1024, None),
        (
            "IntxUnpackedToInt8Tensor",
            {"qdata": np.zeros((256, 512), np.int8), "scale": _GROUPS},
            _INT4,
            131072 + 8192,
            "4-bit values stored in 8 bits each, scales apart: 1 layers",
        ),
        (
            "Int4Tensor",
            {"qdata": np.zeros((256, 256), np.int8), "scale": _GROUPS},
            {"shape": [256, 512]},
            65536 + 8192,
            None,
        ),
        (
            "Int4TilePackedTo4dTensor",  # rows are padded to 1,024 inputs
            {"qdata": np.zeros((32, 8, 32, 4), np.int32), "scale_and_zero": np.zeros((16, 256, 2), np.int16)},
            {"shape": [256, 512]},
            131072 + 16384,
            "4-bit values stored in 8 bits each, scales apart: 1 layers",
        ),
    ],
)
def test_every_stored_byte_of_a_weight_is_counted(
    tmp_path: Path, kind: str, parts: dict[str, Any], data: Any, size: int, note: str | None, reference: Any
) -> None:
    """Values in more room than their bits are named; so is the layer that was left alone."""
    shapes = {**SHAPE, "model.layers.0.mlp.down_proj": (512, 256)} if reference else None
    audit = formats.audit(_folder(tmp_path, kind, parts, **data), shapes)

    assert audit.format == "torchao"
    assert audit.linear_parameters == 2 * 131072
    assert audit.linear_bytes == size + 2 * 131072
    assert audit.quantized_fraction == 0.5
    assert audit.notes == ("not quantized: model.layers.0.mlp.down_proj", *([note] if note else []))


def test_metadata_that_describes_no_weight_is_passed_over(tmp_path: Path) -> None:
    """A file that another library wrote has none, or its own."""
    folder = _folder(tmp_path, "Int8Tensor", {"qdata": np.zeros((256, 512), np.int8), "scale": _SCALE})
    save_file(
        {f"{LAYER}.weight": np.zeros((256, 512), np.float16)},
        folder / "model.safetensors",
        {"format": "pt", "a.weight": "not JSON", "b.weight": "[1]"},
    )

    audit = formats.audit(folder, None)

    assert (audit.bits_per_weight, audit.quantized_fraction) == (16.0, 0.0)
    assert audit.notes == (f"not quantized: {LAYER}",)


def test_a_layer_without_values_is_refused_or_counted_and_never_divided_by(tmp_path: Path) -> None:
    """A damaged file whose quantized weight has no element."""
    with pytest.raises(UserError):
        formats.audit(_folder(tmp_path, "Int8Tensor", {"qdata": np.zeros((0,), np.int8)}), {LAYER: (0, 512)})


def test_groups_of_several_widths_are_noted(tmp_path: Path) -> None:
    """compressed-tensors with 4 and 8 bits: which layer has which takes the shapes of the source."""
    packed = {f"model.layers.{k}.mlp.up_proj.weight_packed": np.zeros((256, 64), np.int32) for k in range(2)}
    save_file(packed, tmp_path / "model.safetensors")
    groups = {f"g{bits}": {"weights": {"num_bits": bits}, "targets": ["Linear"]} for bits in (4, 8)}
    settings = {"quant_method": "compressed-tensors", "config_groups": groups}
    config = {"vocab_size": 64, "tie_word_embeddings": True, "quantization_config": settings}
    (tmp_path / "config.json").write_text(json.dumps(config))

    assert any("several bit widths" in note for note in formats.audit(tmp_path, None).notes)
