"""Packed weights on the hf engine: what its kernel rounds to is told, and can be left out of a score."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.contract.record import Hardware
from bench.contract.spec import Cell, EngineSpec, Model, Recipe, Task
from bench.contract.workload import Offline
from bench.engines import hf
from bench.measure import roofline
from bench.run import task_inputs
from tests.conftest import json_of

_CPU = Hardware("cpu", "cpu", "cpu", 0, "cpu", 2, 0, (), "float32", "linux")


@pytest.fixture(scope="module")
def checks(hf_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What hf_packed_checks.py saw."""
    cwd, variables = tmp_path_factory.mktemp("packed"), {"GPTQMODEL_CPU_WORKERS": "2", "HF_HUB_OFFLINE": "1"}
    return json_of(hf_python, "engines/hf_packed_checks.py", cwd=cwd, variables=variables)


@pytest.mark.engine
@pytest.mark.parametrize("kind", ["gptq", "awq"])
def test_receipts_tell_what_the_kernel_rounds_to(checks: Any, kind: str) -> None:
    """Activations are float32 and products bfloat16, which shows in the logits."""
    check = checks[kind]["kernel"]

    assert check["receipts"]["compute_dtype"] == "float32"
    assert check["receipts"]["product_dtype"].startswith("bfloat16 in TorchAten")
    assert roofline.product_dtypes(check["receipts"]) == ("bfloat16", "float32")
    assert 1e-3 < check["difference"] < 0.2


@pytest.mark.engine
@pytest.mark.parametrize("kind", ["gptq", "awq"])
def test_a_score_can_be_of_the_weights_as_they_are_stored(checks: Any, kind: str) -> None:
    """With `exact` the logits are those of scales times codes less zero points in float32, and no rounding is told."""
    check = checks[kind]["exact"]

    assert check["difference"] < 1e-5
    assert "product_dtype" not in check["receipts"]


def test_exact_is_for_scores_of_packed_weights_on_a_cpu() -> None:
    """It would measure a kernel that no one runs, or change nothing."""
    cell = Cell(Model("m"), Recipe("r"), EngineSpec("hf", {"exact": True}), "cpu", task=Task("perplexity", {}, "p"))
    timed = replace(cell, task=None, workload=Offline())

    assert hf.unsupported(cell, "gptq", _CPU) is None
    assert "exact is for scores" in (hf.unsupported(cell, "hf", _CPU) or "")
    assert "exact is for scores" in (hf.unsupported(timed, "gptq", _CPU) or "")


def test_an_engine_that_does_not_ask_for_it_keeps_its_digest() -> None:
    """Records of before have no such option."""
    plain, default, exact = (task_inputs.engine_key(EngineSpec("hf", o), "gptq") for o in _OPTIONS)

    assert plain == default
    assert exact != default


_OPTIONS: tuple[dict[str, bool], ...] = ({}, {"exact": False}, {"exact": True})
