"""`replicates` of a recipe: recipes of its own with other seeds, or one sentence where there can be none."""

from __future__ import annotations

from typing import Any

import pytest

from bench.contract import wire
from bench.contract.errors import UserError
from bench.contract.spec import Recipe, Suite
from bench.suite import config, schema

_GGUF = {"method": "gguf", "type": "q2_k", "imatrix": True}


def _suite(*recipes: Any, **fields: Any) -> Suite:
    base = {"name": "s", "model": "models/demo", "engines": ["fake"], "tasks": ["perplexity"]}
    return config.suite({**base, "recipes": list(recipes), **fields})


def _seeds(recipe: Recipe) -> list[object]:
    return [step.options.get("seed") for step in recipe.steps]


def test_replicates_are_recipes_named_by_their_seed() -> None:
    """Three makings: the recipe itself, as it is without the key, and two behind all others."""
    plain = _suite({"name": "q2", "steps": [_GGUF]}, "baseline")
    suite = _suite({"name": "q2", "steps": [_GGUF], "replicates": 3}, "baseline")

    assert [recipe.name for recipe in suite.recipes] == ["q2", "baseline", "q2-seed1", "q2-seed2"]
    assert suite.recipes[:2] == plain.recipes
    assert wire.plain(suite.recipes[0]).keys() == {"name", "steps"}
    assert [_seeds(recipe) for recipe in suite.recipes if recipe.steps[0].method == "gguf"] == [[0], [1], [2]]
    assert [recipe.replicate_of for recipe in suite.recipes] == ["", "", "q2", "q2"]


def test_every_calibrated_step_has_another_seed_and_no_other_step_changes() -> None:
    """A chain: pruned from seed 5 on, then GPTQ; the name is that of the last one's seed."""
    steps = [{"method": "wanda", "seed": 5}, {"method": "gptq"}, {"method": "none", "dtype": "float32"}]
    *_, second = _suite({"name": "both", "steps": steps, "replicates": 2}).recipes

    assert (second.name, _seeds(second)) == ("both-seed1", [6, 1, None])
    assert second.steps[2] == _suite({"name": "both", "steps": steps}).recipes[0].steps[2]


def test_a_named_recipe_may_have_replicates() -> None:
    """By its name alone: its steps are those of configs/recipes.yaml."""
    suite = _suite({"name": "gguf-q2_k-imatrix", "replicates": 2})

    assert suite.recipes[0] == config.recipe_named("gguf-q2_k-imatrix")
    assert suite.recipes[1].name == "gguf-q2_k-imatrix-seed1"


@pytest.mark.parametrize(
    ("recipe", "fields", "sentence"),
    [
        (
            {"name": "q4", "steps": [{"method": "gguf", "type": "q4_0"}], "replicates": 2},
            {},
            "recipes[0].replicates: no step of 'q4' is calibrated or trained",
        ),
        (
            {"name": "rtn", "steps": [{"method": "llmcompressor", "algorithm": "rtn"}], "replicates": 2},
            {},
            "no step of 'rtn' is calibrated",
        ),
        ({"name": "x", "checkpoint": "a/b", "replicates": 2}, {}, "no step of 'x' is calibrated"),
        ({"name": "q2", "steps": [_GGUF], "replicates": 0}, {}, "recipes[0].replicates: must be at least 1, got 0"),
        ({"name": "q2", "steps": [_GGUF], "replicates": 101}, {}, "must be at most 100"),
        ({"name": "q2", "steps": [_GGUF], "replicates": "three"}, {}, "recipes[0].replicates: "),
        ({"name": "gguf-q2_k-imatrx", "replicates": 2}, {}, "did you mean 'gguf-q2_k-imatrix'?"),
        (
            {"name": "q2", "steps": [_GGUF], "replicates": 2},
            {"tasks": [], "workloads": [{"batch": 1}]},
            "the suite has no task to measure that by",
        ),
        ({"name": "q2", "steps": [_GGUF], "replicate_of": "q2"}, {}, "recipes[0].replicate_of: unknown key"),
    ],
)
def test_what_can_have_no_replicates_is_told_why(recipe: object, fields: dict[str, Any], sentence: str) -> None:
    """One sentence, with its place, before anything is planned."""
    with pytest.raises(UserError) as caught:
        _suite(recipe, **fields)

    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_recipe_of_a_replicates_name_is_refused() -> None:
    """Two of one name would be one row."""
    with pytest.raises(UserError, match="two recipes are called 'q2-seed1'"):
        _suite({"name": "q2", "steps": [_GGUF], "replicates": 2}, {"name": "q2-seed1", "steps": [_GGUF]})


def test_the_schema_offers_replicates_and_nothing_that_a_file_cannot_say() -> None:
    """An editor completes `replicates`."""
    recipe = schema.suite_schema()["$defs"]["Recipe"]["anyOf"][1]

    assert "replicates" in recipe["properties"]
    assert "replicate_of" not in recipe["properties"]
