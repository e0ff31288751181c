"""Chains of steps through the suite's own pipeline: real methods, real engines, the demo model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

pytestmark = pytest.mark.engine

_PRUNED = {"method": "structured", "what": "layers", "share": 0.4, "samples": 8, "length": 128}
_TRAINED = {"tokens": 32768, "length": 128, "batch": 8, "learning_rate": 0.0005}
_RTN = {"method": "torchao", "scheme": "intx-weight-only", "bits": 3, "group_size": 64}
_SUITE: dict[str, Any] = {
    "model": "models/demo",
    "recipes": [
        "baseline",
        {"name": "pruned", "steps": [_PRUNED]},
        {"name": "pruned-gguf", "steps": [_PRUNED, {"method": "gguf", "type": "f16"}]},
        {"name": "distilled", "steps": [_PRUNED, {"method": "distill", **_TRAINED}]},
        {
            "name": "distilled-gptq",
            "steps": [_PRUNED, {"method": "distill", **_TRAINED}, {"method": "gptq", "samples": 8, "length": 128}],
        },
        {"name": "ptq", "steps": [_RTN]},
        {"name": "qat", "steps": [{**_RTN, "method": "qat", **_TRAINED, "learning_rate": 0.0003}]},
    ],
    "engines": ["hf", "llamacpp"],
    "tasks": [
        {"task": "perplexity", "corpus": "stdlib", "context": 256, "tokens": 8192},
        {"task": "divergence", "corpus": "stdlib", "context": 256, "tokens": 4096},
    ],
    "settle_s": 0,
}


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory, hf_python: Path, llamacpp_python: Path) -> Any:
    """The table's rows by recipe, as JSON gives them."""
    home = tmp_path_factory.mktemp("chains")
    python = {"LLM_BENCH_PYTHON_HF": str(hf_python), "LLM_BENCH_PYTHON_LLAMACPP": str(llamacpp_python)}
    return _table(home, python)


def _table(home: Path, python: dict[str, str]) -> Any:
    suite = home / "chains.yaml"
    suite.write_text(yaml.safe_dump(_SUITE))
    results = {}
    for verb in (["run", str(suite)], ["table", str(suite), "--format", "json"]):
        done = subprocess.run(
            [sys.executable, "-m", "bench", *verb, "--results", str(home / "results")],
            capture_output=True,
            text=True,
            check=False,
            timeout=900,
            env={**os.environ, "LLM_BENCH_CACHE": str(home / "cache"), **python},
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        results = {"text": done.stdout}
    return {row["recipe"]: row for row in json.loads(results["text"])["rows"]}


def _read(row: dict[str, Any], metric: str) -> float:
    tasks = row["tasks"]
    result = [entry["figures"][metric]["median"] for entry in tasks.values() if metric in entry["figures"]]
    return float(result[0])


def test_llama_cpp_runs_a_pruned_model_unchanged(rows: Any) -> None:
    """Three of five layers, in GGUF by llama.cpp's own script: Transformers' perplexity to 0.1 %."""
    there, here = (_read(rows[name], "perplexity") for name in ("pruned-gguf", "pruned"))

    assert there == pytest.approx(here, rel=1e-3)
    assert rows["pruned"]["audit"]["linear_parameters"] == 3 * 786_432


def test_pruned_then_distilled_then_quantized_is_one_recipe(rows: Any) -> None:
    """Training wins back most of the divergence, and 4 bits lose little of it again."""
    lost = {name: _read(rows[name], "kl_mean") for name in ("pruned", "distilled", "distilled-gptq")}

    assert lost["distilled"] < 0.7 * lost["pruned"]
    assert lost["distilled"] < lost["distilled-gptq"] < 0.9 * lost["pruned"]
    assert 4.2 < rows["distilled-gptq"]["audit"]["bits_per_weight"] < 4.3


def test_training_with_rounded_weights_beats_rounding_them(rows: Any) -> None:
    """QAT against round-to-nearest of the same scheme: the same bits, at most the same perplexity."""
    assert rows["qat"]["audit"]["bits_per_weight"] == rows["ptq"]["audit"]["bits_per_weight"]
    assert _read(rows["qat"], "perplexity") <= _read(rows["ptq"], "perplexity")
    assert _read(rows["qat"], "kl_mean") <= _read(rows["ptq"], "kl_mean")


def test_only_what_kept_its_weights_is_a_noise_floor(rows: Any) -> None:
    """A pruned or trained model is in float32 too, and is no floor."""
    assert rows["baseline"]["whole"]
    assert not any(row["whole"] for name, row in rows.items() if name != "baseline")


def test_a_training_step_that_was_killed_goes_on_where_it_was(tmp_path: Path, hf_python: Path) -> None:
    """What it had trained is in the cache: the second run goes on from there, and leaves nothing."""
    words = ["models/demo", "--method", "distill", "--tokens", "131072", "-o", str(tmp_path / "out")]
    variables = {"LLM_BENCH_CACHE": str(tmp_path / "cache"), "LLM_BENCH_PYTHON_HF": str(hf_python)}
    started = [sys.executable, "-m", "quantize", *words]
    with subprocess.Popen(started, env={**os.environ, **variables}, stderr=subprocess.PIPE, text=True) as first:
        deadline = time.monotonic() + 240
        while not (files := list(tmp_path.glob("cache/artifacts/*.work/last.pt"))) and time.monotonic() < deadline:
            time.sleep(0.2)
        first.kill()
    assert files
    done = subprocess.run(
        started, env={**os.environ, **variables}, capture_output=True, text=True, check=False, timeout=900
    )

    assert done.returncode == 0, done.stderr
    document = json.loads((tmp_path / "out" / "llm-bench.json").read_text())
    assert document["facts"]["resumed_at_steps"][0] > 0
    assert document["facts"]["train_steps"] == 64
    assert "distill: step" in done.stderr
    assert not list(tmp_path.glob("cache/artifacts/*.work"))
