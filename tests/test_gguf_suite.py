"""GGUF from the front door: compressed, scored and timed on the real llama.cpp, beside Transformers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, Command

pytestmark = pytest.mark.engine

_TYPES = ("f16", "q8_0", "q4_k_m", "q2_k")
_SUITE = """
model: models/demo
recipes: [baseline, gguf-f16, gguf-q8_0, gguf-q4_k_m, gguf-q2_k, gguf-q2_k-imatrix]
engines: [hf, {name: llamacpp, threads: 1}]
workloads: [{batch: 2, prompt_tokens: 32, new_tokens: 8, repeats: 2}]
tasks:
  - {task: perplexity, context: 512, tokens: 8192}
  - {task: perplexity, convention: llama.cpp, context: 512, tokens: 8192}
  - {task: divergence, context: 512, tokens: 8192}
devices: [cpu]
rounds: 1
settle_s: 0
"""


@pytest.fixture(scope="module")
def pythons(hf_python: Path, llamacpp_python: Path) -> dict[str, str]:
    return {"LLM_BENCH_PYTHON_HF": str(hf_python), "LLM_BENCH_PYTHON_LLAMACPP": str(llamacpp_python)}


@pytest.fixture(scope="module")
def ran(pythons: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Records by 'recipe/what' of the suite above, and where its cache is."""
    home = tmp_path_factory.mktemp("gguf")
    (home / "gguf.yaml").write_text(_SUITE)
    argv = [sys.executable, "-m", "bench", "run", str(home / "gguf.yaml"), "--results", str(home / "results")]
    done = subprocess.run(
        argv,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
        env={**os.environ, **pythons, "LLM_BENCH_CACHE": str(home / "cache")},
    )
    assert done.returncode == 0, done.stderr
    assert "Rounds: 24 ok" in done.stderr
    records = [json.loads(f.read_text()) for f in (home / "results").rglob("r0.json")]
    result = {f"{r['cell']['recipe']['name']}/{_what(r['cell'])}": r for r in records}
    return {**result, "home": home, "table": done.stdout}


def test_the_two_engines_read_one_model(ran: dict[str, Any]) -> None:
    """llama.cpp's f16 against Transformers' float32: KL below 1e-4, the same top token in 99.5 %."""
    metrics = ran["gguf-f16/divergence"]["metrics"]

    assert 0 <= metrics["kl_mean"] < 1e-4
    assert metrics["top1_agreement_fraction"] > 0.995


def test_fewer_bits_diverge_more(ran: dict[str, Any]) -> None:
    """Mean KL grows from f16 to q2_k; bits per weight fall as the formats say; so does the file."""
    names = [f"gguf-{kind}" for kind in _TYPES]
    losses = [ran[f"{name}/divergence"]["metrics"]["kl_mean"] for name in names]
    audits = [ran[f"{name}/offline"]["artifact"]["audit"] for name in names]
    expected = [16.0, 8.5, 4.741, 2.93]

    assert losses == sorted(losses)
    assert [round(a["bits_per_weight"], 3) for a in audits] == pytest.approx(expected, abs=0.01)
    assert [a["quantized_fraction"] for a in audits] == [0.0, 1.0, 1.0, 1.0]
    assert audits[2]["tensor_types"].keys() == {"f32", "q4_K", "q6_K"}


def test_an_importance_matrix_helps_two_bits(ran: dict[str, Any]) -> None:
    """It weighs all 35 linear weights, costs no bit, and the model diverges less."""
    plain, weighed = (ran[f"gguf-q2_k{end}/divergence"] for end in ("", "-imatrix"))

    assert weighed["artifact"]["facts"]["imatrix_tensors"] == 35
    assert weighed["artifact"]["audit"]["weight_bytes"] == plain["artifact"]["audit"]["weight_bytes"]
    assert weighed["metrics"]["kl_mean"] < plain["metrics"]["kl_mean"]


def test_all_types_are_made_from_one_f16_file(ran: dict[str, Any]) -> None:
    """The cache holds the f16 file once; every quantized artifact names it as its first step."""
    artifacts = [json.loads(f.read_text()) for f in (ran["home"] / "cache").glob("artifacts/*/artifact.json")]
    steps = [[step["options"].get("type") for step in artifact["steps"]] for artifact in artifacts]

    assert steps.count(["f16"]) == 1
    assert ["f16", "q4_k_m"] in steps
    assert len([s for s in steps if s[0] == "f16"]) == 5


def test_perplexity_has_both_conventions_on_both_engines(ran: dict[str, Any]) -> None:
    """Under either convention the two engines agree on the unquantized model to 0.1 %."""
    for what in ("perplexity-hf", "perplexity-llama.cpp"):
        ours, theirs = (ran[f"{name}/{what}"]["metrics"]["perplexity"] for name in ("gguf-f16", "baseline"))
        assert ours == pytest.approx(theirs, rel=1e-3)
    assert ran["baseline/perplexity-llama.cpp"]["metrics"]["scored_tokens"] == 16 * 255


def test_receipts_say_what_llama_cpp_did(ran: dict[str, Any]) -> None:
    """Tensor types, threads, flash attention, context, batch and the build's own features are recorded."""
    receipts = ran["gguf-q4_k_m/offline"]["receipts"]

    assert "q4_K" in receipts["kernel"]
    assert (receipts["threads"], receipts["offloaded_layers"]) == ("1", "0: no GPU in use")
    assert receipts["flash_attention"].startswith(("on", "off"))
    assert receipts["context"] == "256 tokens x 2"
    assert "SSE3" in receipts["system"] or "NEON" in receipts["system"]
    assert ran["gguf-q4_k_m/offline"]["facts"]["compute_bytes"] > 0


def test_the_table_has_both_engines_and_the_noise_floor(ran: dict[str, Any]) -> None:
    """One table: rows of both engines, no row for a pair that cannot be, and the floor of the divergence."""
    assert "gguf-q4_k_m" in ran["table"]
    assert "does not load" not in ran["table"]
    assert "noise floor" in ran["table"]


def test_a_file_alone_is_run_scored_and_audited(
    ran: dict[str, Any], pythons: dict[str, str], command: Command, tmp_path: Path
) -> None:
    """Without a Hugging Face folder the vocabulary in the file gives the same ids, and so the same number."""
    artifact = ran["gguf-q8_0/perplexity-hf"]["artifact"]
    file = tmp_path / "alone.gguf"
    shutil.copyfile(ran["home"] / "cache/artifacts" / artifact["digest"] / "model/model.gguf", file)
    words = ["--task", "perplexity", "--context", "512", "--tokens", "8192", "--json"]
    done = command("eval", str(file), *words, **pythons)

    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    expected = ran["gguf-q8_0/perplexity-hf"]
    assert record["metrics"]["perplexity"] == pytest.approx(expected["metrics"]["perplexity"], rel=1e-6)
    assert record["metrics"]["bits_per_byte"] == pytest.approx(expected["metrics"]["bits_per_byte"], rel=1e-6)
    assert record["artifact"]["audit"]["linear_parameters"] == artifact["audit"]["linear_parameters"]
    assert str(tmp_path) not in done.stdout


def test_a_quantized_file_is_a_model_like_any(
    ran: dict[str, Any], pythons: dict[str, str], command: Command, tmp_path: Path
) -> None:
    """A baseline in plain floats is made of it, in which it was quantized to is said, and its own type is marked."""
    digest = ran["gguf-q8_0/perplexity-hf"]["artifact"]["digest"]
    shutil.copyfile(ran["home"] / "cache/artifacts" / digest / "model/model.gguf", tmp_path / "q8.gguf")
    (tmp_path / "of_file.yaml").write_text(
        "model: q8.gguf\nrecipes: [as-is, baseline, gguf-q8_0, gguf-q4_0, nf4, gguf-f16, {name: healed, steps: [\n"
        "{method: magnitude, sparsity: 0.3, dtype: auto}, {method: distill, tokens: 2048, dtype: auto}]}]\n"
        "engines: [hf, llamacpp]\n"
        "tasks: [{task: divergence, context: 512, tokens: 2048}]\nrounds: 1\nsettle_s: 0\n"
    )
    done = command("bench", "run", str(tmp_path / "of_file.yaml"), "--results", str(tmp_path / "results"), **pythons)

    assert done.returncode == 0, done.stderr
    records = [json.loads(file.read_text()) for file in (tmp_path / "results").rglob("r0.json")]
    scores = {r["cell"]["recipe"]["name"]: r for r in records if r["cell"]["task"]}
    kl = {name: record["metrics"]["kl_mean"] for name, record in scores.items()}
    assert kl["gguf-f16"] < 1e-4
    assert kl["as-is"] == pytest.approx(kl["gguf-q8_0"])
    assert kl["gguf-q8_0"] < 0.002 < min(kl["nf4"], kl["gguf-q4_0"])
    assert 0.002 < kl["healed"] < 1, "the teacher is what the file was dequantized to"
    assert [step["method"] for step in scores["nf4"]["artifact"]["steps"]] == ["dequantize", "bnb"]
    assert scores["nf4"]["artifact"]["audit"]["notes"] == ["its source is quantized: q8_0"]
    assert "q8.gguf: its baseline is dequantized from q8_0" in done.stdout.replace("\n", " ")
    assert "idempotent" in next(line for line in done.stdout.splitlines() if line.startswith("gguf-q8_0"))


def test_what_is_wrong_with_a_file_is_one_sentence(
    ran: dict[str, Any], pythons: dict[str, str], command: Command, tmp_path: Path
) -> None:
    """Cut short, no GGUF, a context longer than the model's, a type that does not exist: exit code 2 each."""
    digest = ran["gguf-q8_0/perplexity-hf"]["artifact"]["digest"]
    whole = (ran["home"] / "cache/artifacts" / digest / "model/model.gguf").read_bytes()
    files = {"cut": whole[:-100_000], "head": whole[:500], "text": b"hello\n" * 100, "whole": whole}
    for name, data in files.items():
        (tmp_path / f"{name}.gguf").write_bytes(data)
    results = {}
    for name in files:
        longer = ["--context", "4096"] if name == "whole" else []
        results[name] = command("eval", str(tmp_path / f"{name}.gguf"), *longer, **pythons)
    typo = ["--method", "gguf", "--type", "q4_k_x", "-o", str(tmp_path / "out")]
    results["type"] = command("quantize", "models/demo", *typo)

    words = {"cut": "cut short", "head": "cut short", "text": "not a GGUF file", "whole": "context", "type": "q4_k_x"}
    for name, done in results.items():
        assert done.returncode == 2, (name, done.stderr)
        lines = [line for line in done.stderr.splitlines() if line.startswith("error:")]
        assert len(lines) == 1, done.stderr
        assert words[name] in lines[0]
        assert "Traceback" not in done.stderr


def _what(cell: dict[str, Any]) -> str:
    """'offline', 'divergence', 'perplexity-hf' or 'perplexity-llama.cpp'; 'made' for an artifact's record."""
    task = cell.get("task")
    if not task:
        return "offline" if cell.get("workload") else "made"
    convention = f"-{task['options']['convention']}" if task["kind"] == "perplexity" else ""
    return f"{task['kind']}{convention}"
