"""What is lost by storing log-probabilities at two bytes each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench.contract.errors import UserError
from eval.scoring import logprobs


def _logits(rows: int = 200, vocab: int = 1000, scale: float = 4.0) -> np.ndarray:
    return np.random.default_rng(0).normal(0, scale, (rows, vocab)).astype(np.float32)


def test_what_is_stored_is_close_to_what_was_there(tmp_path: Path) -> None:
    """KL(original || stored) is below 1e-7 nats, is what `store` returns, and each row adds up to 1."""
    logits, targets = _logits(), np.arange(200)
    stored = logprobs.store([(logits[:64], targets[:64]), (logits[64:], targets[64:])], 200, tmp_path)
    result, top, nll = logprobs.load(tmp_path).rows(0, 200)
    original = logprobs.log_softmax(logits)
    lost = (np.exp(original) * (original - result)).sum(axis=1)

    assert (stored.rows, stored.vocab) == (200, 1000)
    assert 0 <= lost.mean() < lost.max() < 1e-7
    assert (stored.kl_floor_mean, stored.kl_floor_max) == pytest.approx((lost.mean(), lost.max()), rel=1e-6)
    assert np.exp(result).sum(axis=1) == pytest.approx(np.ones(200), abs=1e-12)
    assert list(top) == list(logits.argmax(axis=1))
    assert nll == pytest.approx(-original[targets, targets], rel=1e-12)
    assert (tmp_path / "logprobs.npy").stat().st_size < 200 * 1000 * 2 + 200


def test_the_tail_is_not_clamped(tmp_path: Path) -> None:
    """An entry 100 nats down is kept there, within half a step of its row's range."""
    logits = _logits(4)
    logits[:, 3] = -100
    logprobs.store([(logits, np.zeros(4, int))], 4, tmp_path)
    result, _, _ = logprobs.load(tmp_path).rows(0, 4)

    assert result[:, 3] == pytest.approx(logprobs.log_softmax(logits)[:, 3], abs=0.002)


@pytest.mark.parametrize("mask", [-np.inf, np.finfo(np.float32).min])
def test_a_masked_id_costs_no_precision(tmp_path: Path, mask: float) -> None:
    """Padding ids at minus infinity, or near it, come back as probability 0 and stretch no row."""
    logits = _logits(20)
    logits[:, -5:] = mask
    stored = logprobs.store([(logits, np.zeros(20, int))], 20, tmp_path)
    result, _, _ = logprobs.load(tmp_path).rows(0, 20)

    assert np.isneginf(result[:, -5:]).all()
    assert stored.kl_floor_max < 1e-7
    assert (logprobs.kl(result, logprobs.log_softmax(logits)) < 1e-7).all()


def test_a_row_of_one_certain_id_is_kept(tmp_path: Path) -> None:
    """Everything else masked: no range, no division by it."""
    logits = np.full((1, 5), -np.inf, dtype=np.float32)
    logits[0, 2] = 1
    assert logprobs.store([(logits, np.array([2]))], 1, tmp_path).kl_floor_max == 0.0


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_baseline_that_overflows_is_refused(tmp_path: Path, value: float) -> None:
    """NaN and infinity are no distribution."""
    logits = _logits(3)
    logits[1, 1] = value
    with pytest.raises(UserError, match="logits of the baseline are not finite"):
        logprobs.store([(logits, np.zeros(3, int))], 3, tmp_path)


def test_a_disk_that_is_too_small_is_said_before_anything_is_written(tmp_path: Path) -> None:
    """The sentence has both sizes and what to lower."""
    with pytest.raises(UserError, match=r"take 1862645149\.23 GiB .* lower the task's `tokens`"):
        logprobs.store([(_logits(1), np.zeros(1, int))], 10**15, tmp_path)
