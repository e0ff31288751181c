"""Retrieval by scripted models: one that copies what it has read, and one that forgets it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.contract.errors import UserError
from bench.contract.hooks import DecodeStep
from eval.scoring import logprobs
from eval.stats import proportion
from eval.tasks import retrieval
from eval.tasks.retrieval import Options
from eval.text import haystack
from tests.conftest import ROOT, json_of
from tests.eval.sessions import Given

_DEMO, _VOCAB = ROOT / "models/demo", 4096
_SURE = 12.0  # the logit of the token that is copied, over zeros
_OPTIONS = Options(lengths="200,400", depths="0,0.5,1", items=3)


def _next(ids: Sequence[int], reach: int) -> int:
    """The token after the longest earlier text that ends as `ids` do, of the last `reach` tokens."""
    ids = list(ids[-reach:])
    alike = {k: next((n for n in range(12) if ids[k - n - 1] != ids[-n - 1]), 12) for k in range(12, len(ids))}
    best = max(alike, key=lambda k: (alike[k], k), default=0)
    return ids[best] if alike.get(best) else 0


@dataclass(frozen=True)
class _Copying(Given):
    """An induction head: what it has read of late it repeats."""

    reach: int = 10_000

    def generate(self, prompts: Sequence[Sequence[int]], new_tokens: int) -> Iterator[DecodeStep]:
        (ids,) = map(list, prompts)
        for _ in range(new_tokens):
            ids.append(_next(ids, self.reach))
            yield DecodeStep(0.0, (ids[-1],))


def _copying(reach: int = 10_000) -> _Copying:
    def table(ids: Sequence[int]) -> Any:
        """Of the last tokens alone: nobody asks for the others'."""
        logits = np.zeros((len(ids), _VOCAB), np.float32)
        for place in range(len(ids) - 16, len(ids)):
            logits[place, _next(ids[: place + 1], reach)] = _SURE
        return logits

    return _Copying(table, rows=64, reach=reach)


@pytest.fixture(scope="module")
def whole() -> dict[str, Any]:
    return dict(retrieval.evaluate(_copying(), _OPTIONS, _DEMO, None))


@pytest.fixture(scope="module")
def forgetful() -> dict[str, Any]:
    """It sees 150 tokens: what is deeper than that in its context is lost."""
    return dict(retrieval.evaluate(_copying(150), _OPTIONS, _DEMO, None))


def test_a_model_that_copies_finds_every_fact(whole: dict[str, Any]) -> None:
    """All answers are right, and as likely as a model that sure can make them."""
    metrics = retrieval.metrics(whole)
    surest = math.log(math.exp(_SURE) + _VOCAB - 1) - _SURE

    assert whole["item_scores"] == "1" * 18
    assert metrics["accuracy_fraction"] == metrics["exact_match"] == 1.0
    assert metrics["accuracy_low_fraction"] == pytest.approx(proportion.wilson(1.0, 18)[0])
    assert metrics["answer_nll"] == pytest.approx(surest, rel=1e-4)
    assert metrics["scored_items"] == 18


def test_what_is_forgotten_is_missed_where_it_stands(forgetful: dict[str, Any]) -> None:
    """Right at the end, wrong at the beginning: the matrix says so, and the likelihood with it."""
    parts = {tuple(part.labels.values()): part.metrics for part in retrieval.parts(forgetful, None)}

    assert list(parts) == [(length, depth) for length in ("200", "400") for depth in ("0 %", "50 %", "100 %", "all")]
    for length in ("200", "400"):
        assert parts[length, "100 %"]["accuracy_fraction"] == 1.0
        assert parts[length, "0 %"]["accuracy_fraction"] == 0.0
        assert parts[length, "0 %"]["answer_nll"] > parts[length, "100 %"]["answer_nll"] + 1
    assert parts["400", "50 %"]["accuracy_fraction"] == 0.0
    each = [parts["400", depth]["accuracy_fraction"] for depth in ("0 %", "50 %", "100 %")]
    assert parts["400", "all"]["accuracy_fraction"] == pytest.approx(sum(each) / 3)
    assert parts["400", "all"]["scored_items"] == 9


def test_a_likelihood_is_the_sum_over_the_answers_tokens(forgetful: dict[str, Any]) -> None:
    """From the logits before each of them, over the full vocabulary."""
    places = [haystack.Place(length, depth) for length in (200, 400) for depth in (0, 0.5, 1)]
    items = list(haystack.items(_copying(), _DEMO, None, places, 3, 0))

    for number in (0, 10, 17):
        ids = [*items[number].prompt, *items[number].answer]
        first = len(items[number].prompt)
        rows = logprobs.log_softmax(np.asarray(_copying(150).table(ids[:-1])))
        expected = -math.fsum(rows[place - 1, ids[place]] for place in range(first, len(ids)))
        assert forgetful["item_nll"][number] == pytest.approx(expected, rel=1e-6)
        assert forgetful["fact_tokens"][number] == items[number].fact


def test_two_artifacts_are_paired_by_their_items(whole: dict[str, Any], forgetful: dict[str, Any]) -> None:
    """Items lost, McNemar's p, and the change of the likelihood with its interval, over all and by place."""
    change = retrieval.compare_to_baseline(forgetful, whole)
    lost = forgetful["item_scores"].count("0")

    assert (change["flips_worse"], change["flips_better"]) == (lost, 0)
    assert change["mcnemar_p"] == pytest.approx(2 * 0.5**lost)
    assert change["score_change"] == pytest.approx(-lost / 18)
    assert change["score_recovery_fraction"] == pytest.approx(1 - lost / 18)
    assert 0 < change["answer_nll_change_low"] < change["answer_nll_change"] < change["answer_nll_change_high"]
    by_place = {tuple(part.labels.values()): part.metrics for part in retrieval.parts(forgetful, whole)}
    assert by_place["400", "100 %"]["answer_nll_change"] == pytest.approx(0, abs=1e-6)
    assert by_place["400", "0 %"]["answer_nll_change"] > 1
    other = {**whole, "items_sha256": "other"}
    for compare in (retrieval.compare_to_baseline, retrieval.parts):
        with pytest.raises(UserError, match="items_sha256"):
            compare(forgetful, other)


def test_the_name_says_what_moves_the_figure(tmp_path: Path) -> None:
    """Text, lengths, and what is not as it is by default; where a file lies is nowhere."""
    assert retrieval.title(Options()) == "retrieval-pairs-512-2048-8192"
    assert retrieval.title(_OPTIONS) == "retrieval-pairs-200-400-d0-50-100-3items"
    text = Options(corpus=f"path:{tmp_path / 'a.txt'}", lengths="64", depths="0.125", items=10, seed=7)
    assert retrieval.title(text) == "retrieval-a.txt-64-d12.5-seed7"
    assert retrieval.longest(_OPTIONS) == 400
    assert retrieval.title(Options(lengths=64, depths=0.5)) == "retrieval-pairs-64-d50"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"lengths": "512;2048"}, "lengths: '512;2048' is no list of tokens"),
        ({"lengths": ""}, "no list of tokens"),
        ({"lengths": "0"}, "no list of tokens"),
        ({"depths": "0,2"}, "depths: '0,2' is no list of numbers within 0 .. 1"),
        ({"depths": "middle"}, "no list of numbers"),
        ({"items": 0}, "items: 0 leaves nothing to measure"),
    ],
)
def test_options_without_a_meaning_are_refused(change: dict[str, Any], words: str) -> None:
    """When the suite is read, in one sentence."""
    with pytest.raises(UserError, match=words):
        retrieval.title(replace(Options(), **change))


@pytest.mark.engine
def test_transformers_answers_the_same_prompts(hf_python: Path) -> None:
    """The prompts are those of any other engine; likelihoods are PyTorch's own, answers its own greedy ones.

    The demo model is a small one: its likelihoods tell that it reads, where few of its answers are right.
    """
    checks = json_of(hf_python, "eval/retrieval_checks.py", str(_DEMO))
    expected = retrieval.evaluate(_copying(), Options(**checks["options"]), _DEMO, None)

    assert checks["facts"]["items_sha256"] == expected["items_sha256"]
    assert checks["facts"]["item_nll"] == pytest.approx(checks["nll"], rel=1e-3)
    assert checks["facts"]["item_scores"] == checks["greedy"]
    metrics = retrieval.metrics(checks["facts"])
    assert 0 < metrics["answer_nll"] < math.log(_VOCAB)
