"""ONNX Runtime GenAI: models that its builder made, generated from by its own loop, on a CPU or a GPU.

It loads a folder of links to the model's files with its own settings: without end tokens, since nothing else
makes the generator continue after one (`min_length` would forbid them), nor the checkpoint's sampling settings.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.contract.record import Artifact, Hardware
from bench.contract.spec import Cell
from bench.engines.onnxruntime import receipts
from bench.engines.onnxruntime.options import CONFIG, Options, genai_config
from bench.engines.onnxruntime.session import OnnxSession, load

__all__ = ["ENV", "LOADS", "MODES", "VERSION", "Options", "open", "unsupported"]

ENV = "onnx"
VERSION = 1
LOADS = frozenset({"onnx"})
MODES = frozenset({"offline", "score"})
_PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "NvTensorRtRtx": "NvTensorRTRTXExecutionProvider",
}


def unsupported(cell: Cell, artifact_format: str, hardware: Hardware) -> str | None:
    if artifact_format not in LOADS:
        return f"ONNX Runtime GenAI loads onnx, not {artifact_format}"
    options = Options(**cell.engine.options)  # type: ignore[arg-type]  # validated against Options by the planner
    provider = options.provider_on(cell.device)
    if provider != "cpu" and (cell.device == "cpu" or not hardware.gpus):
        return f"provider {provider} needs an NVIDIA GPU: ask for a CUDA device, or for the provider cpu"
    if provider == "cpu" and cell.device != "cpu":
        return "provider cpu leaves the GPU unused: ask for the device cpu instead"
    return None


@contextmanager
def open(folder: Path, artifact: Artifact, options: Options, device: str) -> Iterator[OnnxSession]:  # noqa: A001
    """Load the model; UserError for files it cannot load, and for a GPU that this build cannot use."""
    config = genai_config(folder, options, device)
    with tempfile.TemporaryDirectory() as scratch:
        for file in folder.iterdir():
            if file.name != CONFIG:
                (Path(scratch) / file.name).symlink_to(file.resolve())
        (Path(scratch) / CONFIG).write_text(json.dumps(config))
        model, threads = load(Path(scratch), folder, device)
        weights = receipts.stored_weights(folder / config["model"]["decoder"]["filename"])
        provider = _PROVIDERS[options.provider_on(device)]
        yield OnnxSession(model, config, device, threads, provider, weights)
