"""Parts of a task's items from the plan to the record, on the fake engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.contract.errors import UserError
from bench.contract.spec import Task
from bench.run import plan, task_inputs
from bench.store import Store
from eval.text import positions
from tests.run import fake_runs

_PERPLEXITY = {"task": "perplexity", "context": 128, "tokens": 600}
_RETRIEVAL = {"task": "retrieval", "lengths": "200,300", "depths": "0,1", "items": 2}


def _task(**fields: Any) -> Task:
    return fake_runs.suite(tasks=[{**_PERPLEXITY, **fields}]).tasks[0]


def test_an_option_younger_than_records_is_in_no_digest_at_its_default() -> None:
    """A task that does not ask for positions is the one that was measured before there were any."""
    kind, options, _ = task_inputs.task_key(_task())

    assert kind == "perplexity"
    assert isinstance(options, dict)
    assert "by_position" not in options
    assert task_inputs.task_key(_task(by_position=False)) == task_inputs.task_key(_task())
    assert task_inputs.task_key(_task(by_position=True)) != task_inputs.task_key(_task())
    assert _task(by_position=True).name == _task().name


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize(
    ("task", "tokens"),
    [
        ({"task": "retrieval", "lengths": "512,2048"}, 2048),
        ({"task": "perplexity", "context": 1025}, 1025),
        ({"task": "divergence", "context": 4096}, 4096),
    ],
)
def test_texts_beyond_the_models_context_are_unsupported(task: dict[str, Any], tokens: int) -> None:
    """Known before anything is made, and said with both numbers."""
    planned = plan.plan(fake_runs.suite(tasks=[task]), fetch=False)

    sentence = f"texts of {tokens} tokens exceed the model's context of 1024: measure shorter ones"
    assert [item.reason for item in planned.items] == [sentence]


def test_lengths_that_are_none_are_refused_with_the_suite() -> None:
    """Before anything is planned."""
    with pytest.raises(UserError, match="lengths: 'long' is no list of tokens"):
        fake_runs.suite(tasks=[{"task": "retrieval", "lengths": "long"}])


@pytest.mark.slow
@pytest.mark.usefixtures("cache")
def test_a_record_has_its_parts_with_intervals(tmp_path: Path) -> None:
    """A list of bins, and of lengths by depths, each with its counts and metrics."""
    tasks = [{**_PERPLEXITY, "by_position": True}, _RETRIEVAL]
    by_kind = {r.cell.task.kind: r for r in fake_runs.run(fake_runs.suite(tasks=tasks), Store(tmp_path)) if r.cell.task}
    bins, places = by_kind["perplexity"].facts["parts"], by_kind["retrieval"].facts["parts"]

    assert [its[positions.AXIS] for its in bins] == ["1\N{EN DASH}63", "64\N{EN DASH}127"]
    assert [its["scored_tokens"] for its in bins] == [4 * 63, 4 * 64]
    for its in bins:
        assert its["nll_per_token_low"] <= its["nll_per_token"] <= its["nll_per_token_high"]
    assert [(its["length"], its["depth"]) for its in places] == [
        (length, depth) for length in ("200", "300") for depth in ("0 %", "100 %", "all")
    ]
    assert [its["scored_items"] for its in places] == [2, 2, 4] * 2
    assert by_kind["retrieval"].metrics["scored_items"] == 8
    assert by_kind["retrieval"].metrics["answer_nll"] > 0
