"""Pruning and training on the demo model, in the hf environment; what is left loads in plain transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench import formats
from tests.conftest import ROOT, json_of

DEMO = ROOT / "models" / "demo"
pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pruned")


@pytest.fixture(scope="module")
def checks(out: Path, hf_python: Path) -> Any:
    """What pruning_checks.py saw."""
    return json_of(hf_python, "quantize/pruning_checks.py", DEMO, out, timeout=900)


@pytest.mark.parametrize(
    ("name", "zero", "pattern"),
    [
        ("magnitude", 0.5, False),
        ("global", 0.5, False),
        ("magnitude-2of4", 0.5, True),
        ("wanda", 0.5, False),
        ("wanda-2of4", 0.5, True),
    ],
)
def test_the_files_hold_the_sparsity_that_was_asked_for(
    checks: Any,
    out: Path,
    name: str,
    zero: float,
    pattern: bool,  # noqa: FBT001
) -> None:
    """Counted in what was written: half of the weights, and two of each four where that is the pattern."""
    audit = formats.audit(out / name, None, zeros=True)

    assert checks["perplexity"][name] > 0
    assert audit.zero_fraction == pytest.approx(zero, abs=1e-4)
    assert audit.two_of_four_fraction is not None
    assert (audit.two_of_four_fraction == 1.0) == pattern


def test_global_pruning_takes_more_of_some_layers(checks: Any, out: Path) -> None:
    """Per layer the least sparse one has half of its weights zero, over all of them one has fewer."""
    del checks
    least = {n: json.loads((out / f"{n}.json").read_text())["least_layer_sparsity"] for n in ("magnitude", "global")}

    assert least["magnitude"] == pytest.approx(0.5, abs=1e-4)
    assert least["global"] < 0.49


def test_wanda_zeroes_what_its_definition_names(checks: Any) -> None:
    """Worked out densely for the first layer: the same zeros, but for ties, and no other weight changed."""
    assert checks["mask"]["same"] > 0.9999
    assert checks["mask"]["rest"] == 0.0


def test_wanda_loses_no_more_than_magnitude(checks: Any) -> None:
    """At half of the weights, by perplexity; the whole model is better, and 2:4 worse than free choice."""
    read = checks["perplexity"]

    assert read["demo"] < read["wanda"] <= read["magnitude"]
    assert read["wanda"] < read["wanda-2of4"]
    assert read["magnitude"] < read["magnitude-2of4"]


@pytest.mark.parametrize("what", ["heads", "neurons", "layers"])
def test_a_model_that_was_cut_computes_what_the_whole_one_does_without_them(checks: Any, what: str) -> None:
    """The units' contribution is gone and nothing else: equal logits, to float32's rounding."""
    assert checks["cut"][what] < 2e-4


@pytest.mark.parametrize(
    ("name", "linears", "config"),
    [
        ("heads", 3_440_640, {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 64}),
        ("neurons", 3_194_880, {"intermediate_size": 576}),
        ("layers", 3_145_728, {"num_hidden_layers": 4}),
        ("layers-by-loss", 3_145_728, {"num_hidden_layers": 4}),
    ],
)
def test_a_pruned_model_has_its_new_shape(
    checks: Any, out: Path, name: str, linears: int, config: dict[str, int]
) -> None:
    """In config.json and in the files, and transformers has loaded it to a finite perplexity."""
    document = json.loads((out / name / "config.json").read_text())

    assert {key: document[key] for key in config} == config
    assert formats.audit(out / name, None).linear_parameters == linears
    assert checks["perplexity"]["demo"] < checks["perplexity"][name] < 200


def test_training_brings_a_student_nearer_and_keeps_its_zeros(checks: Any) -> None:
    """Less divergence on text it did not train on, and every zero is one still."""
    trained = checks["trained"]

    assert trained["steps"] == len(trained["curve"]) == 8
    assert trained["divergence"][1] < 0.95 * trained["divergence"][0]
    assert trained["sparsity"] == pytest.approx(0.5, abs=1e-4)
    assert trained["moved"] > 1e-4


def test_an_interrupted_run_ends_where_an_unbroken_one_does(checks: Any) -> None:
    """Broken off after five steps and taken again: the same weights to the last bit."""
    assert checks["trained"]["resumed_at"] == [5]
    assert checks["trained"]["apart"] == 0.0


def test_a_batch_in_parts_trains_as_a_whole_one_does(checks: Any) -> None:
    """A vocabulary whose logits fill the memory takes a window at a time: the loss of every step stays."""
    assert checks["trained"]["curve_by_window"] == pytest.approx(checks["trained"]["curve"], rel=1e-4)


def test_without_a_teacher_it_is_fine_tuning(checks: Any) -> None:
    """Alpha 0 asks no teacher; the loss is the text's own."""
    assert checks["trained"]["tuned"][0] > checks["trained"]["curve"][0]


def test_importance_has_a_score_for_each_unit(checks: Any) -> None:
    """Of neurons by loss: five layers of 768."""
    assert checks["trained"]["scores"] == [5, 768]
