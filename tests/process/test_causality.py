"""Whether what is scored is a causal language model, by small engines whose logits are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from bench.contract.errors import UserError
from bench.process import causality
from tests.eval.sessions import Given

_VOCAB, _WIDTH = 300, 16
_RANDOM = np.random.default_rng(7)
_EMBEDDING = _RANDOM.normal(0, 1, (_VOCAB, _WIDTH))
_HEAD = _RANDOM.normal(0, 1, (_WIDTH, _VOCAB))


@dataclass(frozen=True)
class _Engine(Given):
    """With the receipts that it is given."""

    types: Mapping[str, str] = field(default_factory=lambda: {"compute_dtype": "float32"})

    def receipts(self) -> Mapping[str, str]:
        return self.types


def _hidden(ids: Sequence[int]) -> Any:
    """Each token's vector, and half the mean of it and those before it."""
    embedded = _EMBEDDING[list(ids)]
    return embedded + np.cumsum(embedded, axis=0) / (2 * np.arange(1, len(ids) + 1)[:, None])


def _decoder(ids: Sequence[int]) -> Any:
    return _hidden(ids) @ _HEAD


def _encoder(ids: Sequence[int]) -> Any:
    """Each token reads all of them, a little."""
    embedded = _EMBEDDING[list(ids)]
    return (embedded + embedded.mean(axis=0) / 2) @ _HEAD


@pytest.mark.parametrize("rows", [1, 3, 100])
def test_a_decoder_is_one_wherever_its_blocks_end(rows: int) -> None:
    """Nothing moves before the token that is another, and ids that are masked out everywhere count for nothing."""

    def masked(ids: Sequence[int]) -> Any:
        return np.where(np.arange(_VOCAB) % 7 == 3, -np.inf, _decoder(ids))

    assert causality.check(_Engine(_decoder, rows), _VOCAB, 512) == 0.0
    assert causality.check(_Engine(masked, rows), _VOCAB, 512) == 0.0


@pytest.mark.parametrize("types", ["float32", "bfloat16"])
def test_an_encoder_is_refused(types: str) -> None:
    """It would give finite scores of tokens that it has read."""
    with pytest.raises(UserError, match=r"no causal language model: .* by [1-9][0-9]*% of their spread"):
        causality.check(_Engine(_encoder, types={"compute_dtype": types}), _VOCAB, 512)


def test_a_token_that_only_its_neighbour_reads_is_seen() -> None:
    """A mask that is wrong by one position is enough."""

    def off_by_one(ids: Sequence[int]) -> Any:
        following = [*ids[1:], ids[-1]]
        return (_hidden(ids) + _EMBEDDING[following] / 8) @ _HEAD

    with pytest.raises(UserError, match="no causal language model"):
        causality.check(_Engine(off_by_one), _VOCAB, 512)


def test_rounding_by_a_scale_that_tokens_share_is_no_fault() -> None:
    """Where the engine says that it multiplies in 8 bits; one that says float32 has no such excuse."""
    types = {"compute_dtype": "float32", "product_dtype": "int8"}
    loud = _EMBEDDING.copy()
    loud[(_VOCAB // 2 + 7 * 15) % _VOCAB] *= 2  # the last token, which sets the scale of all

    def table(ids: Sequence[int]) -> Any:
        hidden = loud[list(ids)]
        scale = abs(hidden).max() / 63
        return np.rint(hidden / scale) * scale @ _HEAD

    assert 0.001 < causality.check(_Engine(table, types=types), _VOCAB, 512) < 0.25
    with pytest.raises(UserError, match="no causal language model"):
        causality.check(_Engine(table), _VOCAB, 512)


def test_a_short_context_and_a_small_vocabulary_are_enough() -> None:
    """All ids are in the vocabulary, and no more of them than the model takes."""
    sequences: list[list[int]] = []

    def table(ids: Sequence[int]) -> Any:
        sequences.append(list(ids))
        return np.eye(20)[list(ids)]

    assert causality.check(_Engine(table), 20, 4) == 0.0
    assert [len(ids) for ids in sequences] == [4, 4]
    assert all(0 <= i < 20 for ids in sequences for i in ids)
    assert sequences[0][:3] == sequences[1][:3]
    assert sequences[0][3] != sequences[1][3]
