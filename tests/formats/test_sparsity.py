"""Zeros counted in stored weights whose zeros are known."""

from __future__ import annotations

import json
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from bench import formats
from bench.formats import checkpoint, hf

LAYER = "model.layers.0.mlp.up_proj"


def _stored(folder: Path, values: np.ndarray[tuple[int, ...], np.dtype[np.float32]], dtype: str) -> Path:
    kind = np.dtype(ml_dtypes.bfloat16) if dtype == "bfloat16" else np.dtype(dtype)
    tensors = {f"{LAYER}.weight": values.astype(kind), "model.norm.weight": np.zeros(8, np.float32)}
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"vocab_size": 8, "tie_word_embeddings": True}))
    return folder


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
def test_zeros_are_counted_in_every_floating_type(tmp_path: Path, dtype: str) -> None:
    """Of 2 x 8 weights 5 are zero, one of them -0.0; of 4 groups of four two have two zeros or more."""
    values = np.ones((2, 8), np.float32)
    values[0, [0, 1, 2]] = 0.0
    values[1, [4, 7]] = [0.0, -0.0]

    assert hf._zero_fractions(checkpoint.read(_stored(tmp_path, values, dtype)), [LAYER]) == (5 / 16, 2 / 4)


def test_groups_of_gpt_2_are_of_inputs_too(tmp_path: Path) -> None:
    """Its weights are stored as (in, out): two of four inputs are zero, and so one of two groups of outputs is."""
    values = np.ones((4, 8), np.float32)
    values[[0, 2]] = 0.0
    save_file({"h.0.attn.c_attn.weight": values}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2", "vocab_size": 8}))

    assert hf._zero_fractions(checkpoint.read(tmp_path), ["h.0.attn.c_attn"]) == (0.5, 1.0)


def test_a_weight_that_is_no_plain_number_has_no_zeros_to_count(tmp_path: Path) -> None:
    """Packed weights are not looked into, and a layer that is not there is no layer without zeros."""
    _stored(tmp_path, np.zeros((4, 4), np.float32), "uint8")
    model = checkpoint.read(tmp_path)

    assert hf._zero_fractions(model, [LAYER]) is None
    assert hf._zero_fractions(model, ["model.layers.1.mlp.up_proj"]) is None


def test_an_audit_counts_zeros_only_where_it_is_asked_to(tmp_path: Path) -> None:
    """Every weight is read for it, which planning must not wait for."""
    folder = _stored(tmp_path, np.zeros((4, 4), np.float32), "float32")

    assert formats.audit(folder, None).zero_fraction is None
    assert formats.audit(folder, None, zeros=True).zero_fraction == 1.0
