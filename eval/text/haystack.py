"""Prompts with one fact hidden at a known depth, for `retrieval`: generated, and the same for the same seed.

Without a text the fact is one of many pairs of a JSON object, and the prompt ends with its key (the key-value retrieval
of Liu et al. 2023, "Lost in the Middle"). In a text it is a sentence with a pass key, put between two sentences of it,
and the prompt ends by asking for the key (Mohtashami and Jaggi 2023). Answers are random: nothing but the prompt tells
them, and a guess is right once in 16^8, or in 10^7. A prompt with its answer has fewer tokens than its length, but as
many as whole pairs or sentences allow, so that an engine that makes one token more than it scores can read it.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from bench.contract.errors import UserError
from bench.contract.hooks import Session
from eval import corpora
from eval.text import tokens, windows

_SENTENCE = re.compile(r".+?(?:[.!?]\s+|\n\s*|\Z)", re.DOTALL)
_HEX, _DIGITS = 8, 7
_EXAMPLES = (1 / 3, 2 / 3)  # where the pairs are that a prompt asks for, and answers, before its own
_UNIT_TOKENS = 20  # a first guess
_MOST_CHARS = 8  # a token, on average, of any tokenizer and text


@dataclass(frozen=True)
class Place:
    """Where a fact is hidden: at `depth`, 0 being the beginning, of a prompt of `length` tokens."""

    length: int
    depth: float


@dataclass(frozen=True)
class Item:
    """Token ids of a prompt and of the answer that follows it. `fact`: the token that the hidden fact begins in."""

    place: Place
    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    fact: int


@dataclass(frozen=True)
class _Parts:
    """What a prompt is built of: `units` in order, the fact among them, and what comes after, given the units.

    `separator`: what units and fact end with, and the last of them does not.
    """

    units: Sequence[str]
    fact: str
    ending: Callable[[Sequence[str]], str]
    answer: str
    head: str = ""
    separator: str = ""

    def prompt(self, count: int, depth: float) -> tuple[str, str]:
        """With the first `count` units: what is before the fact, as deep as whole units allow, and what is after."""
        units = self.units[:count]
        ends = [0, *accumulate(map(len, units))]
        at = min(range(count + 1), key=lambda k: abs(ends[k] - depth * ends[-1]))
        before = self.head + "".join(units[:at])
        after = "".join((self.fact, *units[at:])).removesuffix(self.separator)
        return before, after + self.ending(units)


def items(
    session: Session, folder: Path, corpus: corpora.Corpus | None, places: Sequence[Place], count: int, seed: int
) -> Iterator[Item]:
    """`count` items for each place, in order, as this artifact's tokenizer splits them.

    UserError for a length that the question alone fills, or that the text does not.
    """
    sentences = _SENTENCE.findall(corpus.text) if corpus else []
    for place in places:
        for number in range(count):
            draw = random.Random(f"{seed}/{place.length}/{place.depth:g}/{number}")  # noqa: S311  (reproducible, not secret)
            parts = _in_text(draw, sentences, place.length) if corpus else _pairs(draw, place.length)
            yield _item(session, folder, parts, place, windows.label(corpus.name) if corpus else "")


def _pairs(draw: random.Random, length: int) -> _Parts:
    """Pairs of a JSON object, a line each; two are asked for and answered before the one that is meant."""
    words = _distinct(draw, 2 * (length // 8 + 4))
    units = [f'"{key}": "{value}",\n' for key, value in zip(words[2::2], words[3::2], strict=True)]
    key, answer = words[:2]

    def ending(units: Sequence[str]) -> str:
        examples = "\n".join(units[int(share * len(units))].removesuffix(",\n") for share in _EXAMPLES)
        return f'\n}}\n\nValues of keys in the JSON object above:\n{examples}\n"{key}": "'

    return _Parts(units, f'"{key}": "{answer}",\n', ending, answer, "{\n", ",\n")


def _distinct(draw: random.Random, count: int) -> list[str]:
    """So many words of hexadecimal digits, no two the same."""
    words: dict[str, None] = {}
    while len(words) < count:
        words[f"{draw.getrandbits(4 * _HEX):0{_HEX}x}"] = None
    return list(words)


def _in_text(draw: random.Random, sentences: Sequence[str], length: int) -> _Parts:
    """Sentences from a drawn one on, as far as there are enough after it."""
    remaining = list(accumulate(map(len, reversed(sentences))))
    last = sum(chars >= _MOST_CHARS * length for chars in remaining)  # sentences with so much text from them on
    start = draw.randrange(max(1, last))
    answer = f"{draw.randrange(10**_DIGITS):0{_DIGITS}d}"
    fact = f"The pass key is {answer}. Remember it: {answer} is the pass key.\n"
    return _Parts(sentences[start:], fact, lambda _: "\n\nWhat is the pass key? The pass key is", f" {answer}")


def _item(session: Session, folder: Path, parts: _Parts, place: Place, text: str) -> Item:
    """The prompt with as many units as fit."""

    def encoded(count: int) -> tokens.Encoded:
        before, after = parts.prompt(count, place.depth)
        return tokens.encode(session, f"{before}{after}{parts.answer}", folder)

    least = len(_EXAMPLES)
    count, fitting = _most(encoded, least, len(parts.units), place.length - 1)
    if fitting is None:
        raise UserError(
            f"a prompt of {place.length} tokens has no room for its question: {len(encoded(least).ids) + 1} are needed"
        )
    if text and count == len(parts.units):
        raise UserError(f"the text '{text}' has fewer tokens than a prompt of {place.length}: name a longer text")
    before, after = parts.prompt(count, place.depth)
    ends = list(accumulate(fitting.sizes))
    split = _token_at(ends, len(f"{before}{after}".encode()))
    answer_end = _token_at(ends, ends[-1] - 1) + 1  # without an end token, which covers no text
    fact = _token_at(ends, len(before.encode()))
    return Item(place, tuple(fitting.ids[:split]), tuple(fitting.ids[split:answer_end]), fact)


def _most(
    encoded: Callable[[int], tokens.Encoded], least: int, most: int, limit: int
) -> tuple[int, tokens.Encoded | None]:
    """The largest count of units, from `least` to `most`, with at most `limit` tokens, and these; None for none.

    Units are about equally long, so that the next guess is a proportion, and a few are enough.
    """
    low, high = least - 1, most + 1
    fitting: tokens.Encoded | None = None
    guess = min(max(limit // _UNIT_TOKENS, least), most)
    while high - low > 1:
        trial = encoded(guess)
        size = len(trial.ids)
        if size <= limit:
            low, fitting = guess, trial
        else:
            high = guess
        guess = min(max(guess + (limit - size) * guess // max(size, 1), low + 1), high - 1)
    return low, fitting


def _token_at(ends: Sequence[int], byte: int) -> int:
    """The index of the token that covers this byte of the text, by the bytes at which tokens end."""
    return next(index for index, end in enumerate(ends) if end > byte)
