"""A prompt of real text: a line of a user's file, as a load asks it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TextPrompt:
    """`messages` as (role, content), the last one to be answered; `text`: what the model reads of them.

    `id` and `category` are those of the file, the id its line where it has none, the category then "". `line` counts
    from 1. `ids`: the text by the model's tokenizer, special tokens included; () where nothing here can tell.
    `later_turns`: questions of the same line that a load leaves out, since each waits for the answer before it.
    """

    id: str
    messages: tuple[tuple[str, str], ...]
    category: str = ""
    line: int = 0
    text: str = ""
    ids: tuple[int, ...] = ()
    later_turns: int = 0
