"""Transformers' classes of models: what each assumes where a config.json leaves a key out, and which are no decoders.

The table beside this file is printed by the library itself (tests/formats/transformers_classes.py), so that workers
and the core environment, which have no transformers, read a config as the library does.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any


def default(model_type: str, name: str) -> Any:
    """What the class takes `name` to be; None where it says nothing, or is not known."""
    return _decoder(model_type)["defaults"].get(name)


def own_name(model_type: str, name: str) -> str:
    """The class's own name for what transformers calls `name` (n_embd for hidden_size in GPT-2)."""
    return str(_decoder(model_type)["names"].get(name, name))


def other_kind(model_type: str) -> str:
    """What a class is that predicts no next token: an encoder, an encoder-decoder, vision or audio; else ""."""
    return next((kind for kind, names in _table()["others"].items() if model_type in names), "")


def _decoder(model_type: str) -> dict[str, dict[str, Any]]:
    entry: dict[str, dict[str, Any]] = _table()["decoders"].get(model_type, {"defaults": {}, "names": {}})
    return entry


@cache
def _table() -> dict[str, Any]:
    text = Path(__file__).with_name("transformers_classes.json").read_text(encoding="utf-8")
    table: dict[str, Any] = json.loads(text)
    return table
