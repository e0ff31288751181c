"""The unquantized baseline: a change of type, tensor by tensor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from bench import formats
from bench.contract.errors import UserError
from bench.formats import folder as model_folder
from quantize.methods import none

DEMO = Path(__file__).resolve().parents[2] / "models" / "demo"


def _model(folder: Path, tensors: dict[str, Any], **config: Any) -> Path:
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def _apply(source: Path, dtype: Any, out: Path) -> Path:
    out.mkdir(exist_ok=True)
    none.apply(source, none.Options(dtype=dtype), out, "cpu")
    return out


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_values_are_what_numpy_casts_them_to(tmp_path: Path, dtype: str) -> None:
    """Each floating tensor, whatever its type, becomes its NumPy cast; others keep their bytes."""
    rng = np.random.default_rng(0)
    tensors: dict[str, Any] = {
        "a.weight": rng.normal(size=(5, 3)).astype(np.float32),
        "b.weight": rng.normal(size=(2, 2, 2)).astype(np.float16),
        "c.weight": rng.normal(size=7).astype(ml_dtypes.bfloat16),
        "d.weight": rng.normal(size=3).astype(np.float64),
        "steps": np.arange(4, dtype=np.int64),
        "empty": np.zeros((0, 4), dtype=np.float32),
    }
    output = load_file(_apply(_model(tmp_path / "in", tensors), dtype, tmp_path / "out") / "model.safetensors")

    assert set(output) == set(tensors)
    for name, before in tensors.items():
        wanted = before if name == "steps" else before.astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
        assert output[name].dtype == wanted.dtype
        np.testing.assert_array_equal(output[name], wanted)


def test_the_demo_model_comes_back_bit_for_bit(tmp_path: Path) -> None:
    """float16 to float32 and back loses nothing, and every tokenizer file goes along."""
    wide = _apply(DEMO, "float32", tmp_path / "wide")
    back = _apply(wide, "float16", tmp_path / "back")
    before, after = load_file(DEMO / "model.safetensors"), load_file(back / "model.safetensors")

    assert all(np.array_equal(before[name], after[name]) for name in before)
    assert set(before) == set(after)
    for name in ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "generation_config.json"):
        assert (wide / name).read_bytes() == (DEMO / name).read_bytes()
    assert json.loads((wide / "config.json").read_text())["dtype"] == "float32"


def test_bits_per_weight_are_the_type_s(tmp_path: Path) -> None:
    """The audit of the baseline reads 32 and 16 bits, and nothing quantized."""
    for dtype, bits in (("float32", 32.0), ("bfloat16", 16.0)):
        audit = formats.audit(_apply(DEMO, dtype, tmp_path / dtype), formats.source(DEMO).linears)
        assert (audit.bits_per_weight, audit.quantized_fraction) == (bits, 0.0)


def test_shards_stay_shards(tmp_path: Path) -> None:
    """Every file of the index is rewritten, and the index tells the new size."""
    source = tmp_path / "in"
    _model(source, {"a": np.ones((4, 4), np.float16)}, dtype="float16", vision_config={"torch_dtype": "float16"})
    (source / "model.safetensors").rename(source / "model-00001-of-00002.safetensors")
    save_file({"b": np.ones(6, np.float16)}, source / "model-00002-of-00002.safetensors")
    where = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (source / model_folder.INDEX).write_text(json.dumps({"metadata": {"total_size": 44}, "weight_map": where}))

    out = _apply(source, "float32", tmp_path / "out")

    index = json.loads((out / model_folder.INDEX).read_text())
    assert index == {"metadata": {"total_size": 88}, "weight_map": where}
    assert load_file(out / where["b"])["b"].dtype == np.float32
    config = json.loads((out / "config.json").read_text())
    assert (config["dtype"], config["vision_config"]["torch_dtype"]) == ("float32", "float32")


def test_a_number_too_large_is_refused_by_name(tmp_path: Path) -> None:
    """70,000 does not fit in float16, and is not turned into infinity."""
    source = _model(tmp_path / "in", {"layer.weight": np.array([1.0, 7e4], np.float32)})

    with pytest.raises(UserError, match=r"tensor layer\.weight holds 7e\+04, more than float16"):
        _apply(source, "float16", tmp_path / "out")


def test_infinities_and_nan_pass_through(tmp_path: Path) -> None:
    """What is not finite in the source is the source's own affair."""
    odd = np.array([np.inf, -np.inf, np.nan, 1.0], np.float32)
    output = load_file(_apply(_model(tmp_path / "in", {"w": odd}), "float16", tmp_path / "out") / "model.safetensors")

    np.testing.assert_array_equal(output["w"], odd.astype(np.float16))


def test_a_pickle_is_refused(tmp_path: Path) -> None:
    """A folder with only *.bin weights is refused in a sentence that says what to do."""
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x02")

    with pytest.raises(UserError, match=r"pickle.*save_pretrained"):
        none.apply(tmp_path, none.Options(), tmp_path / "out", "cpu")
