"""Whether a loaded model is a causal language model: a later token may not move the logits of earlier ones.

An encoder (BERT) reads the token it is asked to predict, and its scores are finite, plausible and meaningless.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench.contract.errors import UserError
from bench.contract.hooks import Session

_TOKENS, _FEW = 16, 128  # of the text; of a vocabulary whose size is not known
# Of the spread of logits: what rounding may move where rows are computed together. In float32 a thousandth; in 16
# bits more, where a mixture of experts multiplies other numbers of rows; in 8 bits much, where activations share
# one scale (ONNX Runtime's dynamic quantization of the demo model: 4 %, at the first token 9 %).
_FLOAT32, _SIXTEEN_BITS, _EIGHT_BITS = 0.001, 0.02, 0.25


def check(session: Session, vocab_size: int, context: int) -> float:
    """How far another last token moves the logits before it: the root mean square over their standard deviation.

    `vocab_size`, `context` 0: not known. Not finite logits move nothing. UserError where it is more than rounding.
    """
    length, vocab_size = min(_TOKENS, context or _TOKENS), vocab_size or _FEW
    *ids, last, other = ((vocab_size // 2 + 7 * k) % vocab_size for k in range(length + 1))  # no special ones
    shift = _shift(*(_rows(session, [*ids, token])[: len(ids)] for token in (last, other)))
    if shift > _FLOAT32 and shift > _allowed(session):
        raise UserError(
            f"this is no causal language model: another last token moves the logits of earlier ones by {shift:.0%} of "
            "their spread, so that each score would be of tokens it has read: score a decoder"
        )
    return shift


def _rows(session: Session, ids: Sequence[int]) -> Any:
    """Logits, float64 [positions, vocab]."""
    import numpy as np

    return np.concatenate([np.asarray(block.logits, np.float64) for block in session.logits(ids)])


def _shift(rows: Any, others: Any) -> float:
    """The largest over the positions; of probabilities, so that what is added to all logits of a row is nothing."""
    import numpy as np

    shifts = [0.0]
    for row, other in zip(rows, others, strict=True):
        known = np.isfinite(row) & np.isfinite(other)
        if known.any() and (spread := row[known].std()) > 0:
            shifts.append(float((row[known] - other[known]).std() / spread))
    return max(shifts)


def _allowed(session: Session) -> float:
    """By the types that the engine says it computes and multiplies in."""
    receipts = session.receipts()
    types = " ".join(receipts.get(key, "") for key in ("compute_dtype", "product_dtype", "activations"))
    if any(kind in types for kind in ("int8", "float8", "float4")):
        return _EIGHT_BITS
    return _SIXTEEN_BITS if "16" in types else _FLOAT32
