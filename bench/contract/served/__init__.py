"""Quality through the endpoint: the options of a task that an engine's server can answer, and what answers it.

The same items as in process, as requests to the server at a stated concurrency: what is scored is what is deployed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, Protocol, runtime_checkable

from bench.contract.hooks import LoglikelihoodSession

Via = Literal["process", "server"]


@dataclass(frozen=True)
class ServedOptions:
    """What the Options of a task inherit whose items a server can be asked.

    `via` server: the engine's own HTTP server is asked, and not a session in process. `concurrency`: how many of the
    items are in flight at a time there.
    """

    via: Via = "process"
    concurrency: int = 1

    def __post_init__(self) -> None:
        if self.concurrency < 1:
            raise ValueError(f"concurrency: must be at least 1, got {self.concurrency}")
        if self.via == "process" and self.concurrency != 1:
            raise ValueError("concurrency: means nothing in process; set via: server")

    @property
    def is_served(self) -> bool:
        return self.via == "server"

    @property
    def suffixes(self) -> tuple[str, ...]:
        """What a task's title ends with: server and c16; nothing of a task in process."""
        return ("server", f"c{self.concurrency}") if self.is_served else ()


ANSWER_DIGITS = 6  # of an answer's digest in `item_answers`
SINCE = frozenset(field.name for field in fields(ServedOptions))  # OPTIONS_SINCE of a task that has these


def is_served(options: Mapping[str, Any]) -> bool:
    """Whether a task's options ask for the engine's server."""
    return options.get("via") == "server"


def in_process(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of the same task in process, those of ServedOptions left out."""
    return {name: value for name, value in options.items() if name not in SINCE}


def item_answers(answers: Iterable[str]) -> str:
    """The fact of this name, by which answers to the same items are compared: first digits of each one's SHA-256."""
    return "".join(hashlib.sha256(answer.encode()).hexdigest()[:ANSWER_DIGITS] for answer in answers)


@dataclass(frozen=True)
class ServedPrompt:
    """What a server continues greedily by at most `new_tokens`, up to one of `stops` or the model's own end.

    The same prompt as token `ids`, as `text`, and, where it is a conversation, as `messages` of (role, content): the
    server is given what it takes, of these the first.
    """

    ids: tuple[int, ...]
    new_tokens: int
    stops: tuple[str, ...] = ()
    text: str = ""
    messages: tuple[tuple[str, str], ...] = ()


@runtime_checkable
class ServedSession(LoglikelihoodSession, Protocol):
    """A server in place of a loaded model: it answers in text, scores choices if it can, and has no logits."""

    def answers(self, prompts: Sequence[ServedPrompt]) -> list[str]:
        """The text that follows each prompt. CellError, with those finished kept for the next run, if any has none."""
