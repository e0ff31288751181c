"""One layer quantized at a time: passes from the middle equal whole ones, and what is done is not done again."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from bench.contract import plugins
from bench.contract.errors import UserError
from bench.run import plan as planner
from bench.suite import config
from eval.stats import paired
from tests.conftest import ROOT, Command, json_of

DEMO = ROOT / "models" / "demo"
TASK = plugins.load(plugins.TASKS, "sensitivity")
FACTS: dict[str, Any] = {
    "sha256": "a",
    "context": 256,
    "convention": "hf",
    "tokens": 768,
    "windows": 3,
    "window_tokens": [255, 255, 255],
    "reference": {"digest": "r", "engine": "hf", "artifact": "b"},
    "units": ["model.layers.0.mlp.up_proj", "model.layers.10.mlp.up_proj", "model.layers.2.mlp.up_proj"],
    "unit_blocks": ["0", "10", "2"],
    "unit_kinds": ["up_proj"] * 3,
    "unit_parameters": [4, 4, 4],
    "unit_window_kl": [[2.55, 5.1, 2.55], [0.255, 0.255, 0.51], [0.0, 0.0, 0.0]],
    "window_kl_sum": [2.805, 5.355, 3.06],
    "window_kl_all": [2.55, 5.61, 2.55],
    "layers_quantized": 3,
    "block_passes": 30,
    "block_passes_whole": 60,
}


@pytest.fixture(scope="module")
def checked(hf_python: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What layers_checks.py saw in the hf environment."""
    work = tmp_path_factory.mktemp("layers")
    return dict(json_of(hf_python, "eval/layers_checks.py", DEMO, work, cwd=work))


@pytest.mark.engine
@pytest.mark.parametrize("model", ["demo", "gpt2", "gemma3"])
def test_a_pass_from_the_middle_is_a_whole_one(checked: dict[str, Any], model: str) -> None:
    """Within 1e-6 nats a token of a whole forward with the layer replaced, in float64, for every layer."""
    its = checked[model]

    assert its["worst"] < 1e-6
    assert its["most"] > 1e-4
    assert its["least"] > 0
    assert its["unchanged"] == 0.0
    assert its["starts"] == sorted(its["starts"])
    assert max(its["starts"]) > 0


@pytest.mark.engine
def test_an_interrupted_measurement_goes_on(checked: dict[str, Any]) -> None:
    """Six layers are read from the work folder, a line that was broken off is not, and all figures are the same."""
    its = checked["interrupted"]

    assert its["resumed"] == 6
    assert its["units"] == 36
    assert its["same"]
    assert its["of_another_key"] == 0


@pytest.mark.engine
def test_layers_are_grouped_by_kind_and_by_block(checked: dict[str, Any]) -> None:
    """The embedding that is the head too is one layer with it; its parameters count once."""
    by_layer, by_kind, by_block = (checked["units"][by] for by in ("layer", "kind", "block"))

    assert len(by_layer) == 36
    assert ["lm_head", "outside", "lm_head", 0, 4096 * 256] in by_layer
    assert ["model.layers.3.mlp.down_proj", "3", "down_proj", 3, 256 * 768] in by_layer
    assert {kind for _, block, kind, _, _ in by_kind if block == "all"} == {
        *("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "lm_head")
    }
    assert [(block, start) for _, block, _, start, _ in by_block if block != "outside"] == [
        (str(i), i) for i in range(5)
    ]
    assert {sum(unit[4] for unit in its) for its in (by_layer, by_kind, by_block)} == {sum(u[4] for u in by_layer)}


@pytest.mark.engine
def test_layers_that_are_stored_in_16_bits_alone_are_not_quantized(checked: dict[str, Any]) -> None:
    """Nor between casts to float32, as a GPU's layers are given: of one rounded layer there is one unit."""
    assert checked["in_16_bits"] == ["model.layers.2.mlp.up_proj"]


@pytest.mark.engine
def test_a_model_whose_norms_were_changed_is_refused(checked: dict[str, Any]) -> None:
    """Scales moved between layers belong to no layer alone; a norm in 16 bits is the same norm."""
    scaled, smaller, half = checked["refused"]

    assert "moves scales between layers (awq, SmoothQuant)" in scaled
    assert "another shape than the baseline's" in smaller
    assert half == ""


@pytest.mark.engine
@pytest.mark.slow
def test_the_command_prints_layers_and_their_sum(command: Command, hf_python: Path, llamacpp_python: Path) -> None:
    """Two methods on the demo model, in Transformers and by the file's own weights; the second call is the record."""
    pythons = {"LLM_BENCH_PYTHON_HF": str(hf_python), "LLM_BENCH_PYTHON_LLAMACPP": str(llamacpp_python)}
    words = ("--tokens", "512", "--context", "128", "--quiet", "--json")
    nf4 = command("quantize", "sensitivity", str(DEMO), "--method", "bnb", "--type", "nf4", *words, **pythons)
    gguf = command("quantize", "sensitivity", str(DEMO), "--method", "gguf", "--type", "q4_0", *words, **pythons)
    again = command("quantize", "sensitivity", str(DEMO), "--method", "bnb", "--type", "nf4", *words[:-1], **pythons)

    assert (nf4.returncode, gguf.returncode, again.returncode) == (0, 0, 0), nf4.stderr + gguf.stderr + again.stderr
    for done, layers in ((nf4, 35), (gguf, 37)):
        record = json.loads(done.stdout)
        assert record["metrics"]["layers_quantized"] == layers
        assert 0.5 < record["metrics"]["sum_over_all"] < 2
        assert record["metrics"]["block_passes_fraction"] < 0.75
        assert len(record["facts"]["unit_window_kl"][0]) == 4
    assert "all at once" in again.stdout
    assert "model.layers." in again.stdout


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--method", "nope"), "unknown method 'nope'"),
        (("--method", "bnb", "--by", "head"), "sensitivity.by: input should be 'layer', 'kind' or 'block'"),
        (("--method", "bnb", "--recipe", "nf4"), "give either --method or --recipe"),
        (("--recipe", "baseline"), "the baseline has no quantized layer"),
        (("--method", "onnx"), "no engine gives single layers of what onnx makes"),
        (("--method", "bnb", "--context", "4096"), "texts of 4096 tokens exceed the model's context of 1024"),
    ],
)
def test_a_wrong_word_is_one_sentence(command: Command, words: tuple[str, ...], sentence: str) -> None:
    """With exit code 2, and before anything is made."""
    done = command("quantize", "sensitivity", str(DEMO), *words, "--quiet")

    assert done.returncode == 2
    assert sentence in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_metrics_are_means_with_intervals_over_windows() -> None:
    """The sum over the layers, all of them at once, and the one over the other."""
    metrics = TASK.metrics(FACTS)
    mean, half = paired.per_token(FACTS["window_kl_sum"], FACTS["window_tokens"])

    assert metrics["kl_sum"] == mean == pytest.approx(11.22 / 765)
    assert metrics["kl_sum_high"] - metrics["kl_sum"] == pytest.approx(half)
    assert metrics["sum_over_all"] == pytest.approx(11.22 / 10.71)
    assert metrics["kl_most"] == pytest.approx(10.2 / 765)
    assert metrics["block_passes_fraction"] == 0.5
    assert all(math.isfinite(value) for value in metrics.values())


def test_parts_are_a_table_of_blocks_by_kinds() -> None:
    """Blocks in the order of their numbers, kinds across."""
    parts = TASK.parts(FACTS, None)

    assert [part.labels["block"] for part in parts] == ["0", "2", "10"]
    assert list(parts[0].labels) == ["block", "kind"]
    assert parts[0].metrics["kl_mean"] == pytest.approx(10.2 / 765)
    assert parts[1].metrics == {"kl_mean": 0.0, "kl_mean_low": 0.0, "kl_mean_high": 0.0}


def test_two_artifacts_are_compared_over_the_same_windows() -> None:
    """Paired by windows; over other text, or from another baseline, not at all."""
    other = {**FACTS, "window_kl_sum": [2.55, 5.1, 2.805]}

    change = TASK.compare_by_reference(FACTS, other)

    assert change["kl_sum_change"] == pytest.approx(0.765 / 765)
    assert change["kl_sum_change_low"] == pytest.approx(change["kl_sum_change_high"])
    with pytest.raises(UserError, match="'sha256' differs"):
        TASK.compare_by_reference(FACTS, {**other, "sha256": "b"})


def test_an_engine_without_single_layers_is_known_beforehand() -> None:
    """Unsupported in the plan, with the engines that have them."""
    data = {
        "name": "s",
        "model": str(DEMO),
        "recipes": ["baseline", "nf4", "onnx-int4", "gguf-q4_0"],
        "engines": ["hf", "llamacpp", "onnxruntime", "fake"],
        "tasks": [{"task": "sensitivity"}],
        "devices": ["cpu"],
    }
    plan = planner.plan(config.suite(data), fetch=False)
    reasons = {(item.cell.recipe.name, item.cell.engine.name): item.reason for item in plan.items}

    assert reasons["nf4", "hf"] == reasons["gguf-q4_0", "llamacpp"] == ""
    assert reasons["onnx-int4", "onnxruntime"] == (
        "engine onnxruntime gives no single layers of onnx: measure another format"
    )
    assert "use hf" in reasons["baseline", "fake"]
