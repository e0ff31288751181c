"""Logits in NumPy, for engines: blocks of them, and the scores of choices by their rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from bench.contract.errors import UserError
from bench.contract.hooks import ChoiceScore, LogitBlock

_BLOCK_BYTES = 64 << 20


def rows_per_block(vocab_size: int) -> int:
    """Rows of float32 logits in a LogitBlock of at most 64 MiB."""
    return max(1, _BLOCK_BYTES // (4 * vocab_size))


def blocks(library: str, logits: Any, positions: int) -> Iterator[LogitBlock]:
    """float32 blocks of at most 64 MiB of logits [positions, vocab], a tensor or an array.

    UserError where a position is missing.
    """
    import numpy as np

    rows = 0 if logits is None else len(logits)
    if rows != positions:
        raise UserError(f"{library} computed logits for {rows} of {positions} positions: score this on another engine")
    step = rows_per_block(logits.shape[-1]) if rows else 1
    for start in range(0, rows, step):
        part = logits[start : start + step]
        part = part.float().cpu().numpy() if hasattr(part, "cpu") else part
        yield LogitBlock(start, np.asarray(part, dtype=np.float32))


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
