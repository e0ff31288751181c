"""ONNX Runtime GenAI: models that its builder made, generated from by its own loop, on a CPU or a GPU.

It loads a folder of links to the model's files with its own settings: without end tokens, since nothing else
makes the generator continue after one (`min_length` would forbid them), nor the checkpoint's sampling settings.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bench.contract import wire
from bench.contract.errors import UserError
from bench.contract.record import Artifact, Hardware
from bench.contract.spec import Cell
from bench.contract.workload import Offline
from bench.engines.onnxruntime import receipts, settings
from bench.engines.onnxruntime.session import OnnxSession, load

__all__ = ["DEPTH_MODES", "ENV", "LOADS", "MODES", "VERSION", "Options", "open", "unsupported"]

ENV = "onnx"
VERSION = 1
LOADS = frozenset({"onnx"})
MODES = frozenset({"offline", "score"})
DEPTH_MODES = frozenset({"offline"})
_CONFIG = "genai_config.json"
_PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "NvTensorRtRtx": "NvTensorRTRTXExecutionProvider",
}
_GREEDY = {
    "do_sample": False,
    "num_beams": 1,
    "num_return_sequences": 1,
    "min_length": 0,
    "top_k": 1,
    "top_p": 1.0,
    "temperature": 1.0,
    "repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
}


@dataclass(frozen=True)
class Options:
    """`threads` 0: one per physical core. `provider` auto: cuda for a CUDA device, else cpu."""

    threads: int = 0
    provider: Literal["auto", "cpu", "cuda", "NvTensorRtRtx"] = "auto"

    def provider_on(self, device: str) -> str:
        """The provider by its name in genai_config.json."""
        if self.provider != "auto":
            return self.provider
        return "cuda" if device.startswith("cuda") else "cpu"


def unsupported(cell: Cell, artifact_format: str, hardware: Hardware) -> str | None:
    if artifact_format not in LOADS:
        return f"ONNX Runtime GenAI loads onnx, not {artifact_format}"
    options = Options(**cell.engine.options)  # type: ignore[arg-type]  # validated against Options by the planner
    provider = options.provider_on(cell.device)
    if provider != "cpu" and (cell.device == "cpu" or not hardware.gpus):
        return f"provider {provider} needs an NVIDIA GPU: ask for a CUDA device, or for the provider cpu"
    if provider == "cpu" and cell.device != "cpu":
        return "provider cpu leaves the GPU unused: ask for the device cpu instead"
    if isinstance(load := cell.workload, Offline) and load.depth_tokens and load.batch > 1:
        return "ONNX Runtime GenAI feeds a batch once only: set batch: 1, or leave depth_tokens out"
    return None


@contextmanager
def open(folder: Path, artifact: Artifact, options: Options, device: str) -> Iterator[OnnxSession]:  # noqa: A001
    """Load the model; UserError for files it cannot load, and for a GPU that this build cannot use."""
    config = _genai_config(folder, options, device)
    with tempfile.TemporaryDirectory() as scratch:
        for file in folder.iterdir():
            if file.name != _CONFIG:
                (Path(scratch) / file.name).symlink_to(file.resolve())
        (Path(scratch) / _CONFIG).write_text(json.dumps(config))
        model, threads = load(Path(scratch), folder, device)
        weights = receipts.stored_weights(folder / config["model"]["decoder"]["filename"])
        provider = _PROVIDERS[options.provider_on(device)]
        yield OnnxSession(model, config, device, threads, provider, weights)


def _genai_config(folder: Path, options: Options, device: str) -> dict[str, Any]:
    """The model's genai_config.json as it is run here: greedy, without end tokens, on this provider."""
    try:
        config: dict[str, Any] = wire.read_json(folder / _CONFIG)
        model, session = config["model"], config["model"]["decoder"]["session_options"]
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(
            f"the artifact has no readable {_CONFIG}: ONNX Runtime GenAI runs what its model builder made"
        ) from None
    settings.require_known(config)
    model.pop("eos_token_id", None)
    if not 0 <= int(model.get("pad_token_id") or 0) < int(model.get("vocab_size") or 0):
        model["pad_token_id"] = 0  # of a token that a tokenizer's class adds to the model's; nothing is padded here
    config["search"] = {**config.get("search", {}), **_GREEDY}
    provider = options.provider_on(device)
    stored = {name: value for each in session.get("provider_options", []) for name, value in each.items()}
    own = {**stored.get(provider, {}), "device_id": device.partition(":")[2] or "0"}
    session |= {
        "intra_op_num_threads": options.threads or os.cpu_count() or 1,
        "inter_op_num_threads": 1,
        "log_severity_level": 1,  # tells the size of the thread pool, and nothing while it runs
        "provider_options": [] if provider == "cpu" else [{provider: own}],
    }
    return config
