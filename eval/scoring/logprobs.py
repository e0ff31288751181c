"""Log-probabilities over a whole vocabulary: from logits, compared, and stored at two bytes an entry.

A stored row is quantized linearly between its smallest and largest log-probability in 65,535 steps, and is
renormalized in float64 when it is read; nothing is clamped. Code 0 means probability 0: a masked id, or a
log-probability below -745, where float64 has no probability either. Measured on the demo model (4,096 tokens,
4,096 ids), KL(original || stored) is 1.6e-09 nats on average and 1.1e-08 at most; log-probabilities in float16,
which take as much space, have 2.3e-07 and 9.0e-07. The id of each row's largest logit and the target's negative
log-likelihood are stored exactly.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.contract.errors import UserError

_CODES, _ROWS = "logprobs.npy", "rows.npy"
_SMALLEST = -745.0  # exp of less is 0 in float64
_STEPS = 65534.0


@dataclass(frozen=True)
class Stored:
    """What `store` wrote. `kl_floor_mean`, `kl_floor_max`: KL(original || stored) over its rows, in nats."""

    rows: int
    vocab: int
    kl_floor_mean: float
    kl_floor_max: float


@dataclass(frozen=True)
class Baseline:
    """Stored rows, read from disk when needed."""

    codes: Any
    exact: Any

    def rows(self, start: int, stop: int) -> tuple[Any, Any, Any]:
        """Log-probabilities float64 [rows, vocab]; of each row the id of the largest and the target's nll."""
        low, step, top, nll = self.exact[start:stop].T
        return unpack(self.codes[start:stop], low, step), top.astype(int), nll


def log_softmax(logits: Any) -> Any:
    """float64 [rows, vocab]; a row without any finite logit becomes NaN."""
    import numpy as np

    with np.errstate(invalid="ignore"):
        shifted = logits.astype(np.float64)
        shifted -= shifted.max(axis=1, keepdims=True)
        shifted -= np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return shifted


def target_nll(logits: Any, targets: Any) -> Any:
    """Negative log-likelihood of each row's target id, nats, float64 [rows]; exponentials in the logits' own type."""
    import numpy as np

    top = logits.max(axis=1)
    sums = np.exp(logits - top[:, None]).sum(axis=1, dtype=np.float64)
    return np.log(sums) + top - logits[np.arange(len(targets)), targets].astype(np.float64)


def kl(baseline: Any, other: Any) -> Any:
    """KL(baseline || other) of each row, nats. An id to which the baseline gives no probability adds 0."""
    import numpy as np

    share = np.exp(baseline)
    with np.errstate(invalid="ignore"):
        return np.where(share > 0, share * (baseline - other), 0.0).sum(axis=1)


def pack(logprobs: Any) -> tuple[Any, Any, Any]:
    """uint16 codes [rows, vocab], and each row's smallest stored log-probability and step."""
    import numpy as np

    coded = logprobs >= _SMALLEST
    low = np.where(coded, logprobs, np.inf).min(axis=1)
    step = (logprobs.max(axis=1) - low) / _STEPS
    step[step == 0] = 1.0
    codes = np.rint((logprobs - low[:, None]) / step[:, None]) + 1
    return np.where(coded, codes, 0).astype(np.uint16), low, step


def unpack(codes: Any, low: Any, step: Any) -> Any:
    """The log-probabilities of codes, renormalized: float64 [rows, vocab]."""
    import numpy as np

    logprobs = low[:, None] + (codes.astype(np.float64) - 1) * step[:, None]
    logprobs[codes == 0] = -np.inf
    logprobs -= np.log(np.exp(logprobs).sum(axis=1, keepdims=True))
    return logprobs


def store(blocks: Iterable[tuple[Any, Any]], rows: int, out: Path) -> Stored:
    """Write log-probabilities of `rows` rows of (logits, targets) to `out`; UserError if not finite, or no space."""
    import numpy as np

    exact, floors, vocab = [], [], 0
    with (out / _CODES).open("wb") as file:
        for logits, targets in blocks:
            if not vocab:
                vocab = logits.shape[1]
                _require_space(rows * vocab * 2, out)
                header = {"descr": "<u2", "fortran_order": False, "shape": (rows, vocab)}
                np.lib.format.write_array_header_1_0(file, header)
            original = log_softmax(logits)
            nll = -original[np.arange(len(targets)), targets]
            if np.isnan(original).any() or not np.isfinite(nll).all():
                raise UserError("logits of the baseline are not finite: use a wider compute dtype")
            codes, low, step = pack(original)
            file.write(codes.astype("<u2", copy=False).tobytes())
            exact.append(np.stack([low, step, logits.argmax(axis=1), nll], axis=1))
            floors.append(kl(original, unpack(codes, low, step)))
    np.save(out / _ROWS, np.concatenate(exact))
    floor = np.concatenate(floors)
    return Stored(len(floor), vocab, float(floor.mean()), float(floor.max()))


def load(folder: Path) -> Baseline:
    """What `store` wrote, mapped into memory."""
    import numpy as np

    return Baseline(np.load(folder / _CODES, mmap_mode="r"), np.load(folder / _ROWS))


def _require_space(size: int, folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if size > free:
        raise UserError(
            f"the baseline's log-probabilities take {size / 2**30:.2f} GiB and the cache's disk has "
            f"{free / 2**30:.2f} GiB free: lower the task's `tokens`, or move LLM_BENCH_CACHE"
        )
