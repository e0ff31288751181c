"""A task through llama-server and vLLM's server on the demo model, beside the same items in process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.contract.record import Result
from bench.publish.tables import build, render
from bench.store import Store
from tests.run import fake_runs, served_tasks

pytestmark = pytest.mark.engine
_SERVER: dict[str, Any] = {"via": "server", "concurrency": 4}


def _by_task(results: list[Result]) -> dict[str, Result]:
    return {result.cell.measurement: result for result in results if result.cell.task}


def test_llama_server_answers_as_llama_cpp_in_process(tmp_path: Path, llamacpp_python: Path) -> None:
    """One at a time the greedy answers are those of the library, item by item; the table says so beside the load."""
    del llamacpp_python
    folder = served_tasks.folder(tmp_path / "tasks", tokens=12)
    tasks = [served_tasks.task(folder, **how) for how in ({}, {"via": "server"}, _SERVER)]
    store = Store(tmp_path / "results")
    suite = fake_runs.suite(recipes=["gguf-f16"], engines=["llamacpp"], tasks=tasks)
    results = _by_task(fake_runs.run(suite, store))
    assert {title: r.reason for title, r in results.items()} == dict.fromkeys(results, "")
    one, four = results["lm_eval-continued-server-c1"], results["lm_eval-continued-server-c4"]
    texts = [[row["replies"] for row in store.items(store.path(r))] for r in results.values()]

    assert one.facts["item_answers"] == results["lm_eval-continued"].facts["item_answers"]
    assert all(len(each) == served_tasks.ITEMS for each in texts)
    assert "/llama-server --model ARTIFACT" in one.facts["server"]
    assert 3 < four.metrics["concurrency"] <= 4
    table = build.build(results.values())
    (row,) = table.rows
    assert row.tasks["lm_eval-continued-server-c1"].words["same answers"] == "6 of 6"
    text = render.markdown(table)
    assert "| vs in process, points | lost / won | p in process | same answers | in flight |" in text
