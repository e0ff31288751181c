"""A static batch, for engines: whether it fits, and its steps from the tokens of its sequences."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence

from bench.contract.errors import UserError
from bench.contract.hooks import DecodeStep

Arrivals = Iterable[tuple[float, Iterable[tuple[int, Sequence[int]]]]]


def check_context(tokens: int, context: int | None) -> None:
    """UserError when a sequence of so many tokens exceeds the model's context; None is no limit."""
    if context is not None and tokens > context:
        raise UserError(f"{tokens} tokens exceed the model's context of {context}: use shorter prompts")


def check_kv_cache(batch: int, tokens: int, block: int, capacity: int, option: str) -> None:
    """UserError when a batch of sequences of `tokens`, in whole blocks, exceeds the KV cache of `capacity` tokens."""
    needed = batch * -(-tokens // block) * block
    if needed > capacity:
        raise UserError(f"the batch takes {needed} tokens of a KV cache of {capacity}: raise {option}")


def check_sequences(batch: int, most: int) -> None:
    """UserError when the engine would run the batch in parts."""
    if batch > most:
        raise UserError(f"a batch of {batch} exceeds {most}, the option sequences: raise it")


def check_alone(batch: int) -> None:
    """UserError for several sequences, whose passes would accept different numbers of tokens."""
    if batch > 1:
        raise UserError(f"speculation takes one sequence at a time, not a batch of {batch}: set batch: 1")


def decode_steps(arrivals: Arrivals, rows: int) -> Iterator[DecodeStep]:
    """The steps of a batch from the tokens of its sequences as they come: (time, [(row, tokens)]).

    Step k is over when the last sequence has its k-th token, however far ahead the others are.
    """
    waiting: list[deque[int]] = [deque() for _ in range(rows)]
    for time_s, outputs in arrivals:
        for row, tokens in outputs:
            waiting[row].extend(tokens)
        while all(waiting):
            yield DecodeStep(time_s, tuple(row.popleft() for row in waiting))
