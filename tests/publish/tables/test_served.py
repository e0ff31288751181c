"""A task through the server beside the same in process: what changed, and what says nothing."""

from __future__ import annotations

from typing import Any

import pytest

from bench.contract.record import Result
from bench.contract.spec import Task
from bench.publish.tables.build import build
from bench.publish.tables.render import render
from eval.tasks import lm_eval
from tests.publish.tables.test_build import CPU, artifact_of, cell

_OPTIONS: dict[str, Any] = {"tasks": "some_task"}
_PROCESS = Task("lm_eval", _OPTIONS, "lm_eval-some_task")
_SERVER = Task("lm_eval", {**_OPTIONS, "via": "server", "concurrency": 16}, "lm_eval-some_task-server-c16")


def _record(task: Task, scores: str, engine: str = "llamacpp", answers: str = "", **facts: object) -> Result:
    share = scores.count("1") / len(scores)
    known = {
        "scores": {"exact_match": share, "exact_match_stderr": 0.01},
        "metric": "exact_match",
        "items": len(scores),
        "item_scores": scores,
        "texts_sha256": "t",
        "item_answers": answers or "".join(f"{n:06x}" for n in range(len(scores))),
        **facts,
    }
    load = {"concurrency": 15.5, "ttft_s": 0.1, "tpot_s": 0.02} if task is _SERVER else {}
    metrics = {**lm_eval.metrics(known), **load}
    return Result(
        "d",
        "demo",
        cell("baseline", engine, task),
        0,
        "ok",
        CPU,
        "",
        artifact_of("baseline"),
        facts=known,
        metrics=metrics,
    )


def _words(*records: Result, engine: str = "llamacpp") -> dict[str, str]:
    (row,) = (row for row in build(records).rows if row.engine == engine)
    return dict(row.tasks[_SERVER.title].words)


def test_items_are_paired_with_those_in_process() -> None:
    """Of 100 items three are lost and one is won; 94 answers are the same, whatever was right."""
    changed = "".join(f"{n + 1000 * (n < 6):06x}" for n in range(100))
    words = _words(
        _record(_PROCESS, "1" * 53 + "0" * 47), _record(_SERVER, "0" * 3 + "1" * 51 + "0" * 46, answers=changed)
    )

    assert (words["lost / won"], words["p in process"], words["same answers"]) == ("3 / 1", "0.62", "94 of 100")
    assert words["vs in process, points"].startswith("noise (-2.0 ± ")


def test_a_change_beyond_noise_is_told() -> None:
    """Twenty of 100 lost and none won is no noise."""
    words = _words(_record(_PROCESS, "1" * 80 + "0" * 20), _record(_SERVER, "1" * 60 + "0" * 40))

    assert words["vs in process, points"].startswith("-20.0 ± ")
    assert words["lost / won"] == "20 / 0"


@pytest.mark.parametrize(("process", "server"), [("0" * 100, "0" * 100), ("1" + "0" * 99, "0" * 97 + "111")])
def test_scores_near_zero_are_uninformative(process: str, server: str) -> None:
    """No tie where hardly anything is right, in the column and below the table."""
    records = [_record(_PROCESS, process), _record(_SERVER, server)]
    right = f"uninformative ({server.count('1')} and {process.count('1')} of 100 right)"

    assert _words(*records)["vs in process, points"] == right
    assert "of 100 items are right anywhere: uninformative" in render(build(records), "md")


def test_an_engine_without_a_session_is_paired_with_another() -> None:
    """An endpoint has none in process: the table says whose items they are. Other items are not paired at all."""
    records = [_record(_PROCESS, "1" * 50 + "0" * 50, "hf"), _record(_SERVER, "1" * 50 + "0" * 50, "openai")]
    text = render(build(records), "md")

    assert _words(*records, engine="openai")["same answers"] == "100 of 100"
    assert "vs in process: on hf, since openai has no session in process" in text
    assert "| in flight | TTFT ms ↓ | TPOT ms ↓ |" in text
    others = [_record(_PROCESS, "1" * 50 + "0" * 50, "hf", texts_sha256="other"), records[1]]
    assert "same answers" not in _words(*others, engine="openai")


def test_a_record_without_texts_has_no_number_of_same_answers() -> None:
    """As those of multiple choice, and those from before answers were kept."""
    words = _words(_record(_PROCESS, "10" * 50, item_answers=""), _record(_SERVER, "10" * 50))

    assert words["same answers"] == "\N{EN DASH}"
    assert words["lost / won"] == "0 / 0"
