"""ONNX from the front door: built, scored and timed on the real ONNX Runtime, beside Transformers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from bench.envs import environment
from tests.conftest import ROOT

pytestmark = [pytest.mark.engine, pytest.mark.needs("hf", "onnx")]

_SUITE = """
model: models/demo
recipes: [baseline, onnx-fp32, onnx-int8, onnx-int8-dynamic, onnx-int4]
engines: [hf, {name: onnxruntime, threads: 1}]
workloads: [{batch: 2, prompt_tokens: 32, new_tokens: 8, repeats: 2}]
tasks:
  - {task: perplexity, context: 512, tokens: 4096}
  - {task: divergence, context: 512, tokens: 4096}
devices: [cpu]
rounds: 1
settle_s: 0
"""


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Records by 'recipe/what' of the suite above."""
    pythons = {f"LLM_BENCH_PYTHON_{name.upper()}": environment.ensure(name, print).python for name in ("hf", "onnx")}
    home = tmp_path_factory.mktemp("onnx")
    (home / "onnx.yaml").write_text(_SUITE)
    done = subprocess.run(
        [sys.executable, "-m", "bench", "run", str(home / "onnx.yaml"), "--results", str(home / "results")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
        env={**os.environ, **pythons, "LLM_BENCH_CACHE": str(home / "cache")},
    )
    assert done.returncode == 0, done.stderr
    records = [json.loads(file.read_text()) for file in (home / "results").rglob("r0.json")]
    assert {record["status"] for record in records} == {"ok"}
    return {f"{r['cell']['recipe']['name']}/{_what(r['cell'])}": r for r in records}


def test_fp32_is_the_model_that_transformers_runs(ran: dict[str, Any]) -> None:
    """Perplexity to 1e-3 and better, KL nearly nothing, the same top token everywhere."""
    ours, theirs = (ran[f"{name}/perplexity"]["metrics"]["perplexity"] for name in ("onnx-fp32", "baseline"))
    metrics = ran["onnx-fp32/divergence"]["metrics"]

    assert ours == pytest.approx(theirs, rel=1e-5)
    assert abs(metrics["kl_mean"]) < 1e-6
    assert metrics["top1_agreement_fraction"] > 0.999


@pytest.mark.parametrize(
    ("recipe", "bits", "fraction", "head", "kernel"),
    [
        ("onnx-fp32", 32.0, 0.0, "tied", "MatMul x26"),
        ("onnx-int8", 9.0, 1.0, "stored", "MatMulNBits x26"),  # 8 + a 32-bit scale for 32; the head with them
        ("onnx-int8-dynamic", 8.136, 1.0, "stored", "DynamicQuantizeMatMul x16, MatMulIntegerToFloat x10"),
        ("onnx-int4", 5.0, 1.0, "tied", "MatMulNBits x26"),
    ],
)
def test_weights_are_stored_and_multiplied_as_asked(
    ran: dict[str, Any], recipe: str, bits: float, fraction: float, head: str, kernel: str
) -> None:
    """The files by the audit, and the operators that ran by ONNX Runtime's own profile."""
    record = ran[f"{recipe}/offline"]
    result = record["artifact"]["audit"]

    assert result["bits_per_weight"] == pytest.approx(bits, abs=1e-3)
    assert (result["quantized_fraction"], result["tied_head"]) == (fraction, head == "tied")
    assert record["receipts"]["kernel"] == kernel


def test_every_node_ran_where_it_was_asked_to(ran: dict[str, Any]) -> None:
    """On the CPU, by the profile; attention is one operator, and the thread the one that was asked for."""
    for recipe in ("onnx-fp32", "onnx-int8", "onnx-int8-dynamic", "onnx-int4"):
        receipts = ran[f"{recipe}/offline"]["receipts"]
        assert "CPUExecutionProvider" in receipts["execution_provider"]
        assert "," not in receipts["execution_provider"]
        assert (receipts["threads"], receipts["attention"]) == ("1", "GroupQueryAttention x5")


def test_fewer_bits_diverge_more(ran: dict[str, Any]) -> None:
    """8 bits below 0.01 nats, dynamic ones too, whose products overflow where weights are signed."""
    losses = {
        recipe: ran[f"onnx-{recipe}/divergence"]["metrics"]["kl_mean"] for recipe in ("int8", "int8-dynamic", "int4")
    }

    assert 0 < losses["int8"] < losses["int8-dynamic"] < losses["int4"] < 0.1
    assert losses["int8-dynamic"] < 0.01


def _what(cell: dict[str, Any]) -> str:
    """'offline' or the task; 'made' for an artifact's record."""
    task = cell.get("task")
    return str(task["kind"]) if task else "offline" if cell.get("workload") else "made"
