"""The task that asks whether an engine computes what the baseline's does."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from scipy.special import rel_entr, softmax

from bench.contract.errors import UserError
from bench.contract.hooks import DecodeStep
from eval.tasks import conformance
from eval.tasks.conformance import Options
from eval.text import windows
from tests.eval.sessions import Given, letters, random_logits

_VOCAB = 40


@dataclass(frozen=True)
class Generating(Given):
    """It continues by its own logits; by the `rank`-th likeliest."""

    rank: int = 0

    def generate(self, prompts: Sequence[Sequence[int]], new_tokens: int) -> Iterator[DecodeStep]:
        texts = [list(prompt) for prompt in prompts]
        for _ in range(new_tokens):
            tokens = tuple(int(np.argsort(-self.table(text)[-1])[self.rank]) for text in texts)
            for text, token in zip(texts, tokens, strict=True):
                text.append(token)
            yield DecodeStep(0.0, tokens)


def _causal(vocab: int, seed: int = 0, scale: float = 3.0) -> Given:
    """Each position's logits depend on the tokens up to it alone."""
    row = random_logits(vocab, seed, scale)
    return Given(lambda ids: np.concatenate([row([token, i])[:1] for i, token in enumerate(ids)]), words=letters)


_BASE = Generating(_causal(_VOCAB).table, words=letters)


@pytest.fixture
def options(tmp_path: Path) -> Options:
    (tmp_path / "text.txt").write_text("thequickbrownfoxjumpsoverthelazydog" * 8)
    return Options(f"path:{tmp_path / 'text.txt'}", context=32, tokens=0, new_tokens=5)


@pytest.fixture
def reference(options: Options, tmp_path: Path) -> Path:
    out = tmp_path / "reference"
    out.mkdir()
    facts = conformance.prepare(_BASE, options, tmp_path, out)
    about = {**facts, "digest": "d", "engine": "given", "artifact": "a"}
    (out / "reference.json").write_text(json.dumps(about))
    return out


def test_the_divergence_is_that_of_whole_distributions(options: Options, reference: Path, tmp_path: Path) -> None:
    """The mean over scored tokens equals SciPy's; of the baseline against itself it is nothing."""
    noise = random_logits(_VOCAB, 1, 0.5)
    moved = Generating(lambda ids: _BASE.table(ids) + noise(ids), words=letters)
    expected = []
    for window in windows.cut(_BASE, options, tmp_path).windows:
        at = slice(window.first - 1, len(window.ids) - 1)
        p, q = (softmax(np.float32(s.table(window.ids)[at]).astype(float), axis=1) for s in (_BASE, moved))
        expected += rel_entr(p, q).sum(1).tolist()

    metrics = conformance.metrics(conformance.evaluate(moved, options, tmp_path, reference))
    same = conformance.metrics(conformance.evaluate(_BASE, options, tmp_path, reference))

    assert metrics["conformance_kl"] == pytest.approx(np.mean(expected), rel=1e-5)
    assert metrics["scored_tokens"] == len(expected)
    assert same["conformance_kl"] == pytest.approx(0, abs=1e-7)
    assert same["conformance_top1_fraction"] == 1


def test_a_token_that_is_not_the_likeliest_shows(options: Options, reference: Path, tmp_path: Path) -> None:
    """As from a cache that forgets: the gap is from the likeliest, by a pass over the whole text."""
    wrong = Generating(_BASE.table, words=letters, rank=3)

    gap = conformance.metrics(conformance.evaluate(wrong, options, tmp_path, reference))["greedy_gap_nats"]
    none = conformance.metrics(conformance.evaluate(_BASE, options, tmp_path, reference))["greedy_gap_nats"]

    assert gap > 0.5
    assert none == 0


def test_another_vocabulary_is_one_sentence(options: Options, reference: Path, tmp_path: Path) -> None:
    """KL between distributions over other ids is none."""
    other = Generating(_causal(_VOCAB + 1).table, words=letters)

    with pytest.raises(UserError, match="vocabulary has 41 entries and the baseline's 40"):
        conformance.evaluate(other, options, tmp_path, reference)


def test_two_artifacts_are_compared_by_their_windows(options: Options, reference: Path, tmp_path: Path) -> None:
    """The change of the mean, and nothing for the same."""
    facts = conformance.evaluate(_BASE, options, tmp_path, reference)

    assert conformance.compare_by_reference(facts, facts)["conformance_kl_change"] == 0
