"""Ids of a tokenizer that have no row in the embedding are told when a suite is planned."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from bench.contract.errors import UserError
from bench.contract.spec import Model
from bench.models import resolve

VOCABULARY = {f"t{i}": i for i in range(64)}


def _model(folder: Path, tokenizer: Any, vocab_size: int = 64, rows: int = 64) -> Path:
    folder.mkdir(exist_ok=True)
    tensors = {"model.embed_tokens.weight": (rows, 8), "model.layers.0.mlp.up_proj.weight": (16, 8)}
    save_file({name: np.zeros(shape, np.float16) for name, shape in tensors.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": vocab_size}))
    (folder / "tokenizer.json").write_text(tokenizer if isinstance(tokenizer, str) else json.dumps(tokenizer))
    return folder


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize(
    ("tokenizer", "sentence"),
    [
        ({"model": {"vocab": {**VOCABULARY, "late": 70}}}, r"m: its tokenizer gives ids up to 70 \('late'\).* 64 rows"),
        ({"model": {"vocab": [["a", -1.0]] * 65}}, "gives ids up to 64"),
        ({"added_tokens": [{"id": 64, "content": "new", "special": False}]}, r"up to 64 \('new'\)"),
        ({"post_processor": {"special_tokens": {"<s>": {"ids": [99]}}}}, r"up to 99 \('<s>'\)"),
        ("[" * 100_000, r"m/tokenizer\.json cannot be read: it is nested too deep"),
        ("[]", r"m/tokenizer\.json is not a JSON object"),
    ],
)
def test_an_id_beyond_the_embedding_is_refused(tmp_path: Path, tokenizer: Any, sentence: str) -> None:
    """Whether the text, an added token or what is put around a text gives it."""
    with pytest.raises(UserError, match=sentence):
        resolve.resolve(Model(str(_model(tmp_path / "m", tokenizer))), fetch=False)


@pytest.mark.usefixtures("cache")
def test_what_no_text_gives_may_lie_beyond(tmp_path: Path) -> None:
    """A padding token that fine-tuning added, fewer tokens than rows, and a tokenizer of another form."""
    padding = {"model": {"vocab": VOCABULARY}, "added_tokens": [{"id": 64, "content": "<pad>", "special": True}]}
    for tokenizer in (padding, {"model": {"vocab": {"a": 0}}}, {"model": {"vocab": 7}, "added_tokens": 5}):
        assert resolve.resolve(Model(str(_model(tmp_path / "m", tokenizer))), fetch=False).format == "hf"


@pytest.mark.usefixtures("cache")
def test_the_stored_rows_decide(tmp_path: Path) -> None:
    """And not what the config says they are."""
    tokenizer = {"model": {"vocab": {"a": 70}}}

    resolve.resolve(Model(str(_model(tmp_path / "m", tokenizer, vocab_size=64, rows=80))), fetch=False)
    with pytest.raises(UserError, match="has 64 rows"):
        resolve.resolve(Model(str(_model(tmp_path / "m", tokenizer, vocab_size=80, rows=64))), fetch=False)
