"""What tells how weights were packed: zero points of GPTQ's two formats, under each other's name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from bench.contract.errors import UserError
from bench.contract.spec import Model
from bench.models import resolve


def _gptq(folder: Path, zeros: int, **settings: Any) -> Path:
    folder.mkdir()
    layer = "model.layers.0.mlp.up_proj"
    tensors: dict[str, Any] = {
        f"{layer}.qweight": np.zeros((16, 64), np.int32),
        f"{layer}.qzeros": np.full((1, 8), zeros, np.uint32).view(np.int32),
        f"{layer}.scales": np.ones((1, 64), np.float16),
        f"{layer}.g_idx": np.zeros(128, np.int32),
        "model.embed_tokens.weight": np.zeros((32, 128), np.float16),
    }
    save_file(tensors, folder / "model.safetensors")
    quantization = {"quant_method": "gptq", "bits": 4, "group_size": 128, **settings}
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "quantization_config": quantization}))
    return folder


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize(
    ("zeros", "settings", "sentence"),
    [
        (0x77777777, {}, ""),
        (0x77777777, {"checkpoint_format": "gptq"}, ""),
        (0x88888888, {"checkpoint_format": "gptq_v2"}, ""),
        (0x12345678, {}, ""),  # of weights that are not symmetric: nothing shows
        (0x88888888, {}, "m: its zero points are stored as gptq_v2 stores them, and its settings say gptq, or nothing"),
        (0x88888888, {"format": "gptq"}, 'set "checkpoint_format" and "format" to "gptq_v2"'),
        (0x77777777, {"checkpoint_format": "gptq_v2"}, "stored as gptq stores them, and its settings say gptq_v2"),
        (0x80808080, {"bits": 8}, "stored as gptq_v2 stores them"),
        (0x88888888, {"checkpoint_format": "marlin"}, ""),
    ],
)
def test_zero_points_under_the_other_formats_name_are_refused(
    tmp_path: Path, zeros: int, settings: dict[str, Any], sentence: str
) -> None:
    """Every weight would be read shifted by one step of its scale: such a model's perplexity is in the thousands."""
    model = Model(str(_gptq(tmp_path / "m", zeros, **settings)))
    if not sentence:
        assert resolve.resolve(model, fetch=False).format == "gptq"
    else:
        with pytest.raises(UserError, match=sentence):
            resolve.resolve(model, fetch=False)
