"""Replicates in a plan, and made and scored on the real llama.cpp: one row, whose text differs by the seed alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench.run import plan
from bench.run.planned import Plan
from bench.store import Store
from tests.conftest import Command
from tests.run import fake_runs

_STEP = {"method": "gguf", "type": "q2_k", "imatrix": True, "samples": 2, "length": 64}
_TASK = {"task": "perplexity", "context": 64, "tokens": 256}


def _plan(**recipe: Any) -> Plan:
    recipes = [{"name": "q2", "steps": [_STEP], **recipe}, "fp32"]
    suite = fake_runs.suite(recipes=recipes, engines=["llamacpp", "hf"], tasks=[_TASK], workloads=[{"batch": 1}])
    return plan.plan(suite, fetch=False)


@pytest.mark.usefixtures("cache")
def test_the_recipe_itself_is_planned_as_without_replicates() -> None:
    """The digests of all its cells stay; a replicate has tasks alone, and an artifact of its own."""
    plain, more = _plan(), _plan(replicates=3)
    digests = [{(i.cell.title, i.round, i.digest) for i in its.items} for its in (plain, more)]
    added = [i for i in more.items if i.cell.recipe.replicate_of]

    assert digests[0] < digests[1]
    assert {i.cell.recipe.name for i in added} == {"q2-seed1", "q2-seed2"}
    assert {i.mode for i in added} == {"score"}
    assert len({a.digest for a in more.artifacts}) == 4


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize(
    ("glob", "recipes"),
    [
        ("q2", {"q2", "q2-seed1"}),
        ("demo/q2/llamacpp/*", {"q2", "q2-seed1"}),
        ("q2-seed1", {"q2-seed1"}),
        ("fp32", {"fp32"}),
    ],
)
def test_a_recipe_is_chosen_with_its_replicates(glob: str, recipes: set[str]) -> None:
    """By its name or title; a replicate by its own alone."""
    suite = _plan(replicates=2).suite

    assert {cell.recipe.name for cell in plan.plan(suite, fetch=False, only=glob).cells} == recipes


@pytest.mark.engine
@pytest.mark.slow
def test_replicates_of_an_importance_matrix_are_made_and_folded(
    command: Command, llamacpp_python: Path, tmp_path: Path
) -> None:
    """Two files of the same bits and other bytes, from other windows of the text; one row with the mean of both."""
    suite = {
        "model": "models/demo",
        "recipes": [{"name": "q2", "steps": [_STEP], "replicates": 2}],
        "engines": [{"name": "llamacpp", "threads": 1}],
        "tasks": [_TASK],
        "devices": ["cpu"],
        "settle_s": 0,
    }
    (tmp_path / "seeds.yaml").write_text(json.dumps(suite))
    python = {"LLM_BENCH_PYTHON_LLAMACPP": str(llamacpp_python)}
    done = command("bench", "run", str(tmp_path / "seeds.yaml"), "--format", "json", "-q", **python)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["rows"]
    values = {r.cell.recipe.name: r.metrics["perplexity"] for r in Store(tmp_path / "results").all() if r.cell.task}
    artifacts = [r.artifact for r in Store(tmp_path / "results").all() if r.cell.task]
    (cell,) = rows[0]["tasks"].values()

    assert [row["recipe"] for row in rows] == ["q2"]
    assert values.keys() == {"q2", "q2-seed1"}
    assert values["q2"] != values["q2-seed1"]
    assert len({a.audit.bits_per_weight for a in artifacts if a}) == 1
    assert [a.steps[-1].options["seed"] for a in artifacts if a] == [0, 1]
    assert cell["seeds"]["perplexity"]["mean"] == pytest.approx(sum(values.values()) / 2)
    table = command("bench", "table", str(tmp_path / "seeds.yaml"), "--replicates", "--format", "md", **python)
    assert "| q2-seed1 |" in table.stdout, table.stderr
