"""Architectures with and without scaled dot products, keys and values, or causality, on the hf engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, json_of

_DECODERS = ("mamba", "rwkv", "jamba", "bamba", "bloom", "gemma2", "gptj", "opt")
_WITH_SDPA = {"jamba", "bamba", "opt"}
pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def checks(hf_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What hf_architecture_checks.py saw."""
    return json_of(
        hf_python,
        "engines/hf_architecture_checks.py",
        ROOT / "models/demo",
        cwd=tmp_path_factory.mktemp("architectures"),
        timeout=1200,
        variables={"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"},
    )


@pytest.mark.parametrize("name", _DECODERS)
def test_a_model_runs_with_the_attention_that_it_has(checks: Any, name: str) -> None:
    """Nothing was asked for: scaled dot products where the architecture has them, else eager, and receipts say it."""
    assert checks[name]["attention"] == ("sdpa" if name in _WITH_SDPA else "eager")


@pytest.mark.parametrize("name", _DECODERS)
def test_logits_in_blocks_are_those_of_a_whole_pass(checks: Any, name: str) -> None:
    """Where a model keeps a state besides keys and values, too: Jamba and Bamba forget it where a chunk ends."""
    assert checks[name]["logits"] < 1e-3


@pytest.mark.parametrize("name", _DECODERS)
def test_choices_and_continuations_are_those_of_each_alone(checks: Any, name: str) -> None:
    """Padding enters no state, and a mask of three dimensions is kept from models that take none."""
    assert checks[name]["choices"] < 1e-3
    assert checks[name]["continued"] == checks[name]["greedy"]


@pytest.mark.parametrize("name", _DECODERS)
def test_decoders_are_scored(checks: Any, name: str) -> None:
    """No later token moves an earlier one's logits."""
    assert checks[name]["perplexity"] < 1e-3


def test_an_encoder_is_not_scored_as_a_language_model(checks: Any) -> None:
    """BERT loads, and its perplexity would be a number: it has read what it is asked for."""
    assert "no causal language model" in checks["bert"]["perplexity"]
