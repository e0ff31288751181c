"""The options of the onnxruntime engine, and the settings of ONNX Runtime GenAI that follow from them."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bench.contract.errors import UserError

CONFIG = "genai_config.json"
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


def genai_config(folder: Path, options: Options, device: str) -> dict[str, Any]:
    """The model's genai_config.json as it is run here: greedy, without end tokens, on this provider."""
    try:
        config: dict[str, Any] = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        model, session = config["model"], config["model"]["decoder"]["session_options"]
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(
            f"the artifact has no readable {CONFIG}: ONNX Runtime GenAI runs what its model builder made"
        ) from None
    model.pop("eos_token_id", None)
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
