"""The largest difference between a GGUF file's layers and ggml's rounding of the model's, as one JSON object.

`python gguf_mixed_checks.py MODEL ARTIFACT`, in the llamacpp environment; ARTIFACT has a file and its layers' types.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from bench.engines.llamacpp import layers as stored_layers
from eval.layers import network
from quantize import mixed
from quantize.backends import ggml


def main(folder: Path, artifact: Path) -> dict[str, float]:
    model = network.load(folder, "cpu")
    stored = stored_layers.matrices(artifact / "model.gguf", model)
    differences = {}
    for name, kind in mixed.read_types(artifact).types.items():
        rounded = ggml.rounded(model.get_submodule(name).weight.detach().numpy(), kind)
        differences[name] = float(abs(rounded - stored[name].weight.detach().numpy()).max())
    return differences


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), Path(sys.argv[2]))))  # noqa: T201
