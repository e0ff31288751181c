"""Files of questions, answers of models and log-probabilities of servers: a value or a sentence, whatever they hold."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from bench.contract.hooks import ChoiceScore
from bench.run.served import choices
from eval.questions import items, verdict
from eval.questions.items import Item
from tests.hostile.strategies import changed, dumps, examples, only_user_errors, spliced

LINE = {
    "question": "Add 1 and 2.",
    "functions": [{"name": "add", "parameters": {"type": "object"}}],
    "call": {"name": "add", "arguments": {"a": 1, "b": [2.0, {"c": None}]}},
}
PLAIN = {"question": "q", "answer": ["1,250", "x"], "pattern": r"(\d[\d,]*)"}
CALL = Item(1, "q", functions=({"name": "add"},), call={"name": "add", "arguments": {"a": 1, "b": [2.0, {"c": None}]}})
BODY = {
    "choices": [
        {
            "prompt_logprobs": [None, {"3": {"logprob": -1.0, "rank": 1}}, {"4": {"logprob": -2.0, "rank": 9}}],
            "logprobs": {"token_logprobs": [None, -1.0, -2.0], "top_logprobs": [None, {"a": -1.0}, {"b": -0.5}]},
        }
    ]
}


@given(changed(LINE) | changed(PLAIN))
@examples(60)
def test_a_line_of_questions(tmp_path_factory: Any, value: Any) -> None:
    """What is read can be asked, and its right answer judged."""
    file = tmp_path_factory.getbasetemp() / "line.jsonl"
    file.write_text(dumps(value) + "\n", encoding="utf-8")

    def read() -> None:
        for item in items.read(file):
            json.dumps(item.messages("{question}\n"), ensure_ascii=False).encode()
            verdict.judge(item, json.dumps(item.call) if item.call else item.answers[0], "")

    only_user_errors(read)


@given(spliced((json.dumps(LINE) + "\n" + json.dumps(PLAIN) + "\n").encode()))
@examples(60)
def test_the_bytes_of_a_file_of_questions(tmp_path_factory: Any, data: bytes) -> None:
    """A file that is cut, overwritten or doubled."""
    file: Path = tmp_path_factory.getbasetemp() / "bytes.jsonl"
    file.write_bytes(data)
    only_user_errors(lambda: items.read(file))


@given(changed({"name": "add", "arguments": {"a": 1, "b": [2.0, {"c": None}]}}) | st.text(max_size=60))
@examples(80)
def test_an_answer_that_should_be_a_call(value: Any) -> None:
    """Right or wrong, and nothing else."""
    answer = value if isinstance(value, str) else f"Sure: {dumps(value)} {{"
    assert isinstance(verdict.judge(CALL, answer, "").right, bool)
    assert isinstance(verdict.judge(Item(1, "q", ("1,250",)), answer, r"(\d[\d,]*)").right, bool)


@given(changed(BODY))
@examples(80)
def test_log_probabilities_of_a_server(value: Any) -> None:
    """Finite sums, or a sentence."""
    for how in ("echo", "prompt_logprobs"):
        with suppress(ValueError):
            score = choices.score(dumps(value), 1, [3, 4], how)
            assert isinstance(score, ChoiceScore)
            assert abs(score.logprob) < float("inf")
