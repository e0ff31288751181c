from __future__ import annotations

import pytest

from bench.load.sse import Event, events

TABLE = {
    "lf": (b"data: a\n\ndata: b\n\n", [b"a", b"b"]),
    "crlf": (b"data: a\r\n\r\ndata: b\r\n\r\n", [b"a", b"b"]),
    "cr": (b"data: a\r\rdata: b\r\r", [b"a", b"b"]),
    "mixed line ends": (b"data: a\r\n\ndata: b\n\r\ndata: c\n\n", [b"a", b"b", b"c"]),
    "no space after the colon": (b"data:a\n\ndata:  b\n\n", [b"a", b" b"]),
    "comments": (b": hello\n\ndata: a\n\n:\n\n: x\ndata: b\n\n", [b"a", b"b"]),
    "comments, crlf": (b": hello\r\n\r\ndata: a\r\n\r\n: x\r\ndata: b\r\n\r\n", [b"a", b"b"]),
    "several data lines": (b"data: a\ndata: b\n\ndata: c\r\ndata:\r\n\r\n", [b"a\nb", b"c\n"]),
    "other fields": (b"id: 7\nretry: 10\ndata: a\n\nevent: ping\n\n", [b"a"]),
    "more blank lines than needed": (b"\n\n\ndata: a\n\n\n\n\ndata: b\n\n\n", [b"a", b"b"]),
    "a byte order mark": (b"\xef\xbb\xbfdata: a\n\n", [b"a"]),
    "the end lacks its blank line": (b"data: a\n\ndata: [DONE]\n", [b"a", b"[DONE]"]),
    "an event cut off": (b'data: a\n\ndata: {"choi', [b"a"]),
    "characters of several bytes": ("data: \u00e9\u20ac\U0001f600\n\n".encode(), ["\u00e9\u20ac\U0001f600".encode()]),
    "nothing": (b"", []),
}


@pytest.mark.parametrize("name", TABLE)
def test_events_are_the_same_however_the_reads_fall(name: str) -> None:
    """Whole, cut in two at any byte, or byte by byte: the same data in the same order."""
    body, expected = TABLE[name]
    cuts = [[body[:i], body[i:]] for i in range(len(body) + 1)]
    for parts in [[body], *cuts, [body[i : i + 1] for i in range(len(body))]]:
        times = [float(i) for i in range(len(parts))]

        assert [e.data for e in events(parts, times, range(1, len(parts) + 1))] == expected


def test_an_event_is_stamped_by_the_read_that_completed_it() -> None:
    """Events of one read share its stamp; one that spans reads has the last one's."""
    reads = [b"data: a\n\ndata: b\n\nda", b"ta: c\n", b"\ndata: d\n\n"]

    decoded = list(events(reads, [1.0, 2.0, 3.0], [1, 2, 3]))

    assert [(e.time, e.data) for e in decoded] == [(1.0, b"a"), (1.0, b"b"), (3.0, b"c"), (3.0, b"d")]


def test_a_read_may_bring_several_pieces_or_none() -> None:
    """Reads are counted as they came: headers alone bring no piece, one read may bring many HTTP chunks."""
    parts = [b"data: a\n\n", b"data: b\n\n", b"data: c\n\n"]

    decoded = list(events(parts, [1.0, 2.0, 3.0, 4.0], [0, 2, 2, 3]))

    assert [e.time for e in decoded] == [2.0, 2.0, 4.0]


def test_an_event_has_its_kind() -> None:
    """The event field names what the data is, as `event: error` does."""
    assert list(events([b"event: error\ndata: x\n\n"], [1.0], [1])) == [Event(1.0, b"x", b"error")]
