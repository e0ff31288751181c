"""Recipes of several steps, and what cannot be done: said before anything runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench.contract import plugins
from bench.contract.spec import Model, Recipe, Step
from bench.machine import hardware as machine
from bench.models import resolve
from bench.run import artifacts
from bench.suite import config

DEMO = Path(__file__).resolve().parents[2] / "models" / "demo"
_HALF_THE_HEADS = {"method": "structured", "what": "heads", "share": 0.5}


def _against(*steps: dict[str, Any], model: Path = DEMO) -> str:
    """Why the recipe cannot be made, or nothing."""
    spelled = []
    for step in steps:
        name, given = step["method"], {k: v for k, v in step.items() if k != "method"}
        spelled.append(Step(name, config.options(plugins.METHODS, name, given, name)))
    hardware, resolved = machine.detect("cpu"), resolve.resolve(Model(str(model)), fetch=False)
    return artifacts.unsupported(artifacts.steps_for(Recipe("r", tuple(spelled)), hardware, "hf"), resolved, hardware)[
        0
    ]


@pytest.mark.parametrize(
    ("step", "sentence"),
    [
        ({"method": "magnitude", "sparsity": 1.2}, "sparsity 1.2 is the share of weights that become zero"),
        ({"method": "wanda", "sparsity": 0.0}, "more than 0 and less than 1"),
        ({"method": "wanda", "sparsity": 0.6, "pattern": "2:4"}, "2:4 makes a sparsity of 0.5, not 0.6"),
        ({"method": "wanda", "length": 2048}, "samples of 2048 tokens are longer than the model's context"),
        (
            {"method": "magnitude", "pattern": "2:4", "scope": "global"},
            "pattern 2:4 applies within each layer: leave scope at layer",
        ),
        (
            {"method": "structured", "what": "heads", "share": 0.25},
            "a share of 0.25 is 1 of 4 attention heads, which are removed by whole KV groups of 2: use a share of 0.5",
        ),
        ({"method": "structured", "what": "layers", "share": 0.05}, "0.05 of 5 layers rounds to none"),
        ({"method": "structured", "what": "layers", "share": 0.95}, "leaves no layers of 5"),
        ({"method": "structured", "share": 1.5}, "more than 0, less than 1"),
        ({"method": "distill", "tokens": 100}, "tokens 100 are less than one batch of 8 x 256"),
        ({"method": "distill", "alpha": 1.5}, "alpha 1.5 is a share, from 0 to 1"),
        ({"method": "distill", "teacher": "nowhere"}, "teacher: model folder nowhere does not exist"),
        ({"method": "qat", "group_size": 100}, "group_size 100 divides the inputs of no linear layer"),
    ],
)
def test_what_cannot_be_is_one_sentence(step: dict[str, Any], sentence: str) -> None:
    """A share, count or pattern that the model cannot have is refused by its numbers."""
    reason = _against(step)

    assert sentence in reason
    assert "\n" not in reason


def test_a_step_that_cannot_read_the_step_before_says_which(tmp_path: Path) -> None:
    """Pruning after packing has nothing to prune."""
    del tmp_path
    assert (
        _against({"method": "gguf", "type": "q8_0"}, {"method": "wanda"})
        == "wanda reads hf, and is given gguf: put it before the step that wrote that"
    )


def test_a_student_deeper_than_its_teacher_is_refused(tmp_path: Path) -> None:
    """So is one of another vocabulary; a teacher of the same depth is not."""
    teacher = json.loads((DEMO / "config.json").read_text())
    for changed, sentence in (
        ({"num_hidden_layers": 2}, "the student has 5 layers and its teacher 2: use a teacher at least as deep"),
        ({"vocab_size": 8}, "the student's vocabulary has 4096 entries and its teacher's 8"),
        ({}, ""),
    ):
        (tmp_path / "config.json").write_text(json.dumps({**teacher, **changed}))
        reason = _against({"method": "distill", "teacher": str(tmp_path)})
        assert sentence in reason if sentence else reason == ""


def test_later_steps_are_planned_by_the_shapes_that_are_left() -> None:
    """768 neurons less a quarter are 576, which groups of 128 do not divide and groups of 64 do."""
    pruned = {"method": "structured", "what": "neurons", "share": 0.25}

    assert "group_size 128 does not divide the 576 inputs" in _against(pruned, {"method": "gptq"})
    assert _against(pruned, {"method": "gptq", "group_size": 64}) == ""
    assert "of 2 attention heads" in _against(_HALF_THE_HEADS, {**_HALF_THE_HEADS, "share": 0.25})
    assert _against(_HALF_THE_HEADS, {"method": "distill"}, {"method": "gguf", "type": "q4_0"}) == ""


def test_a_model_that_is_not_here_yet_is_not_refused() -> None:
    """Shapes are not known before it was fetched: what they rule out is said then."""
    hardware, resolved = machine.detect("cpu"), resolve.Resolved(None, "hub:owner/name@main", "hf")
    recipe = config.recipe_named("layers-25-distilled-gptq-w4g128")

    steps = artifacts.steps_for(recipe, hardware, "hf")
    assert artifacts.unsupported(steps, resolved, hardware) == ("", "gptq")
