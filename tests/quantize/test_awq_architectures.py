"""AWQ of a model whose layers have rotary positions of two kinds: the library's search asks for neither."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.quantize import in_environment

_QUANTIZE = """
import json
import shutil
import sys
from pathlib import Path
import torch
from transformers import AutoModelForCausalLM
from quantize.methods import awq
from tests.quantize import architecture_checks
architecture_checks._MODELS["gemma3"][1].update(intermediate_size=128)  # the library clips 64 outputs at a time
folder = architecture_checks._model_folder("gemma3", Path(sys.argv[1]))
out = Path("awq")
out.mkdir()
facts = awq.apply(folder, awq.Options(bits=4, group_size=32, samples=16, batch_size=8, length=64), out, "cpu")
ids = torch.tensor(architecture_checks._IDS)
with torch.no_grad():
    before, after = (
        AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)(input_ids=ids).logits for path in (folder, out)
    )
error = float((after - before).square().mean().sqrt() / before.std())
print("RESULT" + json.dumps({"modules": facts["modules_quantized"], "error": error, "batch_size": facts["batch_size"]}))
"""


@pytest.mark.engine
@pytest.mark.slow
@pytest.mark.needs("hf")
def test_each_kind_of_layer_is_searched_with_its_own_positions(tmp_path: Path) -> None:
    """All linear layers of three blocks are quantized, whose windows are shorter than the samples."""
    answer = json.loads(in_environment.run("hf", tmp_path, _QUANTIZE, str(ROOT / "models" / "demo")))

    assert answer["modules"] == 21
    assert answer["batch_size"] == 1
    assert answer["error"] < 0.3
