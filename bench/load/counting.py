"""How many tokens each event of an answer bore: by the server's counts where they are counts, else by its text.

An event with text is a token's arrival, whatever a usage says. How many tokens it bore is known

- by `token_ids` in nearly every choice (vLLM's `return_token_ids`),
- by a usage in each event that rises with nearly every text and ends at the total (`continuous_usage_stats`), which
  may come without text, as the last token does,
- by a usage in each event that counts that event alone.

Elsewhere an event with text counts as one. What the total has beyond that is a surplus whose place nobody knows:
it stands in the last event. Where the events are more than the total (a server that sends characters), only as
many of them count as there are tokens, evenly over the answer with its first and its last. A usage of zero for an
answer with text is none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from typing import Literal, NamedTuple

Kind = Literal["", "answer", "reasoning", "call"]
CountedBy = Literal["usage", "tokenizer", "events"]
_THINK, _THOUGHT = "<think>", "</think>"
_MISSES = 0.1  # of the texts that may come without a count, and one in any case


class Chunk(NamedTuple):
    """One event with a choice. `ids` and `total` are None where the server does not count; `kind` is that of its text.

    A reasoning model's thoughts are tokens as its answer is, whatever the server calls them; so is a call.
    """

    time: float
    text: str
    ids: int | None = None  # tokens of this event
    total: int | None = None  # the usage in it: tokens generated so far, as a rule
    kind: Kind = "answer"

    @property
    def bears(self) -> bool:
        return bool(self.kind)


class Count(NamedTuple):
    """`tokens` of each chunk, which add up to the `total` where the server gave one; `surplus` as in RequestResult."""

    tokens: list[int]
    total: int | None
    surplus: int


def with_thoughts(chunks: Sequence[Chunk]) -> Sequence[Chunk]:
    """The same, where a text begins with <think> and no field told thoughts apart: what comes before the answer's text.

    As models write it, and servers leave it that do not parse it. An event that ends a thought and begins the answer
    is the answer's; without </think> all of it is thoughts.
    """
    text = "".join(chunk.text for chunk in chunks)
    if not text.lstrip().startswith(_THINK) or any(chunk.kind not in ("", "answer") for chunk in chunks):
        return chunks
    _, closing, answer = text.partition(_THOUGHT)
    end = len(text) - len(answer.lstrip()) if closing else len(text)
    ends = accumulate(len(chunk.text) for chunk in chunks)
    return [
        chunk._replace(kind="reasoning") if chunk.bears and so_far <= end else chunk
        for chunk, so_far in zip(chunks, ends, strict=True)
    ]


def counted(chunks: Sequence[Chunk], usage: int | None) -> Count:
    """The tokens of each chunk; `usage` is the last count of the whole that the server sent, in whatever event."""
    totals = [chunk.total for chunk in chunks if chunk.bears]
    last = next((chunk.total for chunk in reversed(chunks) if chunk.total is not None), None)
    cumulative = _rises(totals, last, usage)
    own = [] if cumulative else _own_counts(chunks, usage)
    total = sum(own) if own else (usage or None) if totals else usage
    if ids := _by_ids(chunks, total):
        tokens = ids
    elif cumulative:
        so_far = list(accumulate((chunk.total or 0 for chunk in chunks), max, initial=0))
        tokens = [after - before for before, after in pairwise(so_far)]
    elif own:
        rest = iter(own)
        tokens = [next(rest) if chunk.bears else 0 for chunk in chunks]
    else:
        tokens = [int(chunk.bears) for chunk in chunks]
    surplus = 0 if total is None else total - sum(tokens)
    return Count(_fitted(tokens, surplus), total, surplus)


def by_tokenizer(texts: Sequence[str], starts_of: Callable[[str], Sequence[int]]) -> list[int]:
    """The tokens of each text of an answer; `starts_of` a text: where its tokens begin, in characters.

    A token counts where it begins, so that the first text has one; the last text has one too, where there are two.
    """
    ends, counts, i = list(accumulate(map(len, texts))), [0] * len(texts), 0
    for start in starts_of("".join(texts)):
        while i < len(ends) - 1 and start >= ends[i]:
            i += 1
        counts[i] += 1
    if sum(counts) > 1 and not counts[-1]:
        counts[max(k for k, n in enumerate(counts) if n)] -= 1
        counts[-1] = 1
    return counts


def _few(misses: int, of: int) -> bool:
    return misses <= max(1, _MISSES * of)


def _rises(totals: Sequence[int | None], last: int | None, usage: int | None) -> bool:
    """Whether the usages of the texts count up: from the first, with nearly every one, to the total.

    The `last` usage of any event is the total too, unless those of several texts add up to it.
    """
    known = [total for total in totals if total is not None]
    if not known or len(known) < len(totals) or not known[0] or usage not in (known[-1], last):
        return False
    if len(known) > 1 and sum(known) == usage:
        return False
    before = accumulate(known[:-1], max, initial=0)
    return _few(sum(now <= then for now, then in zip(known, before, strict=True)), len(known))


def _own_counts(chunks: Sequence[Chunk], usage: int | None) -> list[int]:
    """The usages of the texts if each counts its own event alone; empty if they do not.

    They add up to the total; or nobody sent one, the last usage being a zero or such a count: fewer than there are
    texts, while they are no more than there are characters. Counts that change and never fall are a running total then.
    """
    texts = [chunk for chunk in chunks if chunk.bears]
    own = [chunk.total for chunk in texts if chunk.total]
    if len(own) < max(2, len(texts)):
        return []
    running = own == sorted(own) and len(set(own)) > 1
    alone = not running and (not usage or usage == own[-1] < len(own))
    possible = sum(own) <= sum(len(chunk.text) for chunk in texts)
    return own if usage == sum(own) or (alone and possible) else []


def _by_ids(chunks: Sequence[Chunk], total: int | None) -> list[int]:
    """The token ids of each chunk, where nearly every text has some and they are as many as the total; else none."""
    ids = [chunk.ids or 0 for chunk in chunks]
    texts = [n for chunk, n in zip(chunks, ids, strict=True) if chunk.bears]
    fits = sum(ids) > 0 and (total is None or abs(total - sum(ids)) <= 1)
    return ids if fits and _few(texts.count(0), len(texts)) else []


def _fitted(tokens: list[int], surplus: int) -> list[int]:
    """The same with a surplus in the last event that bears tokens, or with a lack taken away.

    From events that bear several, from the end; then evenly, the first and the last event being left.
    """
    bearing = [i for i, n in enumerate(tokens) if n]
    if bearing and surplus > 0:
        tokens[bearing[-1]] += surplus
    lack = max(0, -surplus)
    for i in reversed(bearing):
        removed = min(tokens[i] - 1, lack)
        tokens[i], lack = tokens[i] - removed, lack - removed
    left, last = len(bearing) - lack, len(bearing) - 1
    stamped = {bearing[round(k * last / max(1, left - 1))] for k in range(left)}
    return [n if i in stamped else 0 for i, n in enumerate(tokens)]
