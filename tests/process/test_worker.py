"""Steps of a batch up to where its answers end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from bench.contract.hooks import DecodeStep
from bench.process import worker

_ROWS = ((5, 5), (6, 2), (2, 7), (8, 8))  # the tokens of two sequences, step by step
_ENDED: list[str] = []


def _steps() -> Iterator[DecodeStep]:
    try:
        for number, tokens in enumerate(_ROWS):
            yield DecodeStep(float(number), tokens)
    finally:
        _ENDED.append("closed")


@pytest.mark.parametrize(("end_tokens", "steps"), [((2,), 3), ((2, 5), 1), ((5, 9), 1), ((9,), 4), ((6, 2), 2)])
def test_a_batch_ends_when_every_sequence_has_ended(end_tokens: Sequence[int], steps: int) -> None:
    """Its last step has the last end token; the engine is closed, and not left to go on."""
    _ENDED.clear()
    ended = list(worker._until_end(_steps(), 2, end_tokens))

    assert [step.time_s for step in ended] == [float(n) for n in range(steps)]
    assert _ENDED == ["closed"]
