"""A server in place of a loaded model, as tasks see it: items to requests at a concurrency, and back to answers."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bench.contract import wire
from bench.contract.errors import CellError, UnsupportedError, UserError
from bench.contract.hooks import ChoiceScore, DecodeStep, LogitBlock, Question
from bench.contract.served import ServedPrompt, ServedSession
from bench.contract.server import PromptLogprobs
from bench.load.build import Target
from bench.load.job import ClosedSchedule, LoadAnswer, LoadJob, Request
from bench.run.served import choices

Apply = Callable[[LoadJob], LoadAnswer]


@dataclass
class Finished:
    """Answers by their item's name, in a file of the cache that outlives a run which was cut short."""

    file: Path
    answers: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        with suppress(OSError, ValueError, AttributeError):
            self.answers = {name: str(text) for name, text in json.loads(self.file.read_text()).items()}

    def keep(self) -> None:
        """Write them down."""
        wire.write(self.file, wire.dumps(self.answers))

    def forget(self) -> None:
        """They are in a record now."""
        self.file.unlink(missing_ok=True)


@dataclass
class EndpointSession(ServedSession):
    """Asks `target` for all items, `concurrency` at a time, in an order that `seed` draws.

    `load` is what the client measured meanwhile; `resumed` answers are of an earlier run that was cut short.
    """

    target: Target
    concurrency: int
    seed: str
    apply: Apply
    finished: Finished
    prompt_logprobs: PromptLogprobs = ""
    scored: Mapping[str, Any] = field(default_factory=dict)
    load: LoadAnswer | None = None
    resumed: int = 0

    def answers(self, prompts: Sequence[ServedPrompt]) -> list[str]:
        requests = {f"prompt {n}": _request(self.target, prompt, self.scored) for n, prompt in enumerate(prompts)}
        return self._replies(requests, lambda _, text: text)

    def loglikelihood(self, questions: Sequence[Question]) -> Iterator[tuple[int, list[ChoiceScore]]]:
        if not questions:
            return
        if not (how := self.prompt_logprobs):
            raise UnsupportedError(
                "multiple choice needs the log-probabilities of a prompt, which this server gives not (echo with "
                "logprobs, or prompt_logprobs): ask it tasks that generate, or score this one in process"
            )
        if not self.target.takes_ids:
            raise UnsupportedError(
                "multiple choice needs prompts of token ids, which this server is not given: set ids: true and "
                "api: completions where it takes them"
            )
        pairs = [(number, choice) for number, question in enumerate(questions) for choice in question.choices]
        natural = self.target.natural
        requests = {
            f"choice {n}": choices.request(questions[number], choice, how, natural)
            for n, (number, choice) in enumerate(pairs)
        }
        lengths = {f"choice {n}": (len(questions[number].context), choice) for n, (number, choice) in enumerate(pairs)}
        scores = self._replies(requests, lambda name, body: json.dumps(choices.score(body, *lengths[name], how)))
        by_question: dict[int, list[ChoiceScore]] = {}
        for (number, _), text in zip(pairs, scores, strict=True):
            by_question.setdefault(number, []).append(ChoiceScore(*json.loads(text)))
        yield from by_question.items()

    def generate(self, prompts: Sequence[Sequence[int]], new_tokens: int) -> Iterator[DecodeStep]:  # noqa: ARG002
        raise UserError("a server is asked for whole answers: leave via: server out of this task")

    def logits(self, ids: Sequence[int]) -> Iterator[LogitBlock]:  # noqa: ARG002
        raise UserError("a server gives no logits of a whole vocabulary: leave via: server out of this task")

    def receipts(self) -> Mapping[str, str]:
        return {}

    def memory(self) -> Mapping[str, int]:
        return {}

    def _replies(self, requests: Mapping[str, Request], read: Callable[[str, str], str]) -> list[str]:
        """What `read` makes of the answer to each request, in their order; CellError where one has none."""
        answers = self.finished.answers
        order = _shuffled([name for name in requests if name not in answers], self.seed)
        self.resumed += len(requests) - len(order)
        if order:
            self.load = self.apply(_job(self.target, [requests[name] for name in order], self.concurrency))
            for result in self.load.measured:
                if not result.failure:
                    name = order[result.trace.request - self.concurrency]  # after the warm-up
                    answers[name] = read(name, result.answer)
            self._require_all(self.load, [name in answers for name in requests])
        return [answers[name] for name in requests]

    def _require_all(self, load: LoadAnswer, answered: Sequence[bool]) -> None:
        """CellError, with what was answered on disk, where not all of the items were."""
        if all(answered):
            return
        self.finished.keep()
        first = next((result.trace.error for result in load.measured if result.failure), "they were not sent")
        why = load.error or f"the first of the others: {first}"
        raise CellError(
            f"{sum(answered)} of {len(answered)} items were answered; {why}; the next run (--retry failed) asks for "
            "the others alone"
        )


def _shuffled(names: list[str], seed: str) -> list[str]:
    random.Random(seed).shuffle(names)  # noqa: S311  (reproducible, not secret)
    return names


def _job(target: Target, requests: Sequence[Request], concurrency: int) -> LoadJob:
    """A closed loop over the requests; what goes before and after keeps the load up, and is not measured.

    Of a load of one at a time nothing does.
    """
    around = concurrency if concurrency > 1 else 0
    before = [requests[-1 - i % len(requests)] for i in range(concurrency)]
    after = [requests[i % len(requests)] for i in range(around)]
    schedule = ClosedSchedule(concurrency, warmup=concurrency, after=around)
    return LoadJob(
        target.endpoint, (*before, *requests, *after), closed=schedule, tokenizer=str(target.tokenizer or "")
    )


def _request(target: Target, prompt: ServedPrompt, scored: Mapping[str, Any]) -> Request:
    """The request for a prompt, as what the server takes; it ends where the model ends it, or at a stop."""
    extra: dict[str, Any] = {**target.natural, **scored, **({"stop": list(prompt.stops)} if prompt.stops else {})}
    request = Request(prompt.new_tokens, extra=extra, natural=True, scored=True)
    if target.endpoint.api == "chat":
        if not prompt.messages:
            raise UserError(
                "the chat API puts a prompt into the server's own template, and this task's is none of messages: "
                "give the task its chat option, or the engine api: completions"
            )
        return replace(request, messages=prompt.messages)
    if target.takes_ids:
        return replace(request, ids=prompt.ids)
    if not prompt.text:
        raise UserError("the task has prompts of token ids alone, which this server does not take")
    return replace(request, text=prompt.text)


def deadline_s(timeout_s: float) -> Callable[[], float]:
    """Seconds that are left of a time limit that begins now, at least one."""
    end = time.monotonic() + timeout_s
    return lambda: max(1.0, end - time.monotonic())
