from __future__ import annotations

import time
from pathlib import Path

import pytest

from bench.contract.spec import Suite
from bench.run import config, pipeline, plan
from bench.store import Store

_STEPS = {"method": "gptq", "bits": 4, "group_size": 128}


def _suite(**more: object) -> Suite:
    base = {"name": "s", "model": "models/demo", "recipes": ["as-is"], "engines": ["fake"]}
    return config.suite({**base, "devices": ["cpu"], "workloads": [{"batch": 1}, {"batch": 2}], **more})


@pytest.mark.usefixtures("cache")
def test_rounds_are_interleaved_in_a_seeded_order() -> None:
    """Every cell runs once before any runs twice; the order within a round differs, and is the seed's."""
    suite = _suite(workloads=[{"batch": n} for n in range(1, 9)])
    first, again = plan.plan(suite, fetch=False), plan.plan(suite, fetch=False)
    rounds = [[i.cell.what for i in first.items if i.round == n] for n in range(3)]

    assert [i.round for i in first.items] == [0] * 8 + [1] * 8 + [2] * 8
    assert [sorted(names) for names in rounds] == [sorted(rounds[0])] * 3
    assert len({tuple(names) for names in rounds}) == 3
    assert [i.digest for i in first.items] == [i.digest for i in again.items]


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize(
    ("steps", "reason"),
    [
        ([{**_STEPS, "group_size": 512}], "group_size 512 does not divide the 768 inputs of model.layers.0"),
        ([_STEPS, _STEPS], "gptq reads hf, and is given gptq"),
    ],
)
def test_what_a_recipe_cannot_do_is_known_beforehand(steps: list[object], reason: str) -> None:
    """A group that does not fit the layers, or a step that cannot read what the one before writes."""
    made = plan.plan(_suite(recipes=[{"name": "x", "steps": steps}]), fetch=False)

    assert reason in made.items[0].reason


@pytest.mark.usefixtures("cache")
def test_a_digest_follows_what_a_number_depends_on(tmp_path: Path) -> None:
    """Engine options, workload, recipe and the text scored change it; the number of rounds does not."""
    text = tmp_path / "text.txt"
    text.write_text("a")
    task = {"task": "perplexity", "corpus": f"path:{text}"}

    def digests(**more: object) -> set[str]:
        return {i.digest for i in plan.plan(_suite(tasks=[task], **more), fetch=False).items}

    first = digests()
    assert digests(rounds=5) == first
    assert not digests(engines=[{"name": "fake", "itl_s": 0.5}]) & first
    assert not digests(recipes=["fp32"]) & first
    text.write_text("b")
    assert len(digests() & first) == 2  # the workloads' rounds are not concerned


@pytest.mark.usefixtures("cache")
def test_five_thousand_cells_are_planned_in_three_seconds(tmp_path: Path) -> None:
    """50 recipes x 100 workloads, 3 rounds each, and the look at what is recorded: CPU time below 3 s."""
    steps = [[{"method": "gptq", "damp_percent": n / 100}] for n in range(1, 51)]
    recipes = [{"name": f"r{n}", "steps": each} for n, each in enumerate(steps)]
    suite = _suite(recipes=recipes, workloads=[{"batch": n} for n in range(1, 101)])
    began = time.process_time()
    made = plan.plan(suite, fetch=False)
    todo = pipeline.pending(made, Store(tmp_path))

    assert (len(made.cells), len(todo)) == (5000, 15000)
    assert time.process_time() - began < 3
