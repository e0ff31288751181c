"""Speculative decoding: the options an engine has for it, and the counters it is judged by.

A draft is what is proposed ahead of one pass of the model (the target), which accepts a beginning of it and adds a
token of its own. So greedy output stays what it is without, and a pass yields one token more than it accepts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, Protocol, runtime_checkable

from bench.contract.hooks import Session

SpeculativeMethod = Literal["off", "ngram", "draft", "mtp", "eagle"]
PREFIX = "speculative_"
_TOKENS, _MATCH = 4, 3
WITH_DRAFT: frozenset[str] = frozenset({"draft", "eagle"})  # methods that need a model of their own


@dataclass(frozen=True)
class SpeculationOptions:
    """What the Options of an engine inherit; in a suite `speculative: {method: ngram, tokens: 4}` names them.

    `speculative_method`: ngram looks the last `speculative_match` tokens up in the text so far and proposes what
    followed them there; draft asks a smaller model of the same vocabulary, `speculative_draft`: a recipe of the suite,
    a folder, a file or a Hub id; mtp and eagle ask layers trained for it, the model's own or those of
    `speculative_draft`. `speculative_tokens`: the most that are proposed for one pass.
    """

    speculative_method: SpeculativeMethod = "off"
    speculative_draft: str = ""
    speculative_tokens: int = _TOKENS
    speculative_match: int = _MATCH

    def __post_init__(self) -> None:
        method, draft = self.speculative_method, self.speculative_draft
        for name in ("tokens", "match"):
            if (count := getattr(self, PREFIX + name)) < 1:
                raise ValueError(f"speculative: {name} starts at 1, got {count}")
        if method in WITH_DRAFT and not draft:
            raise ValueError(
                f"speculative: method {method} needs a draft, a recipe of the suite or a model, as "
                f"speculative: {{method: {method}, draft: NAME}}"
            )
        if method == "off" and (draft, self.speculative_tokens, self.speculative_match) != ("", _TOKENS, _MATCH):
            raise ValueError("speculative: needs a method, as speculative: {method: ngram}")
        if draft and method not in WITH_DRAFT:
            raise ValueError(f"speculative: method {method} has no draft: leave it out, or set method: draft")

    @property
    def speculates(self) -> bool:
        return self.speculative_method != "off"

    @property
    def draft_path(self) -> str:
        """Where the draft's files are, once a run has put them there."""
        return self.speculative_draft.removeprefix("path:")


@runtime_checkable
class SpeculatingSession(Session, Protocol):
    """A session that may propose tokens ahead: `generate` then yields the tokens of one pass at one time."""

    def drafts(self) -> Sequence[tuple[int, int]]:
        """(proposed, accepted) tokens of each draft of the last `generate`, in order."""


SINCE = frozenset(field.name for field in fields(SpeculationOptions))  # OPTIONS_SINCE of an engine that has these


def method_of(options: Mapping[str, Any]) -> str:
    """The method that an engine's options name; "off" where the engine has none."""
    return str(options.get(f"{PREFIX}method") or "off")


def draft_of(options: Mapping[str, Any]) -> str:
    """What the draft is called there; "" for none."""
    return str(options.get(f"{PREFIX}draft") or "")


def without(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of the same engine without speculation, those for it left out."""
    return {name: value for name, value in options.items() if not name.startswith(PREFIX)}


def counters(drafts: Iterable[tuple[int, int]], generated_tokens: int) -> dict[str, Any]:
    """What a record has of (proposed, accepted) tokens of each draft, and the tokens generated meanwhile.

    `accepted_histogram`: of how many drafts no token was accepted, one, two, …
    """
    pairs = list(drafts)
    accepted = Counter(accepted for _, accepted in pairs)
    return {
        "drafts": len(pairs),
        "draft_tokens": sum(proposed for proposed, _ in pairs),
        "accepted_tokens": sum(count for _, count in pairs),
        "generated_tokens": generated_tokens,
        "accepted_histogram": [accepted[n] for n in range(max(accepted, default=0) + 1)],
    }
