"""Architectures that people use: the config.json of a tiny model of each, as YAML in configs/architectures."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from bench import paths, yaml
from bench.contract import plugins
from bench.contract.errors import UserError
from bench.formats import folder as model_folder

TOKENIZER = paths.ROOT / "models/demo"  # the tokenizer of them all


def names() -> tuple[str, ...]:
    return tuple(sorted(file.name.removesuffix(".yaml") for file in _folder().glob("*.yaml")))


def chosen(given: Sequence[str]) -> tuple[str, ...]:
    """The architectures that the words name, commas between them or not; all where there are none."""
    words = [word.strip() for text in given for word in text.split(",") if word.strip()]
    for word in words:
        if word not in names():
            raise UserError(plugins.unknown("architecture", word, names()))
    return tuple(dict.fromkeys(words)) or names()


def summary(name: str) -> str:
    """What is particular about it: the first line of its file."""
    return _file(name).read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")


@cache
def settings(name: str) -> dict[str, Any]:
    """The config.json of the architecture, with the tokenizer's ids."""
    tokenizer = model_folder.read_config(TOKENIZER)
    shared = {key: tokenizer[key] for key in ("vocab_size", "bos_token_id", "eos_token_id")}
    return {"dtype": "float32", **shared, **yaml.load_file(_file(name))}


def _file(name: str) -> Path:
    return _folder() / f"{name}.yaml"


def _folder() -> Path:
    return paths.CONFIGS / "architectures"
