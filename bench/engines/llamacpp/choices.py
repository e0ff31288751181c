"""Scores of choices in llama.cpp: each context is fed once for all its choices.

Its tokens belong to the sequences of all its choices, in one unified KV cache, as in llama-perplexity.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from bench.contract.hooks import ChoiceScore, Question
from bench.engines._logits import LogSoftmax
from bench.engines.llamacpp.context import PAD, Context

_SEQUENCES = 64  # of a call
_LOGIT_BYTES = 64 << 20


@dataclass(frozen=True)
class _Part:
    """Choices `first`, first + 1, … of a question: no more than there are sequences."""

    index: int  # of the question
    first: int
    context: tuple[int, ...]
    choices: tuple[tuple[int, ...], ...]

    @property
    def outputs(self) -> int:
        """Rows of logits: the context's last one, and those of all tokens of choices but the last."""
        return 1 + sum(len(choice) - 1 for choice in self.choices)

    @property
    def length(self) -> int:
        return len(self.context) + self.outputs - 1


class ChoiceScorer:
    """Scores as many questions a call as there is room for, each choice by itself without `shares_context`."""

    def __init__(self, session: Any, questions: Sequence[Question], *, shares_context: bool) -> None:
        step = _SEQUENCES if shares_context else 1
        self.parts = [
            _Part(index, first, question.context, question.choices[first : first + step])
            for index, question in enumerate(questions)
            for first in range(0, len(question.choices), step)
        ]
        self.questions = questions
        longest = max((part.length for part in self.parts), default=1)
        self.max_tokens = -(-max(longest, session.options.ubatch) // PAD) * PAD
        self.max_outputs = max(1, _LOGIT_BYTES // (4 * session.vocab_size))
        self.context = Context(session, _SEQUENCES, self.max_tokens, self.max_tokens, unified=True)

    def scores(self) -> Iterator[tuple[int, list[ChoiceScore]]]:
        """The longest first, so that calls are full."""
        scores: list[list[Any]] = [[None] * len(question.choices) for question in self.questions]
        for batch in self._batches():
            for part, part_scores in zip(batch, self._score(batch), strict=True):
                scores[part.index][part.first : part.first + len(part_scores)] = part_scores
        yield from enumerate(scores)

    def _batches(self) -> Iterator[list[_Part]]:
        batch: list[_Part] = []
        for part in sorted(self.parts, key=lambda part: -part.length):
            if batch and not self._fits([*batch, part]):
                yield batch
                batch = []
            batch.append(part)
        if batch:
            yield batch

    def _fits(self, batch: Sequence[_Part]) -> bool:
        return (
            sum(part.length for part in batch) <= self.max_tokens
            and sum(len(part.choices) for part in batch) <= _SEQUENCES
            and sum(part.outputs for part in batch) <= self.max_outputs
        )

    def _score(self, batch: Sequence[_Part]) -> Iterator[list[ChoiceScore]]:
        self.context.clear()
        end = 0
        predictors: list[list[int]] = []  # of each choice, the batch indices whose logits predict its tokens
        for part in batch:
            end = self.context.put(end, part.context, 0, len(predictors), len(part.choices))
            last = end - 1
            for choice in part.choices:
                start, end = end, self.context.put(end, choice[:-1], len(part.context), len(predictors), 1)
                predictors.append([last, *range(start, end)])
        outputs = sorted({index for indices in predictors for index in indices})
        logits, rows = LogSoftmax(self.context.logits_at(end, outputs)), {index: k for k, index in enumerate(outputs)}
        remaining = iter(predictors)
        for part in batch:
            yield [logits.score([rows[index] for index in next(remaining)], choice) for choice in part.choices]
