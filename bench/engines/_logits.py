"""Logits in NumPy, for engines: how many rows make a block, and the scores of choices by their rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench.contract.hooks import ChoiceScore

_BLOCK_BYTES = 64 << 20


def rows_per_block(vocab_size: int) -> int:
    """Rows of float32 logits in a LogitBlock of at most 64 MiB."""
    return max(1, _BLOCK_BYTES // (4 * vocab_size))


class LogSoftmax:
    """float32 logits [rows, vocab]; each row is normalized over the full vocabulary once, in float64."""

    def __init__(self, logits: Any) -> None:
        import numpy as np

        top = logits.max(axis=1)
        sums = np.exp(logits - top[:, None]).sum(axis=1, dtype=np.float64)
        self.logits, self.log_sums, self.greedy = logits, np.log(sums) + top, logits.argmax(axis=1)

    def score(self, rows: Sequence[int], choice: Sequence[int]) -> ChoiceScore:
        """The score of a choice whose k-th token is predicted by `rows[k]`."""
        import numpy as np

        logits = self.logits[rows, choice].astype(np.float64)
        is_greedy = bool((self.greedy[rows] == np.asarray(choice)).all())
        return ChoiceScore(float((logits - self.log_sums[rows]).sum()), is_greedy)
