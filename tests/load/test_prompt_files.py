"""Files of real prompts: every published format is recognised by its keys, and a wrong line is one sentence."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from bench.contract.errors import UserError
from bench.load import prompt_files

SPEC_BENCH = [
    {"question_id": 81, "category": "writing", "turns": ["Write a poem.", "Shorten it."]},
    {"question_id": 111, "category": "math", "turns": ["What is 3 + 4?"], "reference": ["7"]},
]
SHAREGPT = [
    {"id": "a", "conversations": [{"from": "human", "value": "Hello."}, {"from": "gpt", "value": "Hi."}]},
    {"id": "b", "conversations": [{"from": "gpt", "value": "An answer to nothing."}]},
    {"id": "c", "conversations": []},
    {
        "id": "d",
        "conversations": [
            {"from": "system", "value": "Be kind."},
            {"from": "human", "value": "Why?"},
            {"from": "gpt", "value": "So."},
            {"from": "human", "value": "And now?"},
        ],
    },
]


def _lines(folder: Path, objects: list[dict[str, Any]], name: str = "p.jsonl") -> Path:
    file = folder / name
    file.write_text("".join(json.dumps(each) + "\n" for each in objects))
    return file


def test_spec_benchs_first_turns_keep_their_id_and_category(tmp_path: Path) -> None:
    """Later turns wait for answers: they are counted, and not asked. The file's own hash is in what is read."""
    file = _lines(tmp_path, SPEC_BENCH)
    read = prompt_files.read(file)

    assert [(p.id, p.category, p.messages, p.line, p.later_turns) for p in read.prompts] == [
        ("81", "writing", (("user", "Write a poem."),), 1, 1),
        ("111", "math", (("user", "What is 3 + 4?"),), 2, 0),
    ]
    assert read.kinds == ("turns",)
    assert read.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.mark.parametrize("as_list", [True, False])
def test_sharegpt_is_read_as_a_list_and_as_lines(tmp_path: Path, as_list: bool) -> None:  # noqa: FBT001
    """What a person says first, after a system's words; conversations that nobody begins are left out."""
    file = tmp_path / "sharegpt.json"
    file.write_text(json.dumps(SHAREGPT) if as_list else "\n".join(map(json.dumps, SHAREGPT)))
    prompts = prompt_files.read(file).prompts

    assert [(p.id, p.messages, p.later_turns) for p in prompts] == [
        ("a", (("user", "Hello."),), 0),
        ("d", (("system", "Be kind."), ("user", "Why?")), 1),
    ]


def test_a_prompt_or_messages_a_line(tmp_path: Path) -> None:
    """Blank lines count as lines; an answer at the end is what a model is to give; without an id the line is it."""
    file = tmp_path / "mine.jsonl"
    talk = [{"role": "user", "content": "One?"}, {"role": "assistant", "content": "Two."}]
    file.write_text(f'{{"prompt": "def f("}}\n\n{json.dumps({"id": "t", "category": "talk", "messages": talk})}\n')
    one, two = prompt_files.read(file).prompts

    assert (one.id, one.category, one.line) == ("line 1", "", 1)
    assert (two.id, two.category, two.line, two.messages) == ("t", "talk", 3, (("user", "One?"),))
    assert prompt_files.read(file).kinds == ("messages", "prompt")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "has no prompt in it: expected Spec-Bench's question.jsonl"),
        ("[]", "has no prompt in it"),
        ('{"prompt": "x"}\n{"prompt": ""}', "line 2: prompt: expected a text that is not empty"),
        ('{"prompt": "x"}\n{"prompt"', r"line 2: not valid JSON \("),
        ('{"prompt": "x"}\n[1]', "line 2: it is no JSON object"),
        ('{"text": "x"}', r"unknown prompt format in .*, line 1 \(keys: 'text'\): expected Spec-Bench's"),
        ('{"turns": []}', "line 1: turns: expected a list of texts"),
        ('{"messages": [{"role": "user"}]}', "line 1: messages: expected a list of {role, content}, both texts"),
        ('{"messages": [{"role": "assistant", "content": "x"}]}', "line 1: messages: none of them asks anything"),
        ('{"conversations": 3}', "line 1: conversations: expected a list of {from, value}"),
        ("prompt,category\nx,y\n", r"line 1: not valid JSON \("),
    ],
)
def test_what_is_no_file_of_prompts_is_one_sentence(tmp_path: Path, text: str, words: str) -> None:
    """With the file and the line."""
    file = tmp_path / "p.jsonl"
    file.write_text(text)
    with pytest.raises(UserError, match=words) as raised:
        prompt_files.read(file)
    assert str(file) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_file_that_is_written_anew_is_read_anew(tmp_path: Path) -> None:
    """What is kept of a file is not kept for another content."""
    assert len(prompt_files.read(_lines(tmp_path, SPEC_BENCH)).prompts) == 2
    assert len(prompt_files.read(_lines(tmp_path, SPEC_BENCH * 2)).prompts) == 4


def test_an_id_steers_no_terminal(tmp_path: Path) -> None:
    """A file of a stranger's: ids and categories are one short printable line."""
    file = _lines(tmp_path, [{"id": "\x1b[2J" + "x" * 200, "category": "a\nb", "prompt": "p"}])
    (prompt,) = prompt_files.read(file).prompts

    assert prompt.id.isprintable()
    assert len(prompt.id) == 80
    assert prompt.category == "a b"
