"""The commands of the README on the real engine, started as a user starts them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import Command

pytestmark = pytest.mark.engine

_SUITE = """
model: models/demo
recipes: [baseline, nf4]
engines: [hf]
workloads: [{batch: 2, prompt_tokens: 32, new_tokens: 8, repeats: 2}]
tasks: [{task: perplexity, context: 256, tokens: 8192}]
devices: [cpu]
rounds: 1
settle_s: 0
"""


def test_a_suite_on_the_real_engine_ends_in_records_that_hold(
    command: Command, hf_python: Path, tmp_path: Path
) -> None:
    """Both recipes are scored and timed; NF4 ran in 4-bit kernels, costs some quality, and not 30 %."""
    file = tmp_path / "real.yaml"
    file.write_text(_SUITE)
    done = command("bench", "run", str(file), LLM_BENCH_PYTHON_HF=str(hf_python))

    assert done.returncode == 0, done.stderr
    assert "Rounds: 4 ok; 0 recorded before" in done.stderr
    records = [json.loads(f.read_text()) for f in tmp_path.rglob("quality/**/r0.json")]
    scores = {r["cell"]["recipe"]["name"]: r["metrics"]["perplexity"] for r in records}
    assert 0.995 < scores["nf4"] / scores["baseline"] < 1.3
    timed = {
        r["cell"]["recipe"]["name"]: r
        for f in tmp_path.rglob("serving/**/r0.json")
        for r in [json.loads(f.read_text())]
    }
    assert "Linear4bit x35" in timed["nf4"]["receipts"]["kernel"]
    assert timed["baseline"]["receipts"]["compute_dtype"] == "float32"
    assert (round(_bits(timed["nf4"]), 2), _bits(timed["baseline"])) == (4.51, 32.0)
    assert all(r["metrics"]["ttft_s"] > 0 and r["metrics"]["tpot_s"] > 0 for r in timed.values())


def test_quantize_then_eval_without_a_suite(command: Command, hf_python: Path, tmp_path: Path) -> None:
    """`python -m quantize` writes a folder that `python -m eval` scores; both say what they did."""
    python = {"LLM_BENCH_PYTHON_HF": str(hf_python)}
    out = tmp_path / "demo-gptq"
    words = ["models/demo", "--method", "gptq", "--bits", "4", "--group-size", "128", "--samples", "8"]
    outcome = command("quantize", *words, "--length", "256", "-o", str(out), **python)

    assert outcome.returncode == 0, outcome.stderr
    assert "bits/weight    4.2" in outcome.stdout
    assert {"model.safetensors", "tokenizer.model", "llm-bench.json"} <= {f.name for f in out.iterdir()}
    task = ["--task", "perplexity", "--corpus", "stdlib", "--context", "256", "--tokens", "4096"]
    scored = command("eval", str(out), *task, **python)
    assert scored.returncode == 0, scored.stderr
    assert "TorchAtenLinear x35" in scored.stdout
    assert "bits per byte" in scored.stdout
    again = command("quantize", *words, "-o", str(out), **python)
    assert again.returncode == 2
    assert "exists and is not empty" in again.stderr


@pytest.mark.needs
def test_options_a_method_lacks_are_refused_by_name(command: Command, tmp_path: Path) -> None:
    """What a method does not have or cannot do is a sentence each, and exit code 2."""
    for words, sentence in (
        (["--method", "awq", "--bits", "8"], "awq.bits: input should be 4"),
        (["--method", "gptq", "--groupsize", "64"], "did you mean 'group_size'"),
        (["--method", "gptp"], "did you mean 'gptq'"),
        (["--method", "gptq", "--group-size", "512"], "group_size 512 does not divide"),
    ):
        done = command("quantize", "models/demo", *words, "-o", str(tmp_path / "out"))
        assert done.returncode == 2, done.stderr
        assert sentence in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1


def _bits(record: dict[str, dict[str, dict[str, float]]]) -> float:
    return record["artifact"]["audit"]["bits_per_weight"]
