"""Choices scored by a server's log-probabilities of a prompt: the request for one, and its score from the answer.

Two ways are known: OpenAI's `echo` with `logprobs`, which repeats the prompt with those of its tokens, and vLLM's
`prompt_logprobs`, which has the rank of each token too.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from bench.contract.hooks import ChoiceScore, Question
from bench.contract.server import PromptLogprobs
from bench.load.job import Request

_FIELDS: Mapping[PromptLogprobs, Mapping[str, Any]] = {
    "echo": {"echo": True, "logprobs": 1},
    "prompt_logprobs": {"prompt_logprobs": 0},
}


def request(question: Question, choice: Sequence[int], how: PromptLogprobs, natural: Mapping[str, Any]) -> Request:
    """A request whose prompt is the context with a choice behind it, and which generates as little as it can."""
    extra = {**natural, **_FIELDS[how]}
    return Request(1, ids=(*question.context, *choice), extra=extra, natural=True, scored=True, whole=True)


def score(body: str, context: int, choice: Sequence[int], how: PromptLogprobs) -> ChoiceScore:
    """The score of a choice behind `context` tokens, from the body of its answer; ValueError where it has none."""
    try:
        answered = json.loads(body)["choices"][0]
        read = _of_echo if how == "echo" else _of_prompt_logprobs
        tokens = read(answered, context, choice)
        logprob = math.fsum(logprob for logprob, _ in tokens)
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError):
        tokens, logprob = [], math.nan
    if len(tokens) != len(choice) or not math.isfinite(logprob):
        raise ValueError(f"the answer has no log-probabilities of the prompt ({how})")
    return ChoiceScore(logprob, all(is_greedy for _, is_greedy in tokens))


def _of_prompt_logprobs(answered: Any, context: int, choice: Sequence[int]) -> list[tuple[float, bool]]:
    """Of each token by its id, with its rank."""
    by_position = answered["prompt_logprobs"][context : context + len(choice)]
    tokens = [by_id[str(token)] for by_id, token in zip(by_position, choice, strict=True)]
    return [(float(token["logprob"]), token["rank"] == 1) for token in tokens]


def _of_echo(answered: Any, context: int, choice: Sequence[int]) -> list[tuple[float, bool]]:
    """Of each token; it is the likeliest where no other one listed is likelier."""
    logprobs, end = answered["logprobs"], context + len(choice)
    own = logprobs["token_logprobs"][context:end]
    best = [max(map(float, top.values()), default=-math.inf) for top in logprobs["top_logprobs"][context:end]]
    return [(float(logprob), float(logprob) >= top) for logprob, top in zip(own, best, strict=True)]
