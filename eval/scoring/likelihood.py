"""Choices scored and prompts continued by a session's own methods, or else from its logits, one at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from bench.contract import phase
from bench.contract.errors import UserError
from bench.contract.hooks import (
    ChoiceScore,
    Ended,
    GenerateUntilSession,
    LoglikelihoodSession,
    Prompt,
    Question,
    Session,
)
from eval.scoring import logprobs

_STOP_TOKENS = 64  # the last tokens, decoded to look for a stop: longer than any stop


def grouped(pairs: Iterable[tuple[list[int], list[int]]]) -> tuple[list[Any], list[tuple[int, int]]]:
    """(context, continuation) pairs as [context, choices], equal ones once; each pair's (question, choice) there."""
    numbers: dict[tuple[int, ...], int] = {}
    questions: list[tuple[list[int], dict[tuple[int, ...], int]]] = []
    positions = []
    for context, continuation in pairs:
        number = numbers.setdefault(tuple(context), len(numbers))
        if number == len(questions):
            questions.append((context, {}))
        choices = questions[number][1]
        positions.append((number, choices.setdefault(tuple(continuation), len(choices))))
    return [[context, [list(choice) for choice in choices]] for context, choices in questions], positions


def scores(session: Session, requests: Sequence[Any]) -> list[list[ChoiceScore]]:
    """For each [context, choices] the scores of its choices."""
    questions = [Question(tuple(context), tuple(map(tuple, choices))) for context, choices in requests]
    by_number = dict(
        session.loglikelihood(questions) if isinstance(session, LoglikelihoodSession) else by_logits(session, questions)
    )
    if sorted(by_number) != list(range(len(questions))):
        raise UserError(f"the engine scored {len(by_number)} of {len(questions)} questions: use another engine")
    return [by_number[number] for number in range(len(questions))]


def generated(session: Session, requests: Sequence[Any], eos: int | None, folder: Path) -> list[list[int]]:
    """For each [prompt, new tokens, stops] its greedy ids up to a stop or `eos`, by the tokenizer.json of `folder`."""
    if not requests:
        return []
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    prompts = [Prompt(tuple(ids), new) for ids, new, _ in requests]
    steps, over = phase.Steps("scoring: {done:,} of {total:,} answers", len(prompts)), set[int]()
    steps.at(0)

    def ended(number: int, tokens: Sequence[int]) -> bool:
        stops = is_end(tokens, requests[number][2])
        if stops or len(tokens) == prompts[number].new_tokens:
            over.add(number)
            steps.at(len(over))
        return stops

    def is_end(tokens: Sequence[int], stops: Sequence[str]) -> bool:
        if tokens[-1] == eos:
            return True
        text = tokenizer.decode(list(tokens[-_STOP_TOKENS:]), skip_special_tokens=False)
        return any(stop in text for stop in stops)

    by_number = continued(session, prompts, ended)
    return [by_number[number] for number in range(len(prompts))]


def continued(session: Session, prompts: Sequence[Prompt], ended: Ended) -> dict[int, list[int]]:
    """For each prompt, by its number, the ids that follow it: as `GenerateUntilSession` has it."""
    if isinstance(session, GenerateUntilSession):
        return dict(session.generate_until(prompts, ended))
    return dict(_one_by_one(session, prompts, ended))


def by_logits(session: Session, questions: Sequence[Question]) -> Iterator[tuple[int, list[ChoiceScore]]]:
    """Every choice by itself, from the logits of its context and all of it but the last token."""
    for number, question in enumerate(phase.each(questions, "scoring: {done:,} of {total:,} questions")):
        yield number, [_score(session, question.context, choice) for choice in question.choices]


def _score(session: Session, context: Sequence[int], choice: Sequence[int]) -> ChoiceScore:
    import numpy as np

    first, logprob, greedy = len(context) - 1, 0.0, True
    for block in session.logits([*context, *choice][:-1]):
        rows = block.logits[max(0, first - block.start) :].astype(np.float64)
        start = max(block.start, first) - first
        targets = np.asarray(choice[start : start + len(rows)], int)
        if len(targets):
            logprob -= float(logprobs.target_nll(rows, targets).sum())
            greedy = greedy and bool((rows.argmax(axis=1) == targets).all())
    return ChoiceScore(logprob, greedy)


def _one_by_one(session: Session, prompts: Sequence[Prompt], ended: Ended) -> Iterator[tuple[int, list[int]]]:
    for number, prompt in enumerate(prompts):
        tokens: list[int] = []
        for step in islice(session.generate([prompt.ids], prompt.new_tokens), prompt.new_tokens):
            tokens.append(step.tokens[0])
            if ended(number, tokens):
                break
        yield number, tokens
