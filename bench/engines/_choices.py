"""Multiple choice in batches, for engines: rows of choices behind their contexts, and their scores by question."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from bench.contract import phase
from bench.contract.hooks import ChoiceScore, Question


@dataclass(frozen=True)
class Row:
    """Choices `first`, first + 1, … of a question, behind its context."""

    index: int  # of the question
    first: int
    context: tuple[int, ...]
    choices: tuple[tuple[int, ...], ...]

    @property
    def tail(self) -> int:
        """Positions whose logits are needed: the context's last one, and all tokens of choices but the last."""
        return 1 + sum(len(choice) - 1 for choice in self.choices)

    @property
    def length(self) -> int:
        return len(self.context) + self.tail - 1

    @property
    def ids(self) -> list[int]:
        return [*self.context, *(token for choice in self.choices for token in choice[:-1])]

    @property
    def predictors(self) -> Iterator[int]:
        """Where in the tail each token of each choice is predicted: the first one by the context's last."""
        start = 1
        for choice in self.choices:
            yield from (0, *range(start, start + len(choice) - 1))
            start += len(choice) - 1

    @property
    def branches(self) -> list[int]:
        """Of each token, 0 for the context, k for the k-th choice."""
        return [0] * len(self.context) + [k for k, choice in enumerate(self.choices, 1) for _ in choice[:-1]]

    @property
    def positions(self) -> list[int]:
        """Of each token, its position as if its choice stood alone."""
        length = len(self.context)
        return [*range(length), *(length + k for choice in self.choices for k in range(len(choice) - 1))]


def rows(index: int, question: Question, most: int) -> list[Row]:
    """A question in rows of at most so many choices."""
    starts = range(0, len(question.choices), most)
    return [Row(index, first, question.context, question.choices[first : first + most]) for first in starts]


def longest(questions: Sequence[Question]) -> int:
    """The most tokens that are fed for a choice: all but the last of its context and itself."""
    return max((len(q.context) + len(choice) - 1 for q in questions for choice in q.choices), default=0)


def batches(rows: Iterable[Row], fits: Callable[[Sequence[Row]], bool]) -> Iterator[list[Row]]:
    """Neighbours together for as long as they fit."""
    batch: list[Row] = []
    for row in rows:
        if batch and not fits([*batch, row]):
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def scores(
    questions: Sequence[Question],
    batches: Iterable[Sequence[Row]],
    score: Callable[[Sequence[Row]], Iterable[Sequence[ChoiceScore]]],
) -> Iterator[tuple[int, list[ChoiceScore]]]:
    """Every question's scores, in the order of its choices; `score` has those of each row of a batch."""
    scores: list[list[Any]] = [[None] * len(question.choices) for question in questions]
    steps = phase.Steps("scoring: {done:,} of {total:,} choices", sum(map(len, scores)))
    steps.at(0)
    for batch in batches:
        for row, row_scores in zip(batch, score(batch), strict=True):
            scores[row.index][row.first : row.first + len(row_scores)] = row_scores
            steps.add(len(row_scores))
    yield from enumerate(scores)
