"""Code that a model brings: where it would be copied to there is a file, and its need is one sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.process import model_code

_SENTENCE = (
    "the model needs code of its own (own.Model), which is not run here: name a model whose architecture and tokenizer "
    "the library has itself"
)


@pytest.mark.parametrize(
    "message",
    [
        "Please pass the argument `trust_remote_code=True` to allow custom code to be run.",
        "The repository model contains custom code which must be executed",
        "[Errno 20] Not a directory: '/tmp/x/hf_modules/transformers_modules/model'",
        "model type `own` but Transformers does not recognize this architecture",
        "Model architectures ['OwnModel'] are not supported for now. Supported architectures:",
        "Unrecognized processing class in /m. Can't instantiate a processor",
        "the model brings code of its own (own.Model), which is not run",
    ],
)
def test_what_a_library_says_of_missing_code_is_one_sentence(message: str, tmp_path: Path) -> None:
    """Of a folder that names code, in its config or its tokenizer's, also nested."""
    for name, value in (
        ("config.json", {"auto_map": {"AutoModel": "own.Model"}}),
        ("config.json", {"vision_config": {"auto_map": {"AutoConfig": "own.Model"}}}),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": [None, "own.Model"]}}),
    ):
        (tmp_path / name).write_text(json.dumps(value))
        assert model_code.needed(tmp_path, message) == _SENTENCE
        (tmp_path / name).unlink()


def test_what_is_not_about_code_is_left_as_it_is(tmp_path: Path) -> None:
    """Other reasons of a model with code, the same words of one without, files that are no JSON or no folder."""
    asks = "Please pass trust_remote_code=True"
    assert not model_code.needed(tmp_path, asks)
    (tmp_path / "config.json").write_text('{"model_type": "own"}')
    (tmp_path / "tokenizer_config.json").write_text("[" * 100_000)
    assert not model_code.needed(tmp_path, asks)
    assert not model_code.needed(tmp_path / "config.json", asks)
    (tmp_path / "config.json").write_text('{"auto_map": {"AutoModel": "own.Model"}}')
    assert not model_code.needed(tmp_path, "out of memory")
