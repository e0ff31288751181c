"""The hf engine on the demo model, against Transformers used by hand in the same environment."""

from __future__ import annotations

import json
import os
import subprocess
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from bench.contract.record import Gpu, Hardware
from bench.contract.spec import Cell, EngineSpec, Model, Recipe
from bench.engines import hf

_ROOT = Path(__file__).resolve().parents[2]
_NEW = 24


@pytest.fixture(scope="module")
def checks(hf_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What hf_checks.py saw, on 20,000 tokens of the file LLM_BENCH_WIKITEXT names or else of the stdlib."""
    text = os.environ.get("LLM_BENCH_WIKITEXT")
    corpus = f"path:{text}" if text else "stdlib"
    done = subprocess.run(
        [hf_python, _ROOT / "tests/engines/hf_checks.py", _ROOT / "models/demo", corpus, "20000"],
        cwd=tmp_path_factory.mktemp("hf"),
        env={**os.environ, "PYTHONPATH": str(_ROOT), "GPTQMODEL_CPU_WORKERS": "2", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=3600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.engine
@pytest.mark.parametrize("which", [0, 1], ids=["512", "1024"])
def test_perplexity_is_that_of_a_plain_loop(checks: Any, which: int) -> None:
    """Ours equals exp of the mean loss of `model(ids, labels=ids)` over the same windows, to 1e-5 of it."""
    found = checks["perplexity"][which]

    assert found["ours"] == pytest.approx(found["plain"], rel=1e-5)


@pytest.mark.engine
@pytest.mark.parametrize("which", [0, 1], ids=["batch1", "batch3"])
def test_generate_makes_the_greedy_tokens_one_step_at_a_time(checks: Any, which: int) -> None:
    """Exactly the asked steps, stamped in order, with the tokens of a plain loop without a cache."""
    found = checks["generate"][which]

    assert found["tokens"] == found["plain"]
    assert len(found["times"]) == _NEW
    assert all(a < b for a, b in pairwise(found["times"]))


@pytest.mark.engine
@pytest.mark.parametrize("which", [0, 1], ids=["batch1", "batch3"])
def test_memory_is_the_tensors_own(checks: Any, which: int) -> None:
    """Weights count a tied head once; the cache holds every token but the last one made."""
    found = checks["generate"][which]

    assert found["memory"] == {k: found[k] for k in ("kv_bytes", "weights_bytes")}


@pytest.mark.engine
def test_no_end_token_and_no_penalty_of_the_checkpoint_applies(checks: Any) -> None:
    """A checkpoint that would stop after two tokens and penalize repetition makes all tokens all the same."""
    found = checks["eos"]

    assert found["stopping_steps"] < _NEW
    assert found["ours"] == found["plain"]


@pytest.mark.engine
def test_receipts_say_what_ran(checks: Any) -> None:
    """Dtype, attention and cache are the loaded model's; eager attention, static cache: the same tokens."""
    usual, other, narrow = checks["variants"]

    expected = {
        "kernel": "Linear x36",
        "weight_dtype": "float32 100%",
        "compute_dtype": "float32",
        "attention": "sdpa",
        "kv_dtype": "float32 100%",
        "threads": "1",
    }
    assert {key: usual["receipts"][key] for key in expected} == expected
    assert (other["receipts"]["attention"], other["receipts"]["cache"]) == ("eager", "static")
    assert other["tokens"] == usual["tokens"]
    assert narrow["receipts"]["weight_dtype"].startswith("bfloat16")
    assert narrow["receipts"]["compute_dtype"] == "bfloat16"
    assert narrow["memory"]["weights_bytes"] == pytest.approx(usual["memory"]["weights_bytes"] / 2, rel=1e-3)


@pytest.mark.engine
def test_logits_in_blocks_are_those_of_one_pass(checks: Any) -> None:
    """One block of 300 rows is the plain pass; five over a KV cache differ by rounding only."""
    assert checks["blocks"]["1"] == 0.0
    assert checks["blocks"]["5"] < 1e-4


@pytest.mark.engine
def test_nf4_computes_in_the_dtype_asked_for(checks: Any) -> None:
    """The artifact's config says bfloat16, the option float32: float32 it is, on 4-bit weights."""
    found = checks["nf4"]

    assert found["steps"] == 4
    assert found["receipts"]["kernel"] == "Linear4bit x35, Linear x1"
    assert found["receipts"]["compute_dtype"] == "float32"
    assert "uint8" in found["receipts"]["weight_dtype"]
    whole = checks["generate"][0]["memory"]["weights_bytes"]
    assert found["memory"]["weights_bytes"] < 0.4 * whole


@pytest.mark.engine
@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("cut", "a .safetensors file of the artifact is damaged"),
        ("lacking", "lack 18 tensors of its config.json"),
        ("misshapen", "have the wrong shape for 1 tensors"),
        ("alien", "model type `zorgon` but Transformers does not recognize"),
        ("bare", "no config.json"),
        ("long", "1028 tokens do not fit the model's context of 1024"),
    ],
)
def test_what_cannot_run_is_one_sentence_without_a_path(checks: Any, how: str, words: str) -> None:
    """Transformers would fill missing tensors with noise and log it: here it is an error like the others."""
    sentence = checks["broken"][how]

    assert words in sentence
    assert len(sentence.splitlines()) == 1
    assert "/hf" not in sentence


def _hardware(capability: str = "", dtype: str = "bfloat16") -> Hardware:
    gpus = (Gpu(0, "GPU", 1, capability, "1"),) if capability else ()
    return Hardware("cuda:0" if gpus else "cpu", "s", "n", 1, "c", 2, 1, (), dtype, "Linux", gpus)


@pytest.mark.parametrize(
    ("hardware", "options", "reason"),
    [
        (_hardware(dtype="float32"), {}, None),
        (_hardware(dtype="float32"), {"attention": "flash_attention_2"}, "CUDA GPUs only"),
        (_hardware("7.5", "float16"), {"attention": "flash_attention_2"}, "capability 8.0"),
        (_hardware("9.0"), {"attention": "flash_attention_2"}, None),
        (_hardware("9.0"), {"attention": "flash_attention_2", "dtype": "float32"}, "16 bits only"),
    ],
)
def test_flash_attention_is_refused_where_it_cannot_run(
    hardware: Hardware, options: dict[str, str], reason: str | None
) -> None:
    """Known before anything is tried: no GPU, an old one, 32 bits."""
    cell = Cell(Model("m"), Recipe("r"), EngineSpec("hf", options), hardware.device)

    found = hf.unsupported(cell, "hf", hardware)

    assert (found is None) if reason is None else (reason in (found or ""))


def test_a_format_transformers_does_not_read_is_refused() -> None:
    """GGUF goes to llama.cpp."""
    cell = Cell(Model("m"), Recipe("r"), EngineSpec("hf"), "cpu")

    assert "gguf" in (hf.unsupported(cell, "gguf", _hardware()) or "")
