"""ShareGPT (one JSON list of conversations: texts without times)."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any, TextIO

import orjson

from bench.contract.errors import UserError
from bench.load.traces.format import CountTokens, TraceRequest, UnknownFormatError, damaged

_BYTES_MAX = 2 << 30
_VALUES_MAX = 40_000_000  # lists, objects and their members, by the signs that open and part them; texts have some too
DESCRIPTION = "a ShareGPT JSON file (a list of conversations)"


def matches(first_line: str) -> bool:
    return first_line.lstrip().startswith("[")


def read(path: Path, stream: TextIO, count_tokens: CountTokens | None) -> list[TraceRequest]:
    """The first human turn of each conversation whose next turn answers it, all at time 0.

    Both lengths are counted by `count_tokens`; UserError without it.
    """
    text = stream.read(_BYTES_MAX)
    if len(text) == _BYTES_MAX or sum(map(text.count, "[{,")) > _VALUES_MAX:
        raise UserError(
            f"{path} is longer than a ShareGPT file that fits into memory: it may have {_BYTES_MAX >> 30} GiB and "
            f"{_VALUES_MAX:,} values; give a part of it"
        )
    try:
        conversations = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise damaged(path, error.lineno, error.msg) from error
    if conversations and not (isinstance(conversations[0], dict) and "conversations" in conversations[0]):
        raise UnknownFormatError
    if count_tokens is None:
        raise UserError(f"{path} has texts without lengths: give a model with a tokenizer.json")
    pairs = filter(None, map(_first_exchange, conversations))
    return [TraceRequest(0.0, count_tokens(prompt), count_tokens(answer), text=prompt) for prompt, answer in pairs]


def _first_exchange(conversation: Any) -> tuple[str, str] | None:
    """(prompt, answer) of the first human turn, if the next turn answers it."""
    turns = conversation.get("conversations") if isinstance(conversation, dict) else None
    pairs = [(turn.get("from"), turn.get("value")) for turn in turns or () if isinstance(turn, dict)]
    for (asker, prompt), (answerer, answer) in pairwise(pairs):
        if asker == "human":
            answered = answerer == "gpt" and isinstance(prompt, str) and isinstance(answer, str)
            return (str(prompt), str(answer)) if answered else None
    return None
