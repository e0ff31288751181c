"""Divergence against dense sums by NumPy and SciPy over random logits."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import rel_entr, softmax

from bench.contract.errors import UserError
from eval.tasks import divergence
from eval.tasks.divergence import Options
from eval.text import windows
from tests.eval.sessions import Given, letters, random_logits

_VOCAB = 40
_BASE = Given(random_logits(_VOCAB), words=letters)


@pytest.fixture
def options(tmp_path: Path) -> Options:
    (tmp_path / "text.txt").write_text("thequickbrownfoxjumpsoverthelazydog" * 8)
    return Options(f"path:{tmp_path / 'text.txt'}", context=32)


@pytest.fixture
def reference(options: Options, tmp_path: Path) -> Path:
    return _prepared(_BASE, options, tmp_path)


def _prepared(session: Given, options: Options, tmp_path: Path) -> Path:
    """What the core does around `prepare`."""
    out = tmp_path / "reference"
    out.mkdir()
    facts = divergence.prepare(session, options, tmp_path, out)
    about = {**facts, "digest": "d", "engine": "given", "artifact": "a"}
    (out / "reference.json").write_text(json.dumps(about))
    return out


def _moved(seed: int = 1, by: float = 0.5) -> Given:
    noise = random_logits(_VOCAB, seed, by)
    return Given(lambda ids: _BASE.table(ids) + noise(ids), words=letters)


def _dense(this: Given, options: Options, folder: Path) -> tuple[Any, Any, Any, Any]:
    """Per scored token, from whole windows: KL, agreement, nll of this and of the baseline."""
    rows = []
    for window in windows.cut(_BASE, options, folder).windows:
        at = slice(window.first - 1, len(window.ids) - 1)
        p, q = (softmax(np.float32(s.table(window.ids)[at]).astype(float), axis=1) for s in (_BASE, this))
        wanted = np.arange(len(p)), np.array(window.ids[window.first :])
        rows.append([rel_entr(p, q).sum(1), p.argmax(1) == q.argmax(1), -np.log(q[wanted]), -np.log(p[wanted])])
    kl, agree, nll, base = (np.concatenate(column) for column in zip(*rows, strict=True))
    return kl, agree, nll, base


@pytest.mark.parametrize("convention", ["llama.cpp", "hf"])
def test_the_metrics_are_those_of_whole_distributions(
    options: Options, tmp_path: Path, convention: windows.Convention
) -> None:
    """Mean, quantiles, agreement and change of bits per byte equal SciPy's over all scored tokens."""
    options = Options(options.corpus, 32, convention=convention)
    kl, agree, nll, base = _dense(_moved(), options, tmp_path)

    facts = divergence.evaluate(_moved(), options, tmp_path, _prepared(_BASE, options, tmp_path))

    metrics = divergence.metrics(facts)
    assert metrics["scored_tokens"] == len(kl)
    assert metrics["kl_mean"] == pytest.approx(kl.mean(), rel=1e-5)
    assert metrics["kl_median"] == pytest.approx(np.median(kl), rel=1e-3)
    assert metrics["kl_p99"] == pytest.approx(np.quantile(kl, 0.99), rel=1e-3)
    assert metrics["kl_max"] == pytest.approx(kl.max(), rel=1e-3)
    assert facts["kl_quantiles"]["p99.9"] == pytest.approx(np.quantile(kl, 0.999), rel=1e-3)
    assert metrics["top1_agreement_fraction"] == agree.mean()
    bits = (nll - base).sum() / math.log(2) / sum(facts["window_bytes"])
    assert metrics["bits_per_byte_change"] == pytest.approx(bits, rel=1e-6)
    assert facts["perplexity"] == pytest.approx(math.exp(nll.mean()), rel=1e-6)
    assert facts["baseline_perplexity"] == pytest.approx(math.exp(base.mean()), rel=1e-6)


def test_each_mean_lies_in_its_interval(options: Options, reference: Path, tmp_path: Path) -> None:
    """The intervals are over windows; a text of one window has none."""
    facts = divergence.evaluate(_moved(), options, tmp_path, reference)
    metrics = divergence.metrics(facts)

    for name, unit in (("kl_mean", ""), ("top1_agreement", "_fraction"), ("bits_per_byte_change", "")):
        assert metrics[f"{name}_low{unit}"] < metrics[f"{name}{unit}"] < metrics[f"{name}_high{unit}"]
    two = divergence.metrics({k: v[:2] if k.startswith("window_") else v for k, v in facts.items()})
    assert two["kl_mean_low"] >= 0
    assert 0 <= two["top1_agreement_low_fraction"] <= two["top1_agreement_high_fraction"] <= 1
    one = {k: v[:1] if k.startswith("window_") else v for k, v in facts.items()}
    assert not [key for key in divergence.metrics(one) if "_low" in key]


def test_the_baseline_against_itself_is_the_storage_floor(options: Options, reference: Path, tmp_path: Path) -> None:
    """All predictions agree, bits per byte do not change, and KL is what keeping it cost."""
    metrics = divergence.metrics(divergence.evaluate(_BASE, options, tmp_path, reference))

    assert metrics["top1_agreement_fraction"] == 1.0
    assert metrics["bits_per_byte_change"] == pytest.approx(0, abs=1e-12)
    assert 0 <= metrics["kl_mean"] <= 2 * metrics["kl_floor"] < 1e-7


def test_ids_masked_in_both_add_nothing(options: Options, tmp_path: Path) -> None:
    """Padding ids at minus infinity give no NaN; masked here alone, they make the divergence infinite."""

    def masked(session: Given) -> Given:
        tail = np.where(np.arange(_VOCAB) < 36, 0, -np.inf)
        return Given(lambda ids: session.table(ids) + tail, words=letters)

    out = _prepared(masked(_BASE), options, tmp_path)
    metrics = divergence.metrics(divergence.evaluate(masked(_moved()), options, tmp_path, out))

    assert 0 < metrics["kl_mean"] < 1
    with pytest.raises(UserError, match="not finite"):
        divergence.evaluate(masked(_moved()), options, tmp_path, _prepared_elsewhere(options, tmp_path))


def _prepared_elsewhere(options: Options, tmp_path: Path) -> Path:
    (tmp_path / "reference").rename(tmp_path / "before")
    return _prepared(_BASE, options, tmp_path)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_logits_without_a_meaning_are_refused(options: Options, reference: Path, tmp_path: Path, value: float) -> None:
    """One sentence that names the window."""
    broken = Given(lambda ids: np.full((len(ids), _VOCAB), value), words=letters)
    with pytest.raises(UserError, match="window at token 0 are not finite"):
        divergence.evaluate(broken, options, tmp_path, reference)


def test_another_vocabulary_is_refused(options: Options, reference: Path, tmp_path: Path) -> None:
    """Both sizes are named; nothing is cut or padded."""
    wide = Given(random_logits(48), words=letters)
    with pytest.raises(UserError, match="vocabulary has 48 entries and the baseline's 40"):
        divergence.evaluate(wide, options, tmp_path, reference)


def test_another_tokenization_is_refused(options: Options, reference: Path, tmp_path: Path) -> None:
    """The same text in other tokens has other items to score."""
    other = Given(_BASE.table, words=lambda text: letters(text, bos=None))
    with pytest.raises(UserError, match="other tokens than the baseline's"):
        divergence.evaluate(other, options, tmp_path, reference)


def test_without_a_suite_there_is_no_baseline(options: Options, tmp_path: Path) -> None:
    """One sentence."""
    with pytest.raises(UserError, match="run it from a suite"):
        divergence.evaluate(_BASE, options, tmp_path, None)


def test_the_name_says_the_convention(options: Options) -> None:
    """As perplexity's, with this task's word."""
    assert divergence.title(Options()) == "divergence-stdlib-llama.cpp-512"
    assert divergence.title(Options(convention="hf", tokens=99)) == "divergence-stdlib-hf-512-99t"
    assert divergence.title(options) == "divergence-text.txt-llama.cpp-32"


def _scored(kl: list[float], top1: list[int], **changed: object) -> dict[str, Any]:
    known = {
        "sha256": "t",
        "context": 512,
        "convention": "llama.cpp",
        "tokens": 9,
        "windows": len(kl),
        "window_tokens": [100] * len(kl),
        "reference": {"digest": "d"},
    }
    return {**known, "window_kl": kl, "window_top1": top1, **changed}


def test_two_artifacts_are_compared_by_paired_windows() -> None:
    """Changes of 1 and 3 nats in 100 tokens each: 0.02 a token, standard error sqrt(2 x 2) / 200 = 0.01."""
    comparison = divergence.compare_by_reference(_scored([3.0, 7.0], [90, 80]), _scored([2.0, 4.0], [90, 90]))

    assert comparison["kl_change"] == pytest.approx(0.02)
    assert comparison["kl_change_low"] == pytest.approx(0.02 - 12.7062 * 0.01)
    assert comparison["kl_change_high"] == pytest.approx(0.02 + 12.7062 * 0.01)
    assert comparison["top1_change_fraction"] == pytest.approx(-0.05)
    assert comparison["top1_change_low_fraction"] == pytest.approx(-0.05 - 12.7062 * 0.05)
    alone = divergence.compare_by_reference(_scored([3.0], [90]), _scored([2.0], [90]))
    assert alone == {"kl_change": pytest.approx(0.01), "top1_change_fraction": 0.0}


@pytest.mark.parametrize(("key", "value"), [("sha256", "u"), ("reference", {"digest": "e"}), ("windows", 3)])
def test_divergences_of_other_texts_or_references_are_not_compared(key: str, value: object) -> None:
    """The sentence names what differs."""
    with pytest.raises(UserError, match=key):
        divergence.compare_by_reference(_scored([1.0], [9]), _scored([1.0], [9], **{key: value}))
