"""Two tokenizers are compared by their files alone: what cuts a text otherwise is told, and nothing else is."""

from __future__ import annotations

import copy
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import pytest

from bench.models import tokenization

_TOKENS = ["<unk>", "a", "b", "\u2581ab", "ab", "<pad>"]
_BASE: dict[str, Any] = {
    "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"},
    "pre_tokenizer": {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "first", "split": True},
    "post_processor": {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<unk>"}}, {"Sequence": {"id": "A"}}],
        "special_tokens": {"<unk>": {"ids": [0]}},
    },
    "model": {"type": "BPE", "vocab": {text: n for n, text in enumerate(_TOKENS[:5])}, "merges": ["a b", "\u2581 ab"]},
    "added_tokens": [{"id": 0, "content": "<unk>", "special": True}, {"id": 5, "content": "<pad>", "special": True}],
}


def _folder(folder: Path, change: Callable[[Any], object] = lambda _: None) -> Path:
    its = copy.deepcopy(_BASE)
    change(its)
    folder.mkdir()
    (folder / "tokenizer.json").write_text(json.dumps(its))
    return folder


def _gguf(file: Path, tokens: list[str], merges: list[str] = [], types: list[int] = []) -> Path:  # noqa: B006
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_token_list(tokens)
    if types:
        writer.add_token_types(types)
    if merges:
        writer.add_token_merges(merges)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda t: t["model"]["vocab"].update({"a": 2, "b": 1}), "token 1 is 'a' in the baseline's and 'b' in its own"),
        (lambda t: t["model"]["vocab"].update(c=6), "token 6 is none in the baseline's and 'c' in its own"),
        (lambda t: t["added_tokens"].append({"id": 7, "content": "x"}), "token 7 is none .* and 'x' in its own"),
        (lambda t: t["model"]["merges"].reverse(), "merge 0 is 'a b' in the baseline's and '\u0120 ab' in its own"),
        (lambda t: t["model"]["merges"].pop(), "merge 1 is '\u0120 ab' in the baseline's and none in its own"),
        (lambda t: t.update(normalizer={"type": "NFC"}), "its normalizer is another one, over the same tokens"),
        (lambda t: t["pre_tokenizer"].update(prepend_scheme="always"), "its pre_tokenizer is another one"),
        (lambda t: t["model"].update(ignore_merges=True), "its model is another one"),
        (lambda t: t.update(post_processor=None), "other tokens around a text: none where the baseline's has '<unk>'"),
    ],
)
def test_what_cuts_a_text_otherwise_is_told(tmp_path: Path, change: Callable[[Any], object], sentence: str) -> None:
    """The first token by its id, a merge, a rule, or what is put around a text."""
    one, other = _folder(tmp_path / "one"), _folder(tmp_path / "other", change)

    assert re.search(sentence, tokenization.difference(one, other))


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t["added_tokens"].append({"id": 6, "content": "<|im_start|>", "special": True}),
        lambda t: t["added_tokens"].pop(),
        lambda t: t["added_tokens"][1].update(content="[PAD]"),
        lambda t: t["model"].update(merges=[["a", "b"], ["\u2581", "ab"]], byte_fallback=False, unk_token=None),
        lambda t: t.update(pre_tokenizer={"type": "Sequence", "pretokenizers": [t["pre_tokenizer"]]}),
        lambda t: t["pre_tokenizer"].update(add_prefix_space=True),
        lambda t: t.update(truncation=None, decoder={"type": "Fuse"}),
    ],
)
def test_what_changes_no_ids_is_passed_over(tmp_path: Path, change: Callable[[Any], object]) -> None:
    """Special tokens that fine-tuning added or renamed, and how other versions write the same rules."""
    assert not tokenization.difference(_folder(tmp_path / "one"), _folder(tmp_path / "other", change))


def test_a_gguf_file_is_compared_with_a_tokenizer_json(tmp_path: Path) -> None:
    """Padding tokens beyond, and another padding token, are no difference; another merge or token is one."""
    folder, types = _folder(tmp_path / "one"), [2, 1, 1, 1, 1, 3, 5]
    same = _gguf(tmp_path / "same.gguf", [*_TOKENS, "[PAD6]"], types=types)
    merges = _gguf(tmp_path / "merges.gguf", [*_TOKENS, "[PAD6]"], ["b a", "\u2581 ab"], types)
    token = _gguf(tmp_path / "token.gguf", ["<unk>", "a", "B", *_TOKENS[3:]], types=types[:6])

    assert tokenization.difference(folder, same) == ""
    assert tokenization.difference(same, folder) == ""
    assert tokenization.difference(folder, merges).startswith("merge 0 is 'a b' in the baseline's and 'b a'")
    assert tokenization.difference(folder, token) == "token 2 is 'b' in the baseline's and 'B' in its own"
    assert tokenization.difference(token, same) == "token 2 is 'B' in the baseline's and 'b' in its own"


def test_a_tokenizer_in_older_files_is_compared_by_its_tokens(tmp_path: Path) -> None:
    """Of the demo model's SentencePiece file and its tokenizer.json; a folder without any says nothing."""
    older, none = tmp_path / "older", tmp_path / "none"
    for folder, names in (
        (older, ("config.json", "tokenizer.model", "tokenizer_config.json")),
        (none, ("config.json",)),
    ):
        folder.mkdir()
        for name in names:
            shutil.copy(f"models/demo/{name}", folder)

    assert tokenization.difference(Path("models/demo"), older) == ""
    assert tokenization.difference(_folder(tmp_path / "one"), older).startswith("token 1 is 'a' in the baseline's")
    assert tokenization.difference(Path("models/demo"), none) == ""
