"""Perplexity and divergence by position, against sums done by hand, token by token."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from scipy.special import log_softmax, rel_entr

from bench.contract.columns import Part
from bench.contract.errors import UserError
from eval.tasks import divergence, perplexity
from eval.text import positions
from eval.text.windows import Window
from tests.eval.sessions import Given, letters, random_logits

_VOCAB, _TEXT = 30, "thequickbrownfoxjumpsoverthelazydog" * 30
_BASE = Given(random_logits(_VOCAB, scale=1.0), words=letters)
_EDGES = {300: [(1, 63), (64, 127), (128, 255), (256, 299)], 64: [(1, 63)], 65: [(1, 63), (64, 64)], 9: [(1, 8)]}


@pytest.fixture
def corpus(tmp_path: Path) -> str:
    (tmp_path / "text.txt").write_text(_TEXT)
    return f"path:{tmp_path / 'text.txt'}"


def _logprobs(session: Given, ids: list[int]) -> Any:
    """Of each position's next token, in float64 from the logits that an engine returns in float32."""
    return log_softmax(np.float32(session.table(ids)).astype(float), axis=1)


@pytest.mark.parametrize("context", _EDGES)
def test_bins_are_powers_of_two_up_to_the_context(context: int) -> None:
    """Every scored token is in one bin, by how many come before it; the last bin ends with the window."""
    window = Window(0, range(context), 1, context)
    result = positions.bins([window], {"place": [np.arange(1, context)]}, context)

    assert [(each["first"], each["last"]) for each in result] == _EDGES[context]
    for each in result:
        places = range(each["first"], each["last"] + 1)
        assert each["window_tokens"] == [len(places)]
        assert each["place"] == [sum(places)]
    assert positions.part(result[0], {}).labels == {positions.AXIS: f"1\N{EN DASH}{_EDGES[context][0][1]}"}


@pytest.mark.parametrize("stride", [0, 150])
def test_each_bin_is_the_sum_of_its_tokens(corpus: str, tmp_path: Path, stride: int) -> None:
    """With a stride a window scores its last tokens alone, and has none in the first bins."""
    options = perplexity.Options(corpus, context=300, stride=stride, by_position=True)
    facts = perplexity.evaluate(_BASE, options, tmp_path)
    ids = letters(_TEXT)[0]
    expected: dict[int, list[list[float]]] = {first: [] for first, _ in _EDGES[300]}
    for start in range(0, len(ids) - 299, stride or 300):
        window = ids[start : start + 300]
        rows = _logprobs(_BASE, window)
        nlls = {place: -rows[place - 1, window[place]] for place in range(150 if start and stride else 1, 300)}
        for first, last in _EDGES[300]:
            expected[first].append([nll for place, nll in nlls.items() if first <= place <= last])

    assert len(facts["by_position"]) == 4
    for each in facts["by_position"]:
        by_window = expected[each["first"]]
        assert each["window_tokens"] == [len(nlls) for nlls in by_window]
        assert each["window_nll"] == pytest.approx([math.fsum(nlls) for nlls in by_window], rel=1e-5)
    for key in ("window_nll", "window_tokens"):
        total = np.sum([each[key] for each in facts["by_position"]], axis=0)
        assert total == pytest.approx(facts[key], rel=1e-9)
    plain = perplexity.evaluate(_BASE, perplexity.Options(corpus, context=300, stride=stride), tmp_path)
    assert {key: value for key, value in facts.items() if key != "by_position"} == plain


def test_a_bins_perplexity_has_students_interval_over_its_windows(corpus: str, tmp_path: Path) -> None:
    """By the ratio of sums; windows that have no token in a bin do not count as windows of it."""
    options = perplexity.Options(corpus, context=300, stride=150, by_position=True)
    facts = perplexity.evaluate(_BASE, options, tmp_path)
    first, *_, last = perplexity.parts(facts, None)

    assert "perplexity_low" not in first.metrics  # one window alone begins at the beginning
    assert first.metrics["scored_tokens"] == 63
    sums = np.array(facts["by_position"][-1]["window_nll"])
    mean, count = sums.sum() / (44 * len(sums)), len(sums)
    error = math.sqrt(count / (count - 1) * ((sums - 44 * mean) ** 2).sum()) / (44 * count)
    half = stats.t.ppf(0.975, count - 1) * error
    assert last.metrics["nll_per_token"] == pytest.approx(mean)
    assert last.metrics["nll_per_token_low"] == pytest.approx(mean - half)
    assert last.metrics["perplexity"] == pytest.approx(math.exp(mean))
    assert last.metrics["perplexity_high"] == pytest.approx(math.exp(mean + half))
    assert last.at == (256 + 299) / 2
    wide = {"first": 1, "last": 9, "window_tokens": [9, 9], "window_nll": [9.0, 27.0]}  # 2 ± 12.7 nats a token
    (few,) = perplexity.parts({"by_position": [wide]}, None)
    assert few.metrics["perplexity_low"] == 1.0  # the least that a perplexity can be


def test_a_loss_at_depth_is_seen_there_and_nowhere_else(corpus: str, tmp_path: Path) -> None:
    """0.01 nats a token more in the last bin are e^0.01 - 1 there without any width, and nothing before."""
    options = perplexity.Options(corpus, context=300, by_position=True)
    baseline = perplexity.evaluate(_BASE, options, tmp_path)
    moved = json.loads(json.dumps(baseline))
    its = moved["by_position"][-1]
    its["window_nll"] = [nll + 0.01 * n for nll, n in zip(its["window_nll"], its["window_tokens"], strict=True)]

    *before, last = perplexity.parts(moved, baseline)

    ends = [f"perplexity_change{end}_fraction" for end in ("", "_low", "_high")]
    assert [last.metrics[key] for key in ends] == pytest.approx([math.expm1(0.01)] * 3, rel=1e-6)
    assert [part.metrics[key] for part in before for key in ends] == [0.0] * 9
    with pytest.raises(UserError, match="by_position"):
        perplexity.parts(moved, {key: value for key, value in baseline.items() if key != "by_position"})


def test_divergence_by_position_is_scipys(corpus: str, tmp_path: Path) -> None:
    """KL and the agreements of each bin's tokens, from whole distributions."""
    noise = random_logits(_VOCAB, 1, 0.5)
    this = Given(lambda ids: _BASE.table(ids) + noise(ids), words=letters)
    options = divergence.Options(corpus, 300, convention="hf", by_position=True)
    out = tmp_path / "reference"
    out.mkdir()
    stored = divergence.prepare(_BASE, options, tmp_path, out)
    (out / "reference.json").write_text(json.dumps({**stored, "digest": "d", "engine": "e", "artifact": "a"}))
    facts = divergence.evaluate(this, options, tmp_path, out)
    ids = letters(_TEXT)[0]
    rows = [[_logprobs(s, ids[start : start + 300]) for s in (_BASE, this)] for start in range(0, len(ids) - 299, 300)]

    for part, (first, last) in zip(divergence.parts(facts, None), _EDGES[300], strict=True):
        at = slice(first - 1, last)
        kl = [rel_entr(np.exp(p[at]), np.exp(q[at])).sum(1) for p, q in rows]
        same = [p[at].argmax(1) == q[at].argmax(1) for p, q in rows]
        assert part.metrics["scored_tokens"] == np.size(kl)
        assert part.metrics["kl_mean"] == pytest.approx(np.mean(kl), rel=1e-4)
        assert part.metrics["top1_agreement_fraction"] == pytest.approx(np.mean(same))
        assert part.metrics["kl_mean_low"] < part.metrics["kl_mean"] < part.metrics["kl_mean_high"]
    weights = [part.metrics["scored_tokens"] for part in divergence.parts(facts, None)]
    means = [part.metrics["kl_mean"] for part in divergence.parts(facts, None)]
    assert np.average(means, weights=weights) == pytest.approx(divergence.metrics(facts)["kl_mean"])


def test_without_it_there_are_no_parts(corpus: str, tmp_path: Path) -> None:
    """And a record has nothing of them."""
    facts = perplexity.evaluate(_BASE, perplexity.Options(corpus, context=300), tmp_path)

    none: list[Part] = []
    assert "by_position" not in facts
    assert perplexity.parts(facts, None) == none
    assert divergence.parts({}, None) == none
