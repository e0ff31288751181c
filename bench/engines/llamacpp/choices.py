"""Scores of choices in llama.cpp: a context is fed once, to the sequences of all its choices in one KV cache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from bench.contract.hooks import ChoiceScore, Question
from bench.engines import _choices
from bench.engines._choices import Row
from bench.engines._logits import LogSoftmax
from bench.engines.llamacpp.context import PAD, Context

_SEQUENCES = 64  # of a call
_LOGIT_BYTES = 64 << 20


class ChoiceScorer:
    """Scores as many questions a call as there is room for, each choice by itself without `shares_context`."""

    def __init__(self, session: Any, questions: Sequence[Question], *, shares_context: bool) -> None:
        most = _SEQUENCES if shares_context else 1
        self.rows = [row for index, question in enumerate(questions) for row in _choices.rows(index, question, most)]
        self.questions = questions
        longest = max((row.length for row in self.rows), default=1)
        self.max_tokens = -(-max(longest, session.options.ubatch) // PAD) * PAD
        self.max_outputs = max(1, _LOGIT_BYTES // (4 * session.vocab_size))
        self.context = Context(session, _SEQUENCES, self.max_tokens, self.max_tokens, unified=True)

    def scores(self) -> Iterator[tuple[int, list[ChoiceScore]]]:
        """The longest first, so that calls are full."""
        longest_first = sorted(self.rows, key=lambda row: -row.length)
        return _choices.scores(self.questions, _choices.batches(longest_first, self._fits), self._score)

    def _fits(self, batch: Sequence[Row]) -> bool:
        return (
            sum(row.length for row in batch) <= self.max_tokens
            and sum(len(row.choices) for row in batch) <= _SEQUENCES
            and sum(row.tail for row in batch) <= self.max_outputs
        )

    def _score(self, batch: Sequence[Row]) -> Iterator[list[ChoiceScore]]:
        self.context.clear()
        end = 0
        predictors: list[list[int]] = []  # of each choice, the batch indices whose logits predict its tokens
        for row in batch:
            end = self.context.put(end, row.context, 0, len(predictors), len(row.choices))
            last = end - 1
            for choice in row.choices:
                start, end = end, self.context.put(end, choice[:-1], len(row.context), len(predictors), 1)
                predictors.append([last, *range(start, end)])
        outputs = sorted({index for indices in predictors for index in indices})
        logits, at = LogSoftmax(self.context.logits_at(end, outputs)), {index: k for k, index in enumerate(outputs)}
        remaining = iter(predictors)
        for row in batch:
            yield [logits.score([at[index] for index in next(remaining)], choice) for choice in row.choices]
