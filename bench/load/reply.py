"""What the events of a streamed completion say: when tokens came and how many, usage, finish, errors.

A role-only or empty chunk is not a token. How many tokens an event bore is known where the server says so:
by `token_ids` in each choice (vLLM's `return_token_ids`), or by a usage in each event
(`continuous_usage_stats`). Elsewhere an event with text counts as one, and what the final usage has beyond
that is a surplus whose place nobody knows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson

from bench.load.job import Failure
from bench.load.sse import Event

_MESSAGE_LENGTH = 200  # characters of a server's message that are kept


class Chunk(NamedTuple):
    """One event with a choice. `ids` and `total` are None where the server does not count."""

    time: float
    text: bool
    ids: int | None  # tokens of this event
    total: int | None  # tokens generated so far


@dataclass(frozen=True)
class Reply:
    """One answer, decoded. `ended` is true where the stream ended with [DONE]."""

    times: tuple[float, ...] = ()
    tokens: tuple[int, ...] = ()
    surplus: int = 0
    empty: int = 0
    finish: str = ""
    ended: bool = False
    usage: Mapping[str, Any] = field(default_factory=dict)
    failure: Failure | None = None
    message: str = ""

    @property
    def usage_tokens(self) -> int | None:
        return count(self.usage, "completion_tokens")


def read(events: Iterable[Event]) -> Reply:
    """Everything up to the stream's end, or up to the first event that is an error or not JSON."""
    chunks: list[Chunk] = []
    usage: Mapping[str, Any] = {}
    finish, ended = "", False
    failure: Failure | None = None
    message = ""
    for event in events:
        if event.data == b"[DONE]":
            ended = True
            break
        payload, failure, message = _decode(event)
        if failure:
            break
        given = payload.get("usage")
        usage = given if isinstance(given, dict) and given else usage
        for choice in (payload.get("choices") or ())[:1]:
            chunks.append(_chunk(event.time, choice, given if isinstance(given, dict) else {}))
            finish = choice.get("finish_reason") or finish
    times, tokens, surplus = _counted(chunks, count(usage, "completion_tokens"))
    empty = sum(not chunk.text for chunk in chunks)
    return Reply(times, tokens, surplus, empty, finish, ended, usage, failure, message)


def _decode(event: Event) -> tuple[Mapping[str, Any], Failure | None, str]:
    """The event's object, or what is wrong with it."""
    try:
        payload = orjson.loads(event.data)
    except orjson.JSONDecodeError as error:
        return {}, "malformed", f"an event is not JSON ({error}): {one_line(event.data)}"
    if event.kind == b"error" or (isinstance(payload, dict) and payload.get("error")):
        return {}, "server", f"an error event in the stream: {error_message(event.data)}"
    choices = payload.get("choices") if isinstance(payload, dict) else 0
    if isinstance(choices, list | None) and all(isinstance(choice, dict) for choice in choices or ()):
        return payload, None, ""
    return {}, "malformed", f"an event is not a completion: {one_line(event.data)}"


def count(usage: Mapping[str, Any], name: str) -> int | None:
    """A count of the usage, or null where the server gave none."""
    value = usage.get(name)
    return value if isinstance(value, int) else None


def one_line(text: bytes) -> str:
    """A server's bytes as one short line."""
    return " ".join(text.decode(errors="replace").split())[:_MESSAGE_LENGTH]


def error_message(body: bytes) -> str:
    """The message within an OpenAI-style error body, else its beginning."""
    try:
        error = orjson.loads(body)
    except orjson.JSONDecodeError:
        return one_line(body)
    for _ in range(2):  # {"error": {"message": ...}}, {"message": ...}, {"detail": ...}
        if isinstance(error, dict):
            error = next((error[k] for k in ("error", "message", "detail") if error.get(k)), error)
    return one_line(error.encode() if isinstance(error, str) else body)


def _chunk(time: float, choice: Mapping[str, Any], usage: Mapping[str, Any] | None) -> Chunk:
    delta = choice.get("delta")
    if not isinstance(delta, dict):
        text = bool(choice.get("text"))
    else:  # a reasoning model's thoughts are tokens too, whatever the server calls them
        names = ("content", "reasoning_content", "reasoning", "tool_calls", "refusal")
        text = any(delta.get(name) for name in names)
    ids = choice.get("token_ids")
    return Chunk(time, text, len(ids) if isinstance(ids, list) else None, count(usage or {}, "completion_tokens"))


def _counted(chunks: Sequence[Chunk], total: int | None) -> tuple[tuple[float, ...], tuple[int, ...], int]:
    """(times, tokens, surplus) of the chunks that count as bearing tokens, or that carry text."""
    bearing = [chunk for chunk in chunks if chunk.text]
    if any(chunk.ids for chunk in chunks) and all(chunk.ids is not None for chunk in bearing):
        tokens = [chunk.ids or 0 for chunk in chunks]
    elif bearing and all(chunk.total is not None for chunk in bearing):
        tokens, before = [], 0
        for chunk in chunks:
            now = before if chunk.total is None else chunk.total
            tokens.append(max(0, now - before))
            before = max(before, now)
    else:
        tokens = [int(chunk.text) for chunk in chunks]
    bore = [(chunk.time, n) for chunk, n in zip(chunks, tokens, strict=True) if n > 0]
    counts = [n for _, n in bore]
    surplus = 0 if total is None else total - sum(counts)
    return tuple(time for time, _ in bore), tuple(_with_surplus(counts, surplus)), surplus


def _with_surplus(counts: list[int], surplus: int) -> list[int]:
    """The same counts with the surplus in the last event; a lack is taken from the end, never below zero."""
    if counts and surplus > 0:
        counts[-1] += surplus
    for i in range(len(counts) - 1, -1, -1):
        if surplus >= 0:
            break
        removed = min(counts[i], -surplus)
        counts[i] -= removed
        surplus += removed
    return counts
