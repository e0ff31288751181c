"""The answers to a load's prompts, packed for a record, and where two engines' answers part.

An answer is the token ids that an engine in process made, or the text that a server sent.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Answer = Sequence[int] | str
_LARGEST = 1 << 26  # bytes, unpacked


@dataclass(frozen=True)
class Differences:
    """Of `compared` prompts, `differing` have other answers, the first of which parts at `position`, from 0.

    `unit`: what positions count, "token" or "character".
    """

    compared: int
    differing: int
    position: int
    unit: str


def pack(answers: Mapping[str, Answer]) -> str:
    """By the prompt's name, as a text of letters and digits."""
    return base64.b64encode(zlib.compress(json.dumps(dict(answers)).encode(), 9)).decode()


def unpack(packed: str) -> dict[str, Answer]:
    """The answers in a text of `pack`; ValueError for what is none."""
    try:
        inflate = zlib.decompressobj()
        answers = json.loads(inflate.decompress(base64.b64decode(packed, validate=True), _LARGEST))
        return dict(answers.items())
    except (ValueError, AttributeError, zlib.error, RecursionError):
        raise ValueError("what is recorded as answers is damaged") from None


def differences(first: Mapping[str, Answer], second: Mapping[str, Answer]) -> Differences | None:
    """Over the prompts that both have answered; None where there are none, or where one has ids and the other text."""
    shared = [name for name in first if name in second and type(first[name]) is type(second[name])]
    if not shared:
        return None
    parted = [place for name in shared if (place := _parting(first[name], second[name])) is not None]
    unit = "character" if isinstance(first[shared[0]], str) else "token"
    return Differences(len(shared), len(parted), min(parted, default=0), unit)


def _parting(one: Answer, two: Answer) -> int | None:
    """Where two answers part; None where they are the same."""
    if one == two:
        return None
    return next((i for i, (a, b) in enumerate(zip(one, two, strict=False)) if a != b), min(len(one), len(two)))
