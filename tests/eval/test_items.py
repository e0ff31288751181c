"""The tasks that ship: made from the standard library's held-out modules, or read from a local file."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.contract.errors import UserError
from eval import corpora, local_items, stdlib_items
from tests.conftest import ROOT

MAKERS = {
    "next_line": stdlib_items.next_lines,
    "argument": stdlib_items.arguments,
    "docstring": stdlib_items.docstrings,
}
_DIGESTS = """
import hashlib, json
from eval import stdlib_items as s
for make in (s.next_lines, s.arguments, s.docstrings):
    print(hashlib.sha256(json.dumps(make()).encode()).hexdigest()[:16])
"""
_MADE = {  # by the Python that the demo model was trained on
    (3, 11, 7): ("eb0d64906cc5c056", "1ffd680548cbc68e", "ce5a78aecb5f9753")
}


@pytest.mark.parametrize("name", sorted(MAKERS))
def test_each_task_has_a_thousand_sound_items(name: str) -> None:
    """Four different choices, the right one at every place about as often, from modules held out."""
    items = MAKERS[name]()
    held_out = {module for module, _ in corpora.stdlib_modules("evaluation")}

    assert len(items) >= 1000
    assert len({item["where"] for item in items}) == len(items)
    assert all(len(set(item["choices"])) == 4 for item in items)
    assert all(200 <= count <= 300 for count in Counter(item["label"] for item in items).values())
    assert {item["where"].partition(":")[0] for item in items} <= held_out


@pytest.mark.parametrize("name", sorted(MAKERS))
def test_the_right_choice_is_what_the_source_says(name: str) -> None:
    """Context and right choice together stand in the module, up to blanks between the two."""
    sources = {module: "".join(text.split()) for module, text in corpora.stdlib_modules("evaluation")}
    for item in MAKERS[name]():
        whole = item["context"] + item["choices"][item["label"]]

        assert "".join(whole.split()) in sources[item["where"].partition(":")[0]]


def test_no_blind_rule_beats_chance_at_docstrings() -> None:
    """Always closing the docstring is right in a quarter of the items; so is never closing it, at best."""
    items = stdlib_items.docstrings()
    closes = [[('"""' in c or "'''" in c) for c in item["choices"]] for item in items]
    ends = sum(its[item["label"]] and sum(its) == 1 for its, item in zip(closes, items, strict=True))

    assert 0.2 <= ends / len(items) <= 0.3


def test_one_line_gives_one_argument_item() -> None:
    """Two uses in one line would end in the same text, cut at different places."""
    places = [item["where"].rpartition(":")[0] for item in stdlib_items.arguments()]

    assert len(set(places)) == len(places)


@pytest.mark.slow
def test_items_do_not_depend_on_the_process() -> None:
    """Another hash seed, the same items; with Python 3.11.7, these."""
    result = [
        subprocess.run(
            [sys.executable, "-c", _DIGESTS],
            cwd=ROOT,
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout.split()
        for seed in ("1", "2")
    ]

    assert result[0] == result[1]
    assert tuple(result[0]) == _MADE.get(sys.version_info[:3], tuple(result[0]))


def _broken(tmp_path: Path, line: str) -> Callable[[], Any]:
    file = tmp_path / "items.jsonl"
    good = json.dumps({"query": "q", "choices": ["a", "b"], "gold": 1})
    file.write_text(f"{good}\n{line}\n{good}\n")
    return lambda: local_items.read(file)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"query": "q", "choices": ["a", ', "items.jsonl, line 2 is not JSON"),
        ('{"query": "q", "choices": ["a"]}', "items.jsonl, line 2: gold missing"),
        ('{"query": "q", "choices": "ab", "gold": 0}', "line 2: choices missing or of another type"),
        ('{"query": "q", "choices": ["a"], "gold": 1}', "line 2: gold 1 is none of its 1 choices"),
        ('{"query": "q", "choices": ["a", "b"], "gold": true}', "line 2: gold missing or of another type"),
        ("[1, 2]", "line 2: query, choices, gold missing"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    """By file and number, with what is wrong in it."""
    with pytest.raises(UserError, match=r"items\.jsonl") as caught:
        _broken(tmp_path, line)()

    assert message in str(caught.value)


def test_whole_files_are_read_and_missing_ones_named(tmp_path: Path) -> None:
    """Blank lines are nothing; a file that is not there, or has no item, is one sentence."""
    assert len(_broken(tmp_path, "")()) == 2
    (tmp_path / "none.jsonl").write_text("\n")
    for name in ("absent.jsonl", "none.jsonl"):
        with pytest.raises(UserError, match=name):
            local_items.read(tmp_path / name)
    with pytest.raises(UserError, match="give data: path:FOLDER"):
        local_items.rows(file="arc_easy.jsonl")


def test_a_packed_file_is_the_same(tmp_path: Path) -> None:
    """By what it holds and not by its name; one that breaks off, or is damaged, is one sentence."""
    items = [{"query": "line\u2028separator", "choices": ["a", "b"], "gold": 1}] * 200
    lines = "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items).encode()
    packed, damaged = gzip.compress(lines), bytearray(gzip.compress(lines))
    damaged[len(packed) // 2] ^= 0xFF
    for name, content in {"plain": lines, "packed.gz": packed, "packed": packed}.items():
        (tmp_path / name).write_bytes(content)
        assert local_items.read(tmp_path / name) == items
    for broken in (packed[: len(packed) // 2], bytes(damaged), packed[:-8]):
        (tmp_path / "broken.gz").write_bytes(broken)
        with pytest.raises(UserError, match=r"broken\.gz cannot be read as a JSONL file of items: .+"):
            local_items.read(tmp_path / "broken.gz")


def test_last_words_are_pairs_of_text(tmp_path: Path) -> None:
    """{context, continuation}, each a text."""
    file = tmp_path / "lambada.jsonl"
    file.write_text('{"context": "a b", "continuation": "c"}\n')
    assert local_items.read_last_words(file) == [{"context": "a b", "continuation": "c"}]
    file.write_text('{"context": "a b", "continuation": 3}\n')
    with pytest.raises(UserError, match="line 1: continuation missing or of another type; an item is"):
        local_items.read_last_words(file)


def test_only_a_sentence_that_breaks_off_is_capitalized() -> None:
    """As str.capitalize does it, which lowers the rest; a whole sentence at the end is left."""
    assert local_items.capitalized("Jump: A boy. Runs! the boy in Red") == "Jump: A boy. Runs! The boy in red"
    assert local_items.capitalized("Jump: the Boy") == "Jump: The boy"
    for whole in ("Jump: a Boy runs.", 'Jump: he says "Yes"', "Jump: why? Who?"):
        assert local_items.capitalized(whole) == whole


def test_shipped_tasks_are_worded_by_their_own_names() -> None:
    """A file of configs/tasks is found by its task's name, which a suite gives."""
    for file in (ROOT / "configs/tasks").glob("*.yaml"):
        assert f"task: {file.stem}\n" in file.read_text()
