"""Prompts of exact length by construction, and of different first tokens: as token ids, or as text.

Different first tokens mean that no prefix cache can hit.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from bench.contract.errors import UserError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_TRIES = 20


def of_lengths(lengths: Sequence[int], vocab_size: int, seed: str) -> tuple[tuple[int, ...], ...]:
    """One prompt per length, in ids of the upper part of the vocabulary; the seed alone decides which.

    The low ids (special tokens, and byte tokens in SentencePiece vocabularies) are avoided where the
    vocabulary is large enough. First tokens are all different within one call as long as there are fewer
    prompts than the usable vocabulary has ids.
    """
    _check(lengths)
    usable = _usable(vocab_size)
    draw = random.Random(seed)  # noqa: S311  (reproducible, not secret)
    count = len(lengths)
    firsts = draw.sample(usable, count) if count <= len(usable) else draw.choices(usable, k=count)
    return tuple((first, *draw.choices(usable, k=length - 1)) for first, length in zip(firsts, lengths, strict=True))


def blocked(blocks: Sequence[int], length: int, vocab_size: int, seed: str, size: int = 512) -> tuple[int, ...]:
    """A prompt of `length` ids in blocks of `size`, the last one cut.

    A block's ids follow from the seed and its own id alone: prompts that share leading blocks share a prefix.
    ValueError where there are not just as many blocks as the length needs.
    """
    _check([length])
    if len(blocks) != -(-length // size):
        raise ValueError(f"{len(blocks)} blocks of {size}: must be as many as {length} tokens fill")
    usable = _usable(vocab_size)
    ids: list[int] = []
    for block in blocks:
        draw = random.Random(f"{seed}/{block}")  # noqa: S311  (reproducible, not secret)
        ids += draw.choices(usable, k=min(size, length - len(ids)))
    return tuple(ids)


def exact_texts(lengths: Sequence[int], tokenizer: Path, seed: str) -> tuple[str, ...]:
    """One text per length that the tokenizer.json at `tokenizer` encodes to exactly that many tokens.

    The special tokens that it adds (BOS) are among them. First words are all different within one call as long
    as the vocabulary has as many words of one token. Texts consist of such words; each whole text is counted
    again, and adjusted where tokens merged. UserError where a length cannot be reached.
    """
    loaded = tokenizer_of(tokenizer)
    added = _special_tokens(loaded, lengths)
    draw = random.Random(seed)  # noqa: S311  (reproducible, not secret)
    firsts, others = _words(loaded)
    count, most = len(lengths), max(lengths, default=0)
    if not firsts or (not others and most > added + 1):
        raise _impossible(tokenizer, most)
    chosen = draw.sample(firsts, count) if count <= len(firsts) else draw.choices(firsts, k=count)
    words = [
        [first, *draw.choices(others, k=length - added - 1)] if length > added + 1 else [first]
        for first, length in zip(chosen, lengths, strict=True)
    ]
    wrong = list(range(count))
    for _ in range(_TRIES):
        encoded = loaded.encode_batch_fast(["".join(words[i]) for i in wrong])
        missing = {i: lengths[i] - len(text.ids) for i, text in zip(wrong, encoded, strict=True)}
        short = {i: lacking for i, lacking in missing.items() if lacking}
        if not short:
            return tuple("".join(text) for text in words)
        for i, lacking in short.items():
            _adjust(words[i], lacking, others, draw)
        wrong = list(short)
    raise _impossible(tokenizer, lengths[wrong[0]])


def texts(originals: Sequence[str], lengths: Sequence[int], tokenizer: Path) -> tuple[str, ...]:
    """Each text, or the longest beginning of it, maybe empty, that encodes to at most its length in tokens.

    The special tokens that the tokenizer adds are counted. UserError where they alone fill a length.
    """
    loaded = tokenizer_of(tokenizer)
    added = _special_tokens(loaded, lengths)
    return tuple(_beginning(loaded, text, length - added) for text, length in zip(originals, lengths, strict=True))


def _special_tokens(loaded: Tokenizer, lengths: Sequence[int]) -> int:
    """How many the tokenizer adds to every prompt; UserError where they alone fill a length."""
    added = loaded.num_special_tokens_to_add(is_pair=False)
    if lengths and min(lengths) <= added:
        raise UserError(
            f"no text has {min(lengths)} tokens, since the tokenizer adds {added} of its own to every prompt: "
            f"ask for at least {added + 1}"
        )
    return added


def _beginning(loaded: Tokenizer, text: str, room: int) -> str:
    encoded = loaded.encode(text, add_special_tokens=False)
    if len(encoded.ids) <= room:
        return text
    for tokens in range(room, 0, -1):  # what was cut inside a word may be more tokens than before
        cut = text[: encoded.offsets[tokens - 1][1]]
        if len(loaded.encode(cut, add_special_tokens=False).ids) <= room:
            return cut
    return ""


def _adjust(words: list[str], lacking: int, others: Sequence[str], draw: random.Random) -> None:
    """Bring a text closer to its length: words added or taken away, and now and then the last drawn again."""
    if not others:
        return
    if lacking > 0:
        words += draw.choices(others, k=lacking)
    elif len(words) > -lacking:
        del words[lacking:]
    if len(words) > 1 and draw.random() < 0.5:  # adding and taking away may go round in a circle
        last = min(4, len(words) - 1)
        words[-last:] = draw.choices(others, k=last)


def _words(loaded: Tokenizer) -> tuple[list[str], list[str]]:
    """Words that are one token as a text's first, and pieces that add one token to any text.

    Chosen by encoding: each piece is a word with its space, or letters alone where the tokenizer has no
    token with a space. Words that the tokenizer does not distinguish (unknown, lower-cased) count once.
    """
    tokens = {token.lstrip("Ġ▁") for token in loaded.get_vocab(with_added_tokens=False)}
    words = sorted(token for token in tokens if token.isascii() and token.isalnum())
    firsts = _single(loaded, "", words)
    if not firsts:
        return [], []
    spaced = _single(loaded, firsts[0], [f" {word}" for word in words])
    return firsts, spaced or _single(loaded, firsts[0], words)


def _single(loaded: Tokenizer, before: str, pieces: Sequence[str]) -> list[str]:
    """The pieces that add just one token behind `before`, and each a token of its own."""
    head = loaded.encode(before, add_special_tokens=False).ids
    by_id: dict[int, str] = {}
    batch = loaded.encode_batch_fast([before + piece for piece in pieces], add_special_tokens=False)
    for piece, encoded in zip(pieces, batch, strict=True):
        ids = encoded.ids
        if len(ids) == len(head) + 1 and ids[:-1] == head:
            by_id.setdefault(ids[-1], piece)
    return list(by_id.values())


@lru_cache(maxsize=2)
def tokenizer_of(file: Path) -> Tokenizer:
    """The tokenizer in a tokenizer.json, which neither truncates nor pads; UserError where the file is not one."""
    from tokenizers import Tokenizer

    try:
        loaded = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises no narrower class
        raise UserError(f"cannot read {file} as a tokenizer.json: {error}") from error
    loaded.no_truncation()
    loaded.no_padding()
    return loaded


def encode(text: str, tokenizer: Path, *, special: bool = True) -> tuple[int, ...]:
    """The ids of a text, with the special tokens that the tokenizer adds, or with those alone that the text names."""
    return tuple(tokenizer_of(tokenizer).encode(text, add_special_tokens=special).ids)


def starts(text: str, tokenizer: Path) -> list[int]:
    """Where the tokens of a text begin in it, in characters; special tokens left out."""
    return [start for start, _ in tokenizer_of(tokenizer).encode(text, add_special_tokens=False).offsets]


def _impossible(tokenizer: Path, length: int) -> UserError:
    return UserError(
        f"no text of exactly {length} tokens can be built for {tokenizer}: give the server token ids instead"
    )


def _usable(vocab_size: int) -> range:
    return range(min(512, vocab_size // 8), vocab_size)


def _check(lengths: Sequence[int]) -> None:
    if lengths and min(lengths) < 1:
        raise ValueError(f"a prompt of {min(lengths)} tokens: must be at least 1")
