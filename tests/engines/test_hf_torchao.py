"""What `transformers serve` cannot do with a torchao artifact is said before it is started."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench.contract.errors import UserError
from bench.contract.record import Artifact, Audit
from bench.engines import hf

_AUDIT = Audit("torchao", 0, 0, 0, 0, 0, 0.0, 0.0, tied_head=False, vocab_size=0, context=0)


def _serve(folder: Path, kind: str, **options: Any) -> Any:
    quantization = {"quant_method": "torchao", "quant_type": {"default": {"_type": kind}}}
    (folder / "config.json").write_text(json.dumps({"dtype": "float32", "quantization_config": quantization}))
    (folder / "model.safetensors").touch()
    return hf.serve(folder, Artifact("", "torchao", "", (), _AUDIT), hf.Options(**options), "p", 1, "cpu")


def test_static_scales_are_not_served(tmp_path: Path) -> None:
    """Transformers loads them only with the engine's help, which its own server does not have."""
    with pytest.raises(UserError, match="cannot load static activation scales: measure this artifact offline"):
        _serve(tmp_path, "Int8StaticActivationInt8WeightConfig")


def test_served_in_the_type_it_was_made_in(tmp_path: Path) -> None:
    """Another is refused; the CPU's own is the artifact's."""
    assert _serve(tmp_path, "Int8WeightOnlyConfig").argv
    with pytest.raises(UserError, match="in float32 only, not in bfloat16"):
        _serve(tmp_path, "Int8WeightOnlyConfig", dtype="bfloat16")
