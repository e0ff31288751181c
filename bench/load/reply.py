"""What the events of a streamed completion say: when tokens came and how many, usage, finish, errors.

A role-only or empty chunk is not a token. How many tokens an event bore is known where the server says so:
by `token_ids` in each choice (vLLM's `return_token_ids`), or by a usage in each event
(`continuous_usage_stats`). Elsewhere an event with text counts as one, and what the final usage has beyond
that is a surplus whose place nobody knows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import orjson

from bench.contract.outside import printable
from bench.load.job import Failure
from bench.load.sse import Event

Scrub = Callable[[str], str]
Kind = Literal["", "answer", "reasoning", "call"]

_MESSAGE_LENGTH, _WORD_LENGTH = 200, 40  # characters of a server's message, of a finish reason, that are kept
_READ = 1 << 14  # bytes of a message that are looked at
_KINDS: Mapping[str, Kind] = {  # by the field of a delta, the first that is there
    **dict.fromkeys(("content", "refusal"), "answer"),
    **dict.fromkeys(("tool_calls", "function_call"), "call"),
    **dict.fromkeys(("reasoning_content", "reasoning", "thinking"), "reasoning"),
}


class Chunk(NamedTuple):
    """One event with a choice. `ids` and `total` are None where the server does not count; `kind` is that of its text.

    A reasoning model's thoughts are tokens as its answer is, whatever the server calls them; so is a call.
    """

    time: float
    text: bool
    ids: int | None  # tokens of this event
    total: int | None  # tokens generated so far
    kind: Kind = ""


@dataclass(frozen=True)
class Reply:
    """One answer, decoded. `ended` is true where the stream ended with [DONE].

    `reasoning` are the tokens before the answer, which began at `answer_s`; None where it did not begin. `calls_only`:
    it calls functions and says nothing.
    """

    times: tuple[float, ...] = ()
    tokens: tuple[int, ...] = ()
    surplus: int = 0
    empty: int = 0
    finish: str = ""
    ended: bool = False
    usage: Mapping[str, Any] = field(default_factory=dict)
    failure: Failure | None = None
    message: str = ""
    reasoning: int = 0
    answer_s: float | None = None
    calls_only: bool = False

    @property
    def usage_tokens(self) -> int | None:
        return count(self.usage, "completion_tokens")


def read(events: Iterable[Event], scrub: Scrub = str) -> Reply:
    """Everything up to the stream's end, or up to the first event that is an error or not JSON.

    `scrub` takes secrets out of what is kept of the server's words.
    """
    chunks: list[Chunk] = []
    usage: Mapping[str, Any] = {}
    finish, ended = "", False
    failure: Failure | None = None
    message = ""
    for event in events:
        if event.data == b"[DONE]":
            ended = True
            break
        payload, failure, message = _decode(event, scrub)
        if failure:
            break
        given = payload.get("usage")
        usage = given if isinstance(given, dict) and given else usage
        for choice in (payload.get("choices") or ())[:1]:
            chunks.append(_chunk(event.time, choice, given if isinstance(given, dict) else {}))
            finish = str(choice.get("finish_reason") or finish)[:_WORD_LENGTH]
    times, tokens, surplus = _counted(chunks, count(usage, "completion_tokens"))
    kinds = {chunk.kind for chunk in chunks}
    bearing = [chunk for chunk in chunks if chunk.text]
    thoughts = next((i for i, chunk in enumerate(bearing) if chunk.kind != "reasoning"), len(bearing))
    answer_s = bearing[thoughts].time if thoughts < len(bearing) else None
    return Reply(
        times,
        tokens,
        surplus,
        sum(not chunk.text for chunk in chunks),
        finish,
        ended,
        _counts(usage),
        failure,
        message,
        reasoning=sum(tokens[:thoughts]),
        answer_s=answer_s,
        calls_only="call" in kinds and "answer" not in kinds,
    )


def _counts(usage: Mapping[str, Any]) -> dict[str, Any]:
    """The counts of a usage, without whatever else the server put there."""
    counts: dict[str, Any] = {name: count(usage, name) for name in ("prompt_tokens", "completion_tokens")}
    if isinstance(details := usage.get("prompt_tokens_details"), dict):
        counts["prompt_tokens_details"] = {"cached_tokens": count(details, "cached_tokens")}
    return counts


def _decode(event: Event, scrub: Scrub) -> tuple[Mapping[str, Any], Failure | None, str]:
    """The event's object, or what is wrong with it."""
    try:
        payload = orjson.loads(event.data)
    except orjson.JSONDecodeError as error:
        return {}, "malformed", f"an event is not JSON ({error}): {one_line(event.data, scrub)}"
    if event.kind == b"error" or (isinstance(payload, dict) and payload.get("error")):
        return {}, "server", f"an error event in the stream: {error_message(event.data, scrub)}"
    choices = payload.get("choices") if isinstance(payload, dict) else 0
    if isinstance(choices, list | None) and all(isinstance(choice, dict) for choice in choices or ()):
        return payload, None, ""
    return {}, "malformed", f"an event is not a completion: {one_line(event.data, scrub)}"


def count(usage: Mapping[str, Any], name: str) -> int | None:
    """A count of the usage, or null where the server gave none."""
    value = usage.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def one_line(text: bytes, scrub: Scrub = str) -> str:
    """A server's bytes as one short line, without secrets: they are taken out before it is cut."""
    return " ".join(printable(scrub(text[:_READ].decode(errors="replace"))).split())[:_MESSAGE_LENGTH]


def error_message(body: bytes, scrub: Scrub = str) -> str:
    """The message within an OpenAI-style error body, else its beginning."""
    try:
        error = orjson.loads(body)
    except orjson.JSONDecodeError:
        return one_line(body, scrub)
    for _ in range(2):  # {"error": {"message": ...}}, {"message": ...}, {"detail": ...}
        if isinstance(error, dict):
            error = next((error[k] for k in ("error", "message", "detail") if error.get(k)), error)
    return one_line(error.encode(errors="replace") if isinstance(error, str) else body, scrub)


def _chunk(time: float, choice: Mapping[str, Any], usage: Mapping[str, Any]) -> Chunk:
    delta = choice.get("delta")
    kind: Kind = ""
    if isinstance(delta, dict):
        kind = next((_KINDS[name] for name in _KINDS if delta.get(name)), "")
        if kind == "answer" and isinstance(delta.get("content"), list):
            kind = _kind_of_parts(delta["content"])
    elif choice.get("text"):
        kind = "answer"
    ids = choice.get("token_ids")
    return Chunk(time, bool(kind), len(ids) if isinstance(ids, list) else None, count(usage, "completion_tokens"), kind)


def _kind_of_parts(parts: Sequence[Any]) -> Kind:
    """Of a content in parts, which may be thoughts alone."""
    types = {part.get("type") for part in parts if isinstance(part, dict)}
    return "reasoning" if types and types <= {"thinking", "reasoning"} else "answer"


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
