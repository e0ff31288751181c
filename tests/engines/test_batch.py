"""What engines check of a static batch, and how its steps come of the tokens of its sequences."""

from __future__ import annotations

import pytest

from bench.contract.errors import UserError
from bench.contract.hooks import DecodeStep
from bench.engines import _batch


def test_a_step_of_a_batch_is_over_when_its_last_sequence_has_its_token() -> None:
    """Prompts fed in pieces give first tokens in different steps: the time of a step is that of the last."""
    arrivals = [(1.0, [(0, [10])]), (2.0, [(0, [11]), (1, [20])]), (3.0, [(1, [21])]), (4.0, [])]

    assert list(_batch.decode_steps(arrivals, 2)) == [DecodeStep(2.0, (10, 20)), DecodeStep(3.0, (11, 21))]


def test_streams_may_run_ahead_of_each_other() -> None:
    """And hand over several tokens at once."""
    arrivals: _batch.Arrivals = [(1.0, [(0, [10])]), (2.0, [(0, [11])]), (3.0, [(1, [20, 21])]), (4.0, [(1, [])])]

    assert list(_batch.decode_steps(arrivals, 2)) == [DecodeStep(3.0, (10, 20)), DecodeStep(3.0, (11, 21))]


def test_a_kv_cache_holds_whole_blocks() -> None:
    """Of 17 tokens each sequence takes two blocks of 16."""
    _batch.check_kv_cache(2, 17, 16, 64, "kv_cache_gib")

    with pytest.raises(UserError, match="takes 96 tokens of a KV cache of 95: raise kv_cache_gib"):
        _batch.check_kv_cache(3, 17, 16, 95, "kv_cache_gib")


def test_a_context_that_is_not_known_is_no_limit() -> None:
    """A model whose config names none is left to its library."""
    _batch.check_context(10**9, None)
    _batch.check_context(8, 8)

    with pytest.raises(UserError, match="9 tokens exceed the model's context of 8"):
        _batch.check_context(9, 8)
