"""Pruning of architectures other than Llama's: each kind of layer, transposed weights, layers of any name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, json_of

_NAMES = ("gemma3", "gpt2", "gpt_neox", "mamba")
pytestmark = [pytest.mark.engine, pytest.mark.slow]


@pytest.fixture(scope="module")
def checks(hf_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What architecture_checks.py observed."""
    return json_of(
        hf_python,
        "quantize/architecture_checks.py",
        ROOT / "models/demo",
        cwd=tmp_path_factory.mktemp("architectures"),
        timeout=1200,
        variables={"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"},
    )


@pytest.mark.parametrize("name", _NAMES)
def test_layer_by_layer_is_a_whole_pass(checks: Any, name: str) -> None:
    """Gemma 3 calls windowed layers and the others with masks and rotary positions of their own."""
    assert checks[name]["states"] < 1e-4


@pytest.mark.parametrize("name", _NAMES)
def test_half_of_the_weights_are_zero_and_stored_as_before(checks: Any, name: str) -> None:
    """GPT-2's layers are no torch.nn.Linear, and were left as they are in silence."""
    assert checks[name]["modules"] > 0
    assert checks[name]["same_names"]
    assert 0.1 < checks[name]["zeros"] <= 0.51  # a head of its own is not pruned


@pytest.mark.parametrize("name", _NAMES)
def test_a_layer_is_cut_out(checks: Any, name: str) -> None:
    """Whatever its attention is called; the config counts the layers that are left under its own name for them."""
    assert checks[name]["layers"] == 2
    assert checks[name]["planned_linears"]
    assert checks[name]["cut_logits"] < 1e-3
