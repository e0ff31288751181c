"""What the scripted server answers: a request's script, and the bytes and times that follow from it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"


@dataclass(frozen=True)
class Script:
    """How one request is answered.

    `status` other than 200 answers with an error body and `retry_after`. `close_after` and `reset_after` cut
    the stream after that many events, `error_after` and `garbage_after` put an error event or half a JSON
    object there. `per_event` tokens come in an event, `burst` events in a send. `role` and `empties` put
    chunks without text before the first and between the others. `split` cuts each event inside a character
    and sends the rest `split_s` later. `eol` is the stream's line end; `comments` puts a comment before each
    event, `lines` breaks each event's data into several data lines. `usage`: "end", "none", "each" or "off"
    by -1; `ids`: each choice lists its token ids. `done` and `finish` false leave out the stream's end.
    `drop` closes the connection after the answer, `hang_up` instead of it unless it is the connection's
    first. `stall_s` stops the whole server on arrival. `never`: no answer.
    """

    ttft_s: float = 0.0
    itl_s: float = 0.0
    status: int = 200
    retry_after: str = ""
    close_after: int = -1
    reset_after: int = -1
    error_after: int = -1
    garbage_after: int = -1
    per_event: int = 1
    burst: int = 1
    role: bool = False
    empties: int = 0
    text: str = " tok"
    split: bool = False
    split_s: float = 0.002
    eol: str = "\n"
    comments: bool = False
    lines: bool = False
    usage: str = "end"
    ids: bool = False
    done: bool = True
    finish: bool = True
    drop: bool = False
    hang_up: bool = False
    stall_s: float = 0.0
    never: bool = False


@dataclass(frozen=True)
class Plan:
    """An answer: `sends[i]` leaves `offsets[i]` after arrival and bears `bears[i]` tokens; then `end`."""

    sends: tuple[bytes, ...]
    offsets: tuple[float, ...]
    bears: tuple[int, ...]
    end: str = ""


@lru_cache(maxsize=4096)
def plan(script: Script, tokens: int, *, chat: bool) -> Plan:
    """The whole answer of `tokens` tokens."""
    if script.status != 200:
        return Plan((_refusal(script),), (script.ttft_s,), (0,))
    events = _events(script, tokens, chat=chat)
    sends: list[bytes] = []
    offsets: list[float] = []
    bears: list[int] = []
    for start in range(0, len(events), script.burst):
        group = events[start : start + script.burst]
        data = b"".join(event for _, event, _ in group)
        sends += _cut(data) if script.split else [data]
        offsets += [group[-1][0], group[-1][0] + script.split_s] if script.split else [group[-1][0]]
        borne = sum(n for _, _, n in group)
        bears += [0, borne] if script.split else [borne]
    framed = [b"%x\r\n%b\r\n" % (len(data), data) for data in sends]
    framed[0] = _HEAD + framed[0]
    cut = script.close_after >= 0 or script.reset_after >= 0
    if not cut:
        framed[-1] += b"0\r\n\r\n"
    end = "reset" if script.reset_after >= 0 else "close" if cut or script.drop else ""
    return Plan(tuple(framed), tuple(offsets), tuple(bears), end)


def _events(script: Script, tokens: int, *, chat: bool) -> list[tuple[float, bytes, int]]:
    """(due, bytes, tokens) of every event, cut where the script cuts."""
    empty = _chunk(script, "", 0, 0, chat=chat)
    sends: list[tuple[float, bytes, int]] = []
    if script.role:
        sends.append((script.ttft_s / 2, _chunk(script, "", 0, 0, chat=chat, role=True), 0))
    sent = turn = 0
    while sent < tokens:
        due = script.ttft_s + turn * script.itl_s
        sends += [(due, empty, 0)] * (script.empties if turn else 0)
        borne = min(script.per_event, tokens - sent)
        sent, turn = sent + borne, turn + 1
        if script.garbage_after == turn - 1:
            sends.append((due, _event(script, '{"choices": [{"tex'), 0))
        if script.error_after == turn - 1:
            sends.append((due, _event(script, '{"error": {"message": "the engine died", "code": 500}}'), 0))
            return sends
        if turn - 1 in (script.close_after, script.reset_after):
            return sends
        sends.append((due, _chunk(script, script.text * borne, borne, sent, chat=chat), borne))
    due = sends[-1][0] if sends else script.ttft_s
    return sends + [(due, event, 0) for event in _tail(script, tokens, chat=chat)]


def _tail(script: Script, tokens: int, *, chat: bool) -> Iterator[bytes]:
    if script.finish:
        yield _chunk(script, "", 0, tokens, chat=chat, finish="length")
    if script.usage != "none":
        counted = tokens - 1 if script.usage == "off" else tokens
        yield _event(script, json.dumps({"id": "cmpl-0", "choices": [], "usage": _usage(counted)}))
    if script.done:
        yield _event(script, "[DONE]")


def _chunk(
    script: Script, text: str, borne: int, sent: int, *, chat: bool, role: bool = False, finish: str = ""
) -> bytes:
    choice: dict[str, Any] = {"index": 0, "logprobs": None, "finish_reason": finish or None}
    if chat:
        choice["delta"] = {"role": "assistant", "content": ""} if role else {"content": text}
    else:
        choice["text"] = text
    if script.ids:
        choice["token_ids"] = [7] * borne
    name = "chat.completion.chunk" if chat else "text_completion"
    data = {"id": "cmpl-0", "object": name, "created": 0, "model": "scripted", "choices": [choice]}
    if script.usage == "each":
        data["usage"] = _usage(sent)
    return _event(script, json.dumps(data, ensure_ascii=False, separators=(",", ":")))


def _usage(tokens: int) -> dict[str, int]:
    return {"prompt_tokens": 3, "completion_tokens": tokens, "total_tokens": 3 + tokens}


def _event(script: Script, data: str) -> bytes:
    lines = data.replace(",", ",\n").split("\n") if script.lines else [data]
    before = [": still here"] if script.comments else []
    return "".join(f"{line}{script.eol}" for line in [*before, *(f"data: {x}" for x in lines), ""]).encode()


def _cut(data: bytes) -> list[bytes]:
    """In two, inside the first character of several bytes where there is one."""
    at = next((i + 1 for i, byte in enumerate(data) if byte >= 0xC0), len(data) // 2)
    return [data[:at], data[at:]]


def _refusal(script: Script) -> bytes:
    body = json.dumps({"error": {"message": f"scripted {script.status}", "code": script.status}}).encode()
    after = f"Retry-After: {script.retry_after}\r\n" if script.retry_after else ""
    head = f"HTTP/1.1 {script.status} Scripted\r\nContent-Type: application/json\r\n{after}"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
