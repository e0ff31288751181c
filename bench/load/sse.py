"""Server-sent events from the reads of a response, each with the time at which it became complete.

By the WHATWG's grammar: lines end in LF, CRLF or CR, a blank line ends an event, a colon begins a comment,
several data lines are joined by LF. The bytes are put together before anything is decoded, so that an event
or a character split over reads is whole again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

_END = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)")  # atomic: a CRLF is never two line ends
_LINES = re.compile(rb"\r\n|\n|\r")
_UNENDED = re.compile(rb"data: ?\[DONE\]")


class Event(NamedTuple):
    """`data` of one event, its `kind` ("" where unnamed), and the stamp of the read that completed it."""

    time: float
    data: bytes
    kind: bytes


def events(parts: Sequence[bytes], times: Sequence[float], ends: Sequence[int]) -> Iterator[Event]:
    """The events that carry data.

    `parts` are the body's pieces in order; read i came at `times[i]` and brought `parts[ends[i-1]:ends[i]]`.
    An event cut off by the end of the body is none, except a `[DONE]` that lacks its blank line.
    """
    body = b"".join(parts)
    lengths = [0, *accumulate(map(len, parts))]
    bounds = [lengths[end] for end in ends]  # bytes of the body that had come with read i
    read, start = 0, 3 if body.startswith(b"\xef\xbb\xbf") else 0
    for block, end in _blocks(body, start):
        while bounds[read] < end:
            read += 1
        if (event := _event(block)) is not None:
            yield Event(times[read], *event)


def _blocks(body: bytes, start: int) -> Iterator[tuple[bytes, int]]:
    """(an event's lines, how many bytes of the body complete it)."""
    if b"\r" in body:
        for match in _END.finditer(body, start):
            yield body[start : match.start()], match.end()
            start = match.end()
    else:  # the same in a third of the time
        while (at := body.find(b"\n\n", start)) >= 0:
            yield body[start:at], at + 2
            start = at + 2
    left = body[start:].strip()
    if _UNENDED.fullmatch(left):
        yield left, len(body)


def _event(block: bytes) -> tuple[bytes, bytes] | None:
    if block.startswith(b"data: ") and b"\n" not in block and b"\r" not in block:
        return block[6:], b""
    data, kind = [], b""
    for line in _LINES.split(block):
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            data.append(value)
        elif name == b"event":
            kind = value
    return (b"\n".join(data), kind) if data else None
