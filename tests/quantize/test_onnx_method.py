"""What the onnx method refuses before it runs; test_onnx_suite.py has what it makes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench import formats
from bench.contract import plugins
from bench.contract.record import Hardware, Source

_DEMO = Path(__file__).resolve().parents[2] / "models" / "demo"
_CPU = Hardware("cpu", "cpu", "cpu", 0, "cpu", 2, 0, (), "float32", "linux")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"precision": "fp16"}, "precision fp16 is not supported on cpu: use one of fp32, int8"),
        ({"provider": "cuda"}, "provider cuda needs an NVIDIA GPU"),
        ({"precision": "fp32", "algorithm": "rtn"}, "algorithm rtn is for int8 and int4, not for fp32"),
        ({"precision": "int8", "algorithm": "k_quant_mixed"}, "use precision int4"),
        ({"symmetric": False}, "does not load where symmetric is false: use algorithm rtn"),
        ({"symmetric": False, "algorithm": "rtn"}, ""),
        ({}, ""),
    ],
)
def test_what_cannot_be_made_is_said_beforehand(options: dict[str, Any], reason: str) -> None:
    """Precisions without a provider, and names that the builder takes for one precision only."""
    method = plugins.load(plugins.METHODS, "onnx")
    refusal = method.unsupported(method.Options(**options), formats.source(_DEMO), _CPU)

    assert reason in (refusal or "")
    assert bool(refusal) == bool(reason)


def test_blocks_that_do_not_divide_the_model_are_named() -> None:
    """The embedding that the head shares is cut along the hidden size."""
    method = plugins.load(plugins.METHODS, "onnx")
    source = Source("hf", {}, {"hidden_size": 96})

    assert "block_size 64 does not divide" in (method.unsupported(method.Options(block_size=64), source, _CPU) or "")


def test_packed_weights_stay_as_they_are() -> None:
    """A GPTQ model is taken over in 4 bits, and not unpacked into another precision."""
    method = plugins.load(plugins.METHODS, "onnx")
    source = Source("gptq", {}, {"hidden_size": 256})

    assert "over as int4" in (method.unsupported(method.Options(precision="int8"), source, _CPU) or "")
    assert method.unsupported(method.Options(block_size=128), source, _CPU) is None
