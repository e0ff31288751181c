"""The mark of a calibrated recipe that loses to the same grid without data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from bench.contract.record import Artifact, Audit, Hardware, Result
from bench.contract.spec import Cell, EngineSpec, Model, Recipe, Step, Task
from bench.publish.tables.build import build
from bench.publish.tables.model import NO_GAIN
from tests.publish.tables.test_build import perplexity_facts

CPU = Hardware("cpu", "cpu-x-2c-8gib", "X", 2**33, "X", 2, 2**33, (), "float32", "Linux")
PPL = Task("perplexity", name="perplexity-stdlib-hf-512")
GPTQ = Step("gptq", {"bits": 4, "group_size": 64, "samples": 32})
ROUNDED = Step("llmcompressor", {"scheme": "w4a16", "algorithm": "rtn", "group_size": 64, "damp_percent": 0.01})
BASE, WORSE, BETTER = [1000.0, 1200.0, 900.0, 1100.0], [1080.0, 1290.0, 985.0, 1180.0], [1030.0, 1235.0, 932.0, 1131.0]


def scored(recipe: str, steps: Sequence[Step], nll: Sequence[float], engine: str = "hf") -> Result:
    audit = Audit("gptq", 2**20, 900, 100, 90, 800, 4.25, 1.0, tied_head=True, vocab_size=8, context=16)
    return Result(
        "d",
        "demo",
        Cell(Model("demo"), Recipe(recipe, tuple(steps)), EngineSpec(engine), "cpu", task=PPL),
        0,
        "ok",
        CPU,
        artifact=Artifact(recipe, "gptq", "sha", tuple(steps), audit),
        facts=perplexity_facts(nll),
        metrics={"perplexity": 9.0},
        started="2026-11-22T00:00:00",
    )


def marked(*results: Result) -> set[str]:
    """The recipes that have the mark."""
    table = build([scored("baseline", (), BASE), *results])
    return {row.recipe for row in table.rows if NO_GAIN in row.tasks[PPL.title].marks}


def test_a_recipe_that_loses_to_rounding_of_its_own_grid_is_marked() -> None:
    """GPTQ whose perplexity is above rounding's by more than its interval; rounding itself is not."""
    assert marked(scored("calibrated", [GPTQ], WORSE), scored("rounded", [ROUNDED], BETTER)) == {"calibrated"}


def test_a_recipe_that_gains_or_ties_is_not_marked() -> None:
    """Nor one that is better than rounding, nor one equal to it."""
    assert marked(scored("calibrated", [GPTQ], BETTER), scored("rounded", [ROUNDED], WORSE)) == set()
    assert marked(scored("calibrated", [GPTQ], WORSE), scored("rounded", [ROUNDED], WORSE)) == set()


@pytest.mark.parametrize(
    "other",
    [
        replace(ROUNDED, options={**ROUNDED.options, "group_size": 128}),
        replace(ROUNDED, options={**ROUNDED.options, "algorithm": "gptq"}),
        Step("bnb", {"type": "nf4"}),
        Step("gone", {}),
    ],
)
def test_another_grid_decides_nothing(other: Step) -> None:
    """Other groups, other methods, and methods that are gone are no rounding of GPTQ's grid."""
    assert marked(scored("calibrated", [GPTQ], WORSE), scored("other", [other], BETTER)) == set()


def test_both_are_measured_on_one_engine_after_the_same_steps() -> None:
    """Rounding on another engine, or of a pruned model, is not compared."""
    pruned = Step("magnitude", {"sparsity": 0.5})
    calibrated = scored("calibrated", [GPTQ], WORSE)

    assert marked(calibrated, scored("rounded", [ROUNDED], BETTER, engine="vllm")) == set()
    assert marked(calibrated, scored("rounded", [pruned, ROUNDED], BETTER)) == set()
    assert marked(scored("calibrated", [pruned, GPTQ], WORSE), scored("rounded", [pruned, ROUNDED], BETTER)) == {
        "calibrated"
    }


@pytest.mark.parametrize(
    ("calibrated", "plain"),
    [
        (Step("gguf", {"type": "q4_k_m", "imatrix": True}), Step("gguf", {"type": "q4_k_m"})),
        (Step("wanda", {"pattern": "2:4"}), Step("magnitude", {"pattern": "2:4"})),
        (Step("sparsegpt", {"sparsity": 0.6}), Step("magnitude", {"sparsity": 0.6})),
        (
            Step("llmcompressor", {"scheme": "w8a8"}),
            Step("llmcompressor", {"scheme": "w8a8", "algorithm": "rtn", "smoothing": 0.0}),
        ),
    ],
)
def test_every_calibrated_method_has_its_like_without_data(calibrated: Step, plain: Step) -> None:
    """The same type without importances, as many zeros by size, the same scheme to the nearest."""
    assert marked(scored("calibrated", [calibrated], WORSE), scored("plain", [plain], BETTER)) == {"calibrated"}
