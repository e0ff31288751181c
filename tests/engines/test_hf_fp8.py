"""Block FP8, as some models are published, in Transformers on a CPU: expanded, and computed as it is stored."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.quantize import in_environment

_BLOCKS = """
import json
import shutil
import sys
from pathlib import Path
import torch
from safetensors.torch import load_file, save_file
from bench import formats
from bench.engines.hf import session

demo, packed, plain = Path(sys.argv[1]), Path("packed"), Path("plain")
for folder in (packed, plain):
    shutil.copytree(demo, folder, ignore=shutil.ignore_patterns("*.py"))
tensors, stored, expanded = load_file(demo / "model.safetensors"), {}, {}
for name, weight in tensors.items():
    if not name.endswith("_proj.weight"):
        stored[name] = expanded[name] = weight
        continue
    rows, inputs = (size // 128 for size in weight.shape)
    blocks = weight.float().reshape(rows, 128, inputs, 128)
    scales = blocks.abs().amax((1, 3), keepdim=True) / 448
    values = (blocks / scales).to(torch.float8_e4m3fn)
    stored[name], stored[f"{name}_scale_inv"] = values.reshape(weight.shape), scales[:, 0, :, 0].contiguous()
    expanded[name] = (values.float() * scales).reshape(weight.shape)
for folder, content in ((packed, stored), (plain, expanded)):
    save_file(content, folder / "model.safetensors", metadata={"format": "pt"})
config = json.loads((demo / "config.json").read_text())
settings = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}
(packed / "config.json").write_text(json.dumps({**config, "quantization_config": settings}))
ids = torch.tensor([[(31 * i + 7) % 4000 + 5 for i in range(64)]])
with torch.no_grad():
    models = [session.load(folder, session.Options(dtype="float32"), "cpu") for folder in (packed, plain)]
    logits = [model(input_ids=ids).logits for model in models]
audit = formats.audit(packed, dict(formats.source(demo).linears))
print("RESULT" + json.dumps({
    "format": formats.detect(packed), "bits": audit.bits_per_weight, "quantized": audit.quantized_fraction,
    "dtypes": sorted({str(p.dtype) for p in models[0].parameters()}),
    "error": float((logits[0] - logits[1]).abs().max()),
}))
"""


@pytest.mark.engine
@pytest.mark.slow
@pytest.mark.needs("hf")
def test_blocks_are_expanded_to_the_floats_that_they_stand_for(tmp_path: Path) -> None:
    """Logits of the same values in float32; the audit counts a byte a weight, and the scales."""
    answer = json.loads(in_environment.run("hf", tmp_path, _BLOCKS, str(ROOT / "models" / "demo")))

    assert (answer["format"], answer["quantized"]) == ("fp8", 1.0)
    assert answer["bits"] == pytest.approx(8 + 32 / 128**2)
    assert answer["dtypes"] == ["torch.float32"]
    assert answer["error"] < 1e-4
