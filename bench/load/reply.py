"""What the events of a streamed completion say: when tokens came and how many, usage, finish, errors.

A role-only or empty chunk is not a token; `counting` says how many tokens the others bore.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Any

import orjson

from bench.contract.outside import printable
from bench.load import counting
from bench.load.counting import Chunk, CountedBy, Kind
from bench.load.job import Failure
from bench.load.sse import Event

Scrub = Callable[[str], str]

_MESSAGE_LENGTH, _WORD_LENGTH = 200, 40  # characters of a server's message, of a finish reason, that are kept
_MOST_TOKENS = 10**9  # of an answer: a larger count is none
_READ = 1 << 14  # bytes of a message that are looked at
_KINDS: Mapping[str, Kind] = {  # by the field of a delta, the first that is there
    **dict.fromkeys(("content", "refusal"), "answer"),
    **dict.fromkeys(("tool_calls", "function_call"), "call"),
    **dict.fromkeys(("reasoning_content", "reasoning", "thinking"), "reasoning"),
}


@dataclass(frozen=True)
class Reply:
    """One answer, decoded. `ended` is true where the stream ended with [DONE].

    `texts` are those of the events at `times`, kept where the server did not count tokens: a tokenizer may.
    `reasoning` are the tokens before the answer, which began at `answer_s`; None where it did not begin. `calls_only`:
    it calls functions and says nothing. `text`: all of it. `accepted`: tokens that the server accepted of its own
    drafts, where it says so (llama.cpp's timings). `content`: the text without what the server told apart as reasoning;
    what stands between <think> tags in it stays.
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
    counted_by: CountedBy = "usage"
    texts: tuple[str, ...] = ()
    text: str = ""
    accepted: int = 0
    content: str = ""

    @property
    def usage_tokens(self) -> int | None:
        return count(self.usage, "completion_tokens")


def read(events: Iterable[Event], scrub: Scrub = str) -> Reply:
    """Everything up to the stream's end, or up to the first event that is an error or not JSON.

    `scrub` takes secrets out of what is kept of the server's words.
    """
    chunks: list[Chunk] = []
    usage: Mapping[str, Any] = {}
    timings: Any = None
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
        timings = payload.get("timings", timings)
        for choice in (payload.get("choices") or ())[:1]:
            chunks.append(_chunk(event.time, choice, given if isinstance(given, dict) else {}))
            finish = str(choice.get("finish_reason") or finish)[:_WORD_LENGTH]
    labelled = counting.with_thoughts(chunks)
    tokens, total, surplus = counting.counted(labelled, count(usage, "completion_tokens"))
    bore = [(chunk, n) for chunk, n in zip(labelled, tokens, strict=True) if n > 0]
    answer = next((i for i, (chunk, _) in enumerate(bore) if chunk.kind not in ("", "reasoning")), len(bore))
    kinds = {chunk.kind for chunk in labelled}
    return Reply(
        tuple(chunk.time for chunk, _ in bore),
        tuple(n for _, n in bore),
        surplus,
        sum(not chunk.bears for chunk in chunks),
        finish,
        ended,
        _counts({**usage, "completion_tokens": total}, timings),
        failure,
        message,
        reasoning=sum(n for _, n in bore[:answer]) if "reasoning" in kinds else 0,
        answer_s=bore[answer][0].time if answer < len(bore) else None,
        calls_only="call" in kinds and "answer" not in kinds,
        counted_by="events" if total is None else "usage",
        texts=tuple(chunk.text for chunk, _ in bore) if total is None else (),
        text="".join(chunk.text for chunk in chunks),
        content="".join(chunk.text for chunk in chunks if chunk.kind == "answer"),
        accepted=(count(timings, "draft_n_accepted") if isinstance(timings, dict) else 0) or 0,
    )


def recounted(reply: Reply, starts_of: Callable[[str], Sequence[int]]) -> Reply:
    """The same answer with the tokens that a tokenizer counts in its texts; unchanged where those are not known."""
    if reply.counted_by != "events" or not all(reply.texts):
        return reply
    tokens = counting.by_tokenizer(reply.texts, starts_of)
    bore = [(time, n) for time, n in zip(reply.times, tokens, strict=True) if n > 0]
    thoughts = sum(so_far <= reply.reasoning for so_far in accumulate(reply.tokens))
    return replace(
        reply,
        times=tuple(time for time, _ in bore),
        tokens=tuple(n for _, n in bore),
        reasoning=sum(tokens[:thoughts]),
        counted_by="tokenizer",
        texts=(),
    )


def _counts(usage: Mapping[str, Any], timings: Any) -> dict[str, Any]:
    """The counts of a usage, without what else the server put there; cached tokens by llama-server's timings too."""
    counts: dict[str, Any] = {name: count(usage, name) for name in ("prompt_tokens", "completion_tokens")}
    if isinstance(details := usage.get("prompt_tokens_details"), dict):
        counts["prompt_tokens_details"] = {"cached_tokens": count(details, "cached_tokens")}
    elif isinstance(timings, dict) and (cached := count(timings, "cache_n")) is not None:
        counts["prompt_tokens_details"] = {"cached_tokens": cached}
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
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST_TOKENS else None


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
    ids, text = choice.get("token_ids"), choice.get("text") if delta is None else _text(delta, kind)
    counts = (len(ids) if isinstance(ids, list) else None, count(usage, "completion_tokens"))
    return Chunk(time, text if isinstance(text, str) else "", *counts, kind)


def _text(delta: Mapping[str, Any], kind: Kind) -> Any:
    """The text of an answer or a thought; of a call nobody knows how it was written."""
    fields = (name for name, other in _KINDS.items() if other == kind and kind != "call")
    return next((delta[name] for name in fields if delta.get(name)), "")


def _kind_of_parts(parts: Sequence[Any]) -> Kind:
    """Of a content in parts, which may be thoughts alone."""
    types = {part.get("type") for part in parts if isinstance(part, dict)}
    return "reasoning" if types and types <= {"thinking", "reasoning"} else "answer"
