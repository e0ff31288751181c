"""Questions of a JSONL file: which lines are read, and which answers are right."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from bench.contract.errors import UserError
from bench.suite import config
from eval.questions import items, verdict
from eval.questions.items import Item
from eval.tasks import questions

_FINE = {"question": "What is 1 + 1?", "answer": "2"}
_ADD = {"name": "add", "description": "Add", "parameters": {}}
_CALL = {"question": "Add 1 and 2.", "functions": [_ADD], "call": {"name": "add", "arguments": {"a": 1, "b": 2}}}


def _file(path: Path, *rows: Any) -> Path:
    text = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
    file = path / "mine.jsonl"
    file.write_text(text, encoding="utf-8")
    return file


def test_lines_are_read_in_order_and_cut_to_the_limit(tmp_path: Path) -> None:
    """Blank lines are none, a byte order mark is none, and line numbers are the file's."""
    file = _file(tmp_path, "\ufeff" + json.dumps(_FINE), "", _CALL, {**_FINE, "answer": ["2", "two"]})

    assert [item.line for item in items.read(file)] == [1, 3, 4]
    assert items.read(file)[2].answers == ("2", "two")
    assert len(items.read(file, 2)) == 2


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ("{", "line 2 is not JSON"),
        ("[" * 100_000, "line 2 is not JSON"),
        ("[]", "line 2 is no JSON object"),
        ({"question": "\ud800", "answer": "2"}, "line 2 has half of a character"),
        ({"answer": "2"}, "line 2: question is missing or no text"),
        ({"question": "  ", "answer": "2"}, "line 2: question is missing or no text"),
        ({"question": "q"}, "line 2: answer is missing"),
        ({"question": "q", "answer": 2}, "line 2: answer is missing, or neither a text nor a list"),
        ({"question": "q", "answer": []}, "line 2: answer is missing"),
        ({**_FINE, "pattern": "("}, "line 2: pattern is no regular expression"),
        ({**_FINE, "pattern": 1}, "line 2: pattern is no text"),
        ({**_CALL, "functions": []}, "line 2: functions is missing"),
        ({**_CALL, "call": {"name": "add"}}, "line 2: call is missing, or not {name, arguments}"),
        ({**_CALL, "call": {"name": "sub", "arguments": {}}}, "line 2: call names 'sub', which is none of"),
        ({"question": "q", "functions": [_ADD]}, "line 2: call is missing"),
    ],
)
def test_a_line_without_its_fields_is_named(tmp_path: Path, row: Any, sentence: str) -> None:
    """One sentence with the file's name, the line's number and what is wrong."""
    with pytest.raises(UserError) as error:
        items.read(_file(tmp_path, _FINE, row))

    assert f"mine.jsonl, {sentence}" in str(error.value)


def test_a_file_without_a_question_is_refused(tmp_path: Path) -> None:
    """An empty file, one that is missing, one of other bytes, and a folder."""
    with pytest.raises(UserError, match="holds no question"):
        items.read(_file(tmp_path, ""))
    with pytest.raises(UserError, match="cannot be read as a JSONL file of questions: No such file"):
        items.read(tmp_path / "missing.jsonl")
    (tmp_path / "bytes.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="cannot be read as a JSONL file of questions"):
        items.read(tmp_path / "bytes.jsonl")
    with pytest.raises(UserError, match="cannot be read as a JSONL file of questions: Is a directory"):
        items.read(tmp_path)


@pytest.mark.parametrize(
    ("answer", "pattern", "right"),
    [
        ("18", "", True),
        ("  18\n", "", True),
        ("It is 18", "", False),
        ("16 - 3 = 13, so 9 x 2 = 18.", r"-?\d[\d,.]*", True),
        ("18, or maybe 19", r"-?\d[\d,.]*", False),
        ("no number", r"-?\d[\d,.]*", False),
        ("#### 18", r"#### (-?[\d,.]+)", True),
    ],
)
def test_an_answer_is_compared_by_its_last_match(answer: str, pattern: str, right: bool) -> None:  # noqa: FBT001
    """Of the reference too, as GSM8K's end in #### 18; without a pattern the whole text counts."""
    reference = "9 * 2 = 18\n#### 18" if pattern else "18"

    assert verdict.judge(Item(1, "q", (reference,)), answer, pattern).right is right


def test_commas_in_numbers_do_not_count() -> None:
    """1,250 and 1250 are one number, and 3,4 are two."""
    assert verdict.extracted("about 1,250", r"\d[\d,]*") == verdict.extracted("1250", r"\d[\d,]*") == "1250"
    assert verdict.extracted("x = 3,4", r"\d[\d,]*") == "3,4"


@pytest.mark.parametrize(
    ("answer", "is_json", "name", "right"),
    [
        ('{"name": "add", "arguments": {"a": 1, "b": 2}}', True, True, True),
        ('Sure:\n```json\n{"name": "add", "arguments": {"b": 2.0, "a": 1}}\n```', True, True, True),
        ('{"function": {"name": "add", "arguments": "{\\"a\\": 1, \\"b\\": 2}"}}', True, True, True),
        ('{"name": "add", "arguments": {"a": 1, "b": "2"}}', True, True, False),
        ('{"name": "add", "arguments": {"a": true, "b": 2}}', True, True, False),
        ('{"name": "add", "arguments": {"a": 1, "b": 2, "c": 3}}', True, True, False),
        ('{"name": "multiply", "arguments": {"a": 1, "b": 2}}', True, False, False),
        ('{"name": "add", "arguments": {"a": 1, "b": 2}', False, False, False),
        ("add(1, 2)", False, False, False),
        ("{" * 5000, False, False, False),
        ("", False, False, False),
    ],
)
def test_a_call_is_right_with_its_function_and_all_its_arguments(
    answer: str,
    is_json: bool,  # noqa: FBT001
    name: bool,  # noqa: FBT001
    right: bool,  # noqa: FBT001
) -> None:
    """The first JSON object that is a call counts, in any order of its keys."""
    item = Item(1, "q", functions=(_ADD,), call=_CALL["call"])  # type: ignore[arg-type]
    judged = verdict.judge(item, answer, "")

    assert (judged.is_json, judged.name, judged.right) == (is_json, name, right)


def test_the_questions_that_ship_answer_themselves() -> None:
    """Each line's own call, as an answer, is right; its functions stand in what is asked."""
    shipped = items.read(questions._file(questions.Options()))

    assert len(shipped) == 40
    for item in shipped:
        assert verdict.judge(item, json.dumps(item.call), "").right
        (_, listed), (_, question) = item.messages("{question}\n")
        assert all(json.dumps(function, ensure_ascii=False) in listed for function in item.functions)
        assert item.question in question


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"pattern": "("}, "pattern: no regular expression"),
        ({"prompt": "Answer:"}, "prompt: needs {question}"),
        ({"new_tokens": 0}, "new_tokens: must be at least 1"),
        ({"via": "server", "concurrency": 0}, "concurrency: must be at least 1, got 0"),
        ({"limit": -1}, "limit 0 (all) or more"),
    ],
)
def test_options_that_mean_nothing_are_refused(options: dict[str, Any], sentence: str) -> None:
    """One sentence that names the option."""
    with pytest.raises(UserError) as error:
        config.options("eval.tasks", "questions", options, "questions")

    assert sentence in str(error.value)


def test_a_title_says_what_is_not_the_default() -> None:
    """The file's name, the limit, the template, and where it is asked; what changes the answers has a digest."""
    plain, mine = questions.Options(), questions.Options(path="path:data/gsm8k_test.jsonl", limit=100, chat=True)

    assert questions.title(plain) == "questions-tool_calls"
    assert questions.title(mine) == "questions-gsm8k_test-100items-chat"
    served = dataclasses.replace(mine, via="server", concurrency=16)
    assert questions.title(served) == "questions-gsm8k_test-100items-chat-server-c16"
    assert questions.title(dataclasses.replace(plain, stop="\n")) != questions.title(plain)
    with pytest.raises(UserError, match=r"no questions called 'tool_call' ship \(known: tool_calls\)"):
        questions.depends(questions.Options(name="tool_call"))


def test_shares_of_calls_are_of_the_calls() -> None:
    """Accuracy is of all items; JSON and names are of those that are calls."""
    facts = {"items": 4, "item_scores": "1000", "calls": 2, "is_json": 2, "name_right": 1}
    values = questions.metrics(facts)

    assert (values["accuracy_fraction"], values["is_json_fraction"], values["name_fraction"]) == (0.25, 1.0, 0.5)
    assert values["accuracy_low_fraction"] < 0.25 < values["accuracy_high_fraction"]
