"""Token ids asked of a session: how likely each choice is after its context, and what follows a prompt.

A session that has a faster way of its own (`loglikelihood`, `generate_until`) is asked for it; any other is
scored by its logits, a choice at a time, and continues one prompt at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

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

_LOOK_BACK = 64  # tokens among which a stop is looked for: longer than any stop


def grouped(pairs: Iterable[tuple[list[int], list[int]]]) -> tuple[list[Any], list[tuple[int, int]]]:
    """(context, continuation) pairs to [context, choices] and, of each pair, its place and choice there.

    What is asked twice is asked once.
    """
    places: dict[tuple[int, ...], int] = {}
    questions: list[tuple[list[int], dict[tuple[int, ...], int]]] = []
    found = []
    for context, continuation in pairs:
        place = places.setdefault(tuple(context), len(places))
        if place == len(questions):
            questions.append((context, {}))
        choices = questions[place][1]
        found.append((place, choices.setdefault(tuple(continuation), len(choices))))
    return [[context, [list(choice) for choice in choices]] for context, choices in questions], found


def scores(session: Session, asked: Sequence[Any]) -> list[list[ChoiceScore]]:
    """For each [context, choices] the scores of its choices."""
    questions = [Question(tuple(context), tuple(map(tuple, choices))) for context, choices in asked]
    if isinstance(session, LoglikelihoodSession):
        found = dict(session.loglikelihood(questions))
    else:
        found = dict(by_logits(session, questions))
    if sorted(found) != list(range(len(questions))):
        raise UserError(f"the engine scored {len(found)} of {len(questions)} questions: score this on another engine")
    return [found[place] for place in range(len(questions))]


def written(session: Session, asked: Sequence[Any], eos: int | None, folder: Path) -> list[list[int]]:
    """For each [prompt, new tokens, stops] the ids that follow it greedily, up to a stop or `eos`.

    `folder` has the tokenizer.json by which stops are found in the text.
    """
    if not asked:
        return []
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    prompts = [Prompt(tuple(ids), new) for ids, new, _ in asked]

    def ended(place: int, tokens: Sequence[int]) -> bool:
        if tokens[-1] == eos:
            return True
        text = tokenizer.decode(list(tokens[-_LOOK_BACK:]), skip_special_tokens=False)
        return any(stop in text for stop in asked[place][2])

    found = continued(session, prompts, ended)
    return [found[place] for place in range(len(prompts))]


def continued(session: Session, prompts: Sequence[Prompt], ended: Ended) -> dict[int, list[int]]:
    """For each prompt, by its place, the ids that follow it: as `GenerateUntilSession` has it."""
    if isinstance(session, GenerateUntilSession):
        return dict(session.generate_until(prompts, ended))
    return dict(_one_by_one(session, prompts, ended))


def by_logits(session: Session, questions: Sequence[Question]) -> Iterator[tuple[int, list[ChoiceScore]]]:
    """Every choice by itself, from the logits of its context and all of it but the last token."""
    for place, question in enumerate(questions):
        yield place, [_one(session, question.context, choice) for choice in question.choices]


def _one(session: Session, context: Sequence[int], choice: Sequence[int]) -> ChoiceScore:
    import numpy as np

    fed = [*context, *choice][:-1]
    first, total, greedy = len(context) - 1, 0.0, True
    for block in session.logits(fed):
        rows = block.logits[max(0, first - block.start) :].astype(np.float64)
        start = max(block.start, first) - first
        targets = np.asarray(choice[start : start + len(rows)], int)
        if not len(targets):
            continue
        top = rows.max(axis=1)
        sums = np.log(np.exp(rows - top[:, None]).sum(axis=1)) + top
        total += float((rows[np.arange(len(targets)), targets] - sums).sum())
        greedy = greedy and bool((rows.argmax(axis=1) == targets).all())
    return ChoiceScore(total, greedy)


def _one_by_one(session: Session, prompts: Sequence[Prompt], ended: Ended) -> Iterator[tuple[int, list[int]]]:
    for place, prompt in enumerate(prompts):
        tokens: list[int] = []
        for step in islice(session.generate([prompt.ids], prompt.new_tokens), prompt.new_tokens):
            tokens.append(step.tokens[0])
            if ended(place, tokens):
                break
        yield place, tokens
