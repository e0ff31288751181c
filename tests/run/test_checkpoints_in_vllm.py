"""Checkpoints as others publish them, in vLLM: GPTQ, AWQ, compressed-tensors and a fine-tune, named as anybody's."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file, save_file

from bench.contract.spec import Model
from bench.envs import environment
from bench.machine import hardware as machine
from bench.models import resolve
from bench.run import artifacts
from bench.store import Store
from tests.conftest import ROOT
from tests.run import fake_runs

_STEPS: dict[str, dict[str, Any]] = {
    "gptq": {"method": "gptq", "bits": 4, "group_size": 128, "samples": 16, "length": 128},
    "awq": {"method": "awq", "bits": 4, "group_size": 128, "samples": 4, "length": 128},
    "compressed-tensors": {"method": "llmcompressor", "scheme": "w4a16", "group_size": 128, "algorithm": "rtn"},
}
_ENGINE = {"name": "vllm", "dtype": "bfloat16", "context": 256, "sequences": 4, "kv_cache_gib": 0.0625}
_TASK = {"task": "perplexity", "context": 128, "tokens": 256}


@pytest.mark.engine
@pytest.mark.slow
@pytest.mark.needs("hf", "llmcompressor", "vllm")
def test_vllm_judges_what_others_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each beside the baseline: audited as what it is, loaded from its own settings, and near the model it is of."""
    if "avx512f" not in machine.detect("cpu").isa:
        pytest.skip("vLLM's CPU kernels for packed weights need AVX-512")
    for name in ("hf", "llmcompressor", "vllm"):
        monkeypatch.setenv(f"LLM_BENCH_PYTHON_{name.upper()}", environment.ensure(name, _print).python)
    monkeypatch.setenv("LLM_BENCH_CACHE", str(tmp_path / "cache"))  # environments are of the user's own
    folders = {name: _packed(name, tmp_path) for name in _STEPS}
    folders["hf"] = _tuned(tmp_path / "tuned")
    theirs = [{"name": name, "checkpoint": str(folder)} for name, folder in folders.items()]
    suite = fake_runs.suite(recipes=["baseline", *theirs], engines=[_ENGINE], tasks=[_TASK])

    results = {r.cell.recipe.name: r for r in fake_runs.run(suite, Store(tmp_path / "results"))}
    perplexity = {name: r.metrics.get("perplexity", 0.0) for name, r in results.items()}

    assert {name: (r.status, r.reason) for name, r in results.items()} == dict.fromkeys(results, ("ok", ""))
    for name in folders:
        artifact = results[name].artifact
        assert artifact is not None
        assert (artifact.format, artifact.steps) == (name, ())
        assert artifact.audit.quantized_fraction == (0.0 if name == "hf" else 1.0)
        assert perplexity[name] == pytest.approx(perplexity["baseline"], rel=0.2)
    assert len({round(value, 6) for value in perplexity.values()}) == len(results)  # each is its own weights'
    assert "WNA16" in results["gptq"].receipts["kernel"]


def _packed(name: str, tmp_path: Path) -> Path:
    """The demo model by one of this project's methods, in a folder that knows nothing of it."""
    (recipe,) = fake_runs.suite(recipes=[{"name": name, "steps": [_STEPS[name]]}], tasks=[_TASK]).recipes
    hardware, resolved = machine.detect("cpu"), resolve.resolve(Model("models/demo"), fetch=False)
    built = artifacts.make(artifacts.steps_for(recipe, hardware, resolved.format), resolved, hardware, _print)
    shutil.copytree(built.folder, tmp_path / name)
    return tmp_path / name


def _tuned(folder: Path) -> Path:
    """The demo model with other weights of the same shapes."""
    shutil.copytree(ROOT / "models/demo", folder, ignore=shutil.ignore_patterns("*.py", "*.csv", "*.md"))
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"] = tensors["model.norm.weight"] * tensors["model.norm.weight"].dtype.type(0.9)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def _print(text: str) -> None:
    print(text, file=sys.stderr)  # noqa: T201
