"""The largest difference between an ONNX model's layers and the rounding that is measured, as one JSON object.

`python onnx_mixed_checks.py MODEL ARTIFACT`, in the onnx environment; ARTIFACT has a graph and the types of its layers.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from eval.layers import network
from quantize import mixed
from quantize.backends import onnx_blocks
from quantize.methods import onnx as method


def main(folder: Path, artifact: Path) -> dict[str, float]:
    model = network.load(folder, "cpu")
    graph = onnx.load(artifact / "model.onnx").graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    nodes = {node.name: node for node in graph.node if node.op_type == "MatMulNBits"}
    differences = {}
    for name, kind in mixed.read_types(artifact).types.items():
        bits = int(kind.removeprefix("int"))
        node = nodes[f"{method._node(name)}_Q{bits}"]
        packed, scales = (numpy_helper.to_array(stored[name]) for name in node.input[1:3])
        codes = packed if bits == 8 else np.stack([packed & 15, packed >> 4], axis=-1).reshape(*packed.shape[:2], -1)
        values = (codes.astype(np.float32) - 2 ** (bits - 1)) * scales.reshape(*packed.shape[:2], 1)
        weight = model.get_submodule(name).weight.detach().numpy()
        rounded = onnx_blocks.rounded(weight, bits, codes.shape[2])
        differences[name] = float(abs(rounded - values.reshape(rounded.shape)).max())
    return differences


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), Path(sys.argv[2]))))  # noqa: T201
