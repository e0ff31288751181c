"""A task through llama-server and vLLM's server on the demo model, beside the same items in process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.contract.record import Result
from bench.publish.tables import build
from bench.store import Store
from tests.run import fake_runs, served_tasks

pytestmark = pytest.mark.engine
_CHOICES: dict[str, Any] = {"task": "lm_eval", "tasks": "stdlib_argument", "limit": 8}


def _by_title(results: list[Result]) -> dict[str, Result]:
    by_title = {result.cell.measurement: result for result in results if result.cell.task}
    assert {title: result.reason for title, result in by_title.items()} == dict.fromkeys(by_title, "")
    return by_title


@pytest.mark.needs("llamacpp", "llamacpp-tools", "lm_eval")
def test_llama_server_answers_as_llama_cpp_in_process(tmp_path: Path, llamacpp_python: Path) -> None:
    """One at a time the greedy answers are those of the library, item by item; four at a time they are all there."""
    del llamacpp_python
    folder = served_tasks.folder(tmp_path / "tasks", tokens=12)
    tasks = [served_tasks.task(folder, **how) for how in ({}, {"via": "server"}, {"via": "server", "concurrency": 4})]
    suite = fake_runs.suite(recipes=["gguf-f16"], engines=["llamacpp"], tasks=tasks)
    results = _by_title(fake_runs.run(suite, Store(tmp_path / "results")))
    one, four = results["lm_eval-continued-server-c1"], results["lm_eval-continued-server-c4"]

    assert one.facts["item_answers"] == results["lm_eval-continued"].facts["item_answers"]
    assert len(set(map("".join, zip(*[iter(one.facts["item_answers"])] * 6, strict=True)))) > 3  # not all the same
    assert "/llama-server --model ARTIFACT" in one.facts["server"]
    assert 3 < four.metrics["concurrency"] <= 4
    (row,) = build.build(results.values()).rows
    assert row.tasks["lm_eval-continued-server-c1"].words["same answers"] == "6 of 6"


@pytest.mark.needs("lm_eval", "vllm")
def test_vllm_scores_choices_and_answers_as_in_process(tmp_path: Path) -> None:
    """Multiple choice by the server's log-probabilities of prompts, and generated answers, four at a time."""
    served = {"via": "server", "concurrency": 4}
    folder = served_tasks.folder(tmp_path / "tasks", tokens=12)
    tasks = [_CHOICES, {**_CHOICES, **served}, served_tasks.task(folder), served_tasks.task(folder, **served)]
    suite = fake_runs.suite(recipes=["baseline"], engines=["vllm"], tasks=tasks)
    results = _by_title(fake_runs.run(suite, Store(tmp_path / "results")))
    in_process, served_choices = (results[f"lm_eval-stdlib_argument-8items{end}"] for end in ("", "-server-c4"))

    assert served_choices.facts["item_scores"] == in_process.facts["item_scores"]
    assert served_choices.metrics["concurrency"] > 3
    (row,) = build.build(results.values()).rows
    assert row.tasks[served_choices.cell.measurement].words["lost / won"] == "0 / 0"
    assert row.tasks["lm_eval-continued-server-c4"].words["same answers"] == "6 of 6"
