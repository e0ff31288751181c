"""A task through the engine's server, on the fake engine: its record, and what ends it early."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench.contract import wire
from bench.contract.errors import UserError
from bench.contract.record import Result
from bench.measure import sanity
from bench.publish.tables import build, render
from bench.run import plan
from bench.store import Store
from tests.run import fake_runs, served_tasks

_FAST: dict[str, Any] = {"name": "fake", "ttft_s": 0.002, "itl_s": 0.001}
needs_lm_eval = pytest.mark.needs("lm_eval")


def _of_task(results: list[Result]) -> Result:
    (result,) = (r for r in results if r.cell.task)
    return result


@needs_lm_eval
def test_a_record_has_the_score_and_the_load_it_was_measured_under(tmp_path: Path) -> None:
    """All items are asked at the concurrency of the task; the load's latencies stand beside the score."""
    task = served_tasks.task(served_tasks.folder(tmp_path / "tasks"), via="server", concurrency=4)
    store = Store(tmp_path / "results")
    result = _of_task(fake_runs.run(fake_runs.suite(engines=[_FAST], tasks=[task]), store))

    assert (result.status, result.cell.measurement) == ("ok", "lm_eval-continued-server-c4"), result.reason
    assert (result.facts["items"], result.facts["concurrency_asked"]) == (served_tasks.ITEMS, 4)
    assert 0 < result.metrics["ttft_s"] < 1
    assert 3 < result.metrics["concurrency"] <= 4
    assert result.metrics["accuracy_fraction"] == 0  # it counts, and adds nothing
    assert all(row["replies"][0].split() == list("01234567") for row in store.items(store.path(result)))


@needs_lm_eval
def test_finished_items_outlive_a_server_that_dies(tmp_path: Path) -> None:
    """A server that ends after two items of each run: a sentence with their number, and three runs for six of them."""
    task = served_tasks.task(served_tasks.folder(tmp_path / "tasks"), via="server")
    suite = fake_runs.suite(engines=[{**_FAST, "fail": "exit", "fail_after": 3}], tasks=[task])  # one of them warms up
    store = Store(tmp_path / "results")
    first, second, third = (_of_task(fake_runs.run(suite, store)) for _ in range(3))

    assert (first.status, second.status) == ("failed", "failed")
    assert "the server ended (code 7) while it was used" in first.reason
    assert "2 of 6 items were answered" in first.reason
    assert "4 of 6 items were answered" in second.reason
    assert (third.status, third.facts["resumed_items"], third.facts["items"]) == ("ok", 4, 6)


@needs_lm_eval
def test_a_server_without_log_probabilities_is_asked_for_no_choices(tmp_path: Path) -> None:
    """Multiple choice on a server that gives no log-probabilities of a prompt has a reason, and no figures."""
    task = {"task": "lm_eval", "tasks": "stdlib_argument", "limit": 4, "via": "server"}
    result = _of_task(fake_runs.run(fake_runs.suite(engines=[_FAST], tasks=[task]), Store(tmp_path / "results")))

    assert result.status == "unsupported"
    assert result.reason.startswith("multiple choice needs the log-probabilities of a prompt")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"via": "server", "concurrency": 0}, "concurrency: must be at least 1, got 0"),
        ({"via": "server", "concurrency": -3}, "concurrency: must be at least 1, got -3"),
        ({"concurrency": 16}, "means nothing in process; set via: server"),
        ({"via": "http"}, "'process' or 'server'"),
        ({"via": "server", "concurency": 2}, "did you mean 'concurrency'?"),
    ],
)
def test_options_that_mean_nothing_are_refused(options: dict[str, Any], sentence: str) -> None:
    """One sentence that names the option."""
    with pytest.raises(UserError) as error:
        fake_runs.suite(tasks=[{"task": "lm_eval", **options}])

    assert sentence in str(error.value)


def test_an_engine_without_a_server_is_unsupported() -> None:
    """ONNX Runtime's engine has none, which the plan says."""
    suite = fake_runs.suite(
        recipes=["onnx-int4"], engines=["onnxruntime"], tasks=[{"task": "lm_eval", "via": "server"}]
    )
    (item,) = plan.plan(suite, fetch=False).items

    assert item.reason.startswith("engine onnxruntime has no server")


def test_where_a_task_runs_is_in_its_digest_only_where_it_is_given() -> None:
    """A task in process keeps its digest; concurrency makes another one, over the same requests."""

    def of(**options: Any) -> Any:
        (item,) = plan.plan(fake_runs.suite(tasks=[{"task": "lm_eval", **options}]), fetch=False).items
        return item

    assert of().digest == of(via="process", concurrency=1).digest
    one, sixteen = of(via="server"), of(via="server", concurrency=16)
    assert len({of().digest, one.digest, sixteen.digest}) == 3
    assert one.task_input.digest == sixteen.task_input.digest


def test_answers_kept_for_the_next_run_survive_a_damaged_file(tmp_path: Path) -> None:
    """A file that is cut or of another form counts as none."""
    from bench.run.served.session import Finished

    file = tmp_path / "answers.json"
    for text in ("", "{", "[1]", '{"a": ', "null"):
        file.write_text(text)
        assert Finished(file).answers == {}
    finished = Finished(file)
    finished.answers["prompt 0"] = "yes"
    finished.keep()
    assert Finished(file).answers == {"prompt 0": "yes"}
    assert wire.parse(file.read_text()) == {"prompt 0": "yes"}


@needs_lm_eval
def test_questions_are_paired_with_the_same_in_process(tmp_path: Path) -> None:
    """The fake server counts and the fake session does not: the item that counting answers is won, and the table says.

    A line without its fields stops the plan; a model without a template has a reason.
    """
    file = tmp_path / "mine.jsonl"
    rows = [{"question": f"Count {n}.", "answer": str(n)} for n in (3, 4, 5)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = {"task": "questions", "path": str(file), "pattern": r"\d+", "new_tokens": 4}
    chat = {"task": "questions", "path": str(file), "chat": True}
    suite = fake_runs.suite(engines=[_FAST], tasks=[task, {**task, "via": "server", "concurrency": 2}, chat])
    results = {r.cell.measurement: r for r in fake_runs.run(suite, Store(tmp_path / "results")) if r.cell.task}
    (served,) = (r for title, r in results.items() if title.endswith("server-c2"))

    assert (served.status, served.facts["item_scores"]) == ("ok", "100"), served.reason
    assert "has no chat template" in results["questions-mine-chat"].reason
    (row,) = build.build(results.values()).rows
    cell = row.tasks[served.cell.measurement]
    assert (cell.words["lost / won"], cell.words["same answers"]) == ("0 / 1", "0 of 3")
    assert cell.words["vs in process, points"] == "uninformative (1 and 0 of 3 right)"
    text = render.markdown(build.build(results.values()))
    assert "| vs in process, points | lost / won | p in process | same answers | in flight |" in text


def test_a_line_without_its_fields_stops_the_plan(tmp_path: Path) -> None:
    """Before anything is built or asked."""
    file = tmp_path / "mine.jsonl"
    file.write_text('{"question": "q", "answer": "a"}\n{"question": "q"}\n')
    with pytest.raises(UserError, match=r"mine.jsonl, line 2: answer is missing"):
        plan.plan(fake_runs.suite(tasks=[{"task": "questions", "path": str(file)}]), fetch=False)


@needs_lm_eval
def test_an_endpoint_is_asked_as_an_engine_of_ones_own(tmp_path: Path, endpoint: str) -> None:
    """A server that runs already: the same answers, with the mark of what nobody here started."""
    task = served_tasks.task(served_tasks.folder(tmp_path / "tasks"), via="server", concurrency=3)
    engine = {"name": "openai", "url": endpoint, "model": "fake", "ids": True}
    result = _of_task(fake_runs.run(fake_runs.suite(engines=[engine], tasks=[task]), Store(tmp_path / "results")))

    assert (result.status, result.facts["items"]) == ("ok", served_tasks.ITEMS), result.reason
    assert result.facts["remote"]
    assert "remote" in sanity.marks([result])
