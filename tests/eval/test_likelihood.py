"""Choices scored and prompts continued by what a session can do."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from bench.contract import phase
from bench.contract.errors import UserError
from bench.contract.hooks import DecodeStep, Question
from eval.scoring import likelihood
from tests.conftest import ROOT
from tests.eval.sessions import Given, random_logits


def _expected(ids: Sequence[int], first: int, vocab: int) -> tuple[float, bool]:
    """By the definition: each token's log-softmax at the place before it."""
    logits = random_logits(vocab)(ids[:-1]).astype(np.float32).astype(np.float64)
    rows = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    places = range(first - 1, len(ids) - 1)
    greedy = all(int(rows[at].argmax()) == ids[at + 1] for at in places)
    return math.fsum(rows[at, ids[at + 1]] for at in places), greedy


@pytest.mark.parametrize("rows", [1, 2, 3, 100])
def test_a_choice_is_the_sum_of_its_tokens_wherever_blocks_end(rows: int) -> None:
    """Blocks of any size give the sum of log-probabilities of the choice's tokens, and of no other."""
    contexts, choices_of = [[3, 1, 4], [2]], [[[1, 5], [9]], [[6, 5, 3, 5]]]
    request = list(zip(contexts, choices_of, strict=True))
    result = likelihood.scores(Given(random_logits(11), rows=rows), request)

    for context, choices, scores in zip(contexts, choices_of, result, strict=True):
        for choice, (logprob, greedy) in zip(choices, scores, strict=True):
            expected = _expected([*context, *choice], len(context), 11)

            assert logprob == pytest.approx(expected[0], abs=1e-5)
            assert greedy == expected[1]


def test_what_is_asked_twice_is_scored_once() -> None:
    """Pairs of one context become one question, equal pairs one choice; each pair knows its place."""
    questions, pairs = likelihood.grouped([([1, 2], [3]), ([9], [3]), ([1, 2], [4]), ([1, 2], [3])])

    assert questions == [[[1, 2], [[3], [4]]], [[9], [[3]]]]
    assert pairs == [(0, 0), (1, 0), (0, 1), (0, 0)]


@dataclass(frozen=True)
class _Forgetful(Given):
    """An engine that leaves a question out."""

    def loglikelihood(self, questions: Sequence[Question]) -> Iterator[tuple[int, Any]]:
        yield 0, [(-1.0, False)] * len(questions[0].choices)


def test_an_engine_that_leaves_a_question_out_is_found_out() -> None:
    """Nothing is filled in for it."""
    with pytest.raises(UserError, match="scored 1 of 2 questions"):
        likelihood.scores(_Forgetful(random_logits(5)), [[[1], [[2]]], [[2], [[3]]]])


@dataclass(frozen=True)
class _Teller(Given):
    """An engine that says what it was told to."""

    says: tuple[int, ...] = ()

    def generate(self, prompts: Sequence[Sequence[int]], new_tokens: int) -> Iterator[DecodeStep]:
        for token in (*self.says, *([0] * new_tokens))[:new_tokens]:
            yield DecodeStep(0.0, (token,) * len(prompts))


def test_a_text_ends_at_its_stop_its_end_token_or_its_length(tmp_path: Path) -> None:
    """A stop is found in the text, also where it is cut into several tokens; what follows is not made."""
    (tmp_path / "tokenizer.json").write_bytes((ROOT / "models/demo/tokenizer.json").read_bytes())
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    ids = tokenizer.encode("def f(x):\n    return x\n\nclass A:", add_special_tokens=False).ids
    session = _Teller(random_logits(5), says=tuple(ids))
    to_stop, to_end, to_length = (
        likelihood.generated(session, [[[1], new, stops]], eos, tmp_path)[0]
        for new, stops, eos in ((99, ["\n\n"], None), (99, [], ids[4]), (3, [], None))
    )

    assert "\n\n" in tokenizer.decode(to_stop)
    assert "class" not in tokenizer.decode(to_stop)
    assert to_end == ids[:5]
    assert to_length == ids[:3]


def test_what_is_scored_and_written_is_told_to_the_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Questions by their logits, and answers whether they end at their stop or at their length."""
    (tmp_path / "tokenizer.json").write_bytes((ROOT / "models/demo/tokenizer.json").read_bytes())
    monkeypatch.setenv(phase.VARIABLE, str(tmp_path / "phases"))
    likelihood.scores(Given(random_logits(11)), [[[1], [[2], [3]]], [[2], [[3]]]])
    likelihood.generated(_Teller(random_logits(5), says=(7, 8, 9)), [[[1], 3, []], [[1], 9, []]], 9, tmp_path)

    lines = (tmp_path / "phases").read_text().splitlines()
    assert (lines[0], lines[1]) == ("scoring: 0 of 2 questions", "scoring: 2 of 2 questions")
    assert (lines[2], lines[-1]) == ("scoring: 0 of 2 answers", "scoring: 2 of 2 answers")
