"""Prompts as token ids: of exact length by construction, and of different first tokens.

Different first tokens mean that no prefix cache can hit.
"""

from __future__ import annotations

import random


def unique(count: int, length: int, vocab_size: int, seed: str) -> tuple[tuple[int, ...], ...]:
    """`count` prompts of `length` ids in the upper part of the vocabulary.

    The same for every engine given one seed.

    The low ids (special tokens, and byte tokens in SentencePiece vocabularies) are avoided where the
    vocabulary is large enough. First tokens are all different within one call as long as `count` is below
    the usable vocabulary.
    """
    low = min(512, vocab_size // 8)
    draw = random.Random(seed)  # noqa: S311  (reproducible, not secret)
    usable = range(low, vocab_size)
    firsts = draw.sample(usable, count) if count <= len(usable) else draw.choices(usable, k=count)
    return tuple((first, *draw.choices(usable, k=length - 1)) for first in firsts)
