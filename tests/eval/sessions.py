"""Small engines for tests of what is computed from logits: they return the logits they were given."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.contract.hooks import DecodeStep, LogitBlock


@dataclass(frozen=True)
class Given:
    """`table(ids)` is the logits of a whole window; `words(text)` its ids and their sizes."""

    table: Callable[[Sequence[int]], Any]
    rows: int = 7
    words: Callable[[str], tuple[list[int], list[int]]] | None = None

    def generate(self, prompts: Sequence[Sequence[int]], new_tokens: int) -> Iterator[DecodeStep]:
        raise NotImplementedError

    def logits(self, ids: Sequence[int]) -> Iterator[LogitBlock]:
        whole = np.asarray(self.table(ids), dtype=np.float32)
        for start in range(0, len(ids), self.rows):
            yield LogitBlock(start, whole[start : start + self.rows])

    def encode(self, text: str) -> tuple[list[int], list[int]]:
        if self.words is None:
            raise NotImplementedError
        return self.words(text)

    def receipts(self) -> Mapping[str, str]:
        return {}

    def memory(self) -> Mapping[str, int]:
        return {}


def letters(text: str, bos: int | None = 0) -> tuple[list[int], list[int]]:
    """One token per byte: its value minus 96, so that a is 1; with `bos` before."""
    ids = [byte - 96 for byte in text.encode()]
    first = [] if bos is None else [bos]
    return [*first, *ids], [*(0 for _ in first), *(1 for _ in ids)]


def random_logits(vocab: int, seed: int = 0, scale: float = 3.0) -> Callable[[Sequence[int]], Any]:
    """Logits drawn from a normal distribution, the same for the same window."""

    def table(ids: Sequence[int]) -> Any:
        return np.random.default_rng([seed, *ids]).normal(0, scale, (len(ids), vocab))

    return table
