from __future__ import annotations

import json
from typing import Any

import pytest

from bench.load.reply import error_message, read
from bench.load.sse import Event


def choice(text: str = "", **fields: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "text": text, "finish_reason": None, **fields}]}


def usage(tokens: int) -> dict[str, Any]:
    return {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": tokens}}


def stream(*reply: Any) -> list[Event]:
    """Events a second apart from 1.0 on; a string is sent as it is."""
    texts = [each if isinstance(each, str) else json.dumps(each) for each in reply]
    return [Event(float(i), text.encode(), b"") for i, text in enumerate(texts, 1)]


def test_each_event_with_text_is_a_token() -> None:
    """Usage equals the events: one token each, no surplus, and the stream said that it ended."""
    reply = read(stream(choice("a"), choice("b"), choice(finish_reason="length"), usage(2), "[DONE]"))

    assert (reply.times, reply.tokens, reply.surplus) == ((1.0, 2.0), (1, 1), 0)
    assert (reply.finish, reply.ended, reply.usage_tokens, reply.failure) == ("length", True, 2, None)


def test_a_chunk_without_text_is_no_token() -> None:
    """Role-only and empty chunks have no stamp: the first token is the first text."""
    role = {"choices": [{"delta": {"role": "assistant", "content": ""}}]}
    chunks = [{"choices": [{"delta": {"content": text}}]} for text in ("a", "", "b")]

    reply = read(stream(role, *chunks, usage(2), "[DONE]"))

    assert (reply.times, reply.tokens, reply.empty) == ((2.0, 4.0), (1, 1), 2)


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_a_thought_is_a_token(name: str) -> None:
    """A reasoning model's first token is the first of its thoughts."""
    reply = read(stream({"choices": [{"delta": {name: "hm"}}]}, usage(1), "[DONE]"))

    assert reply.times == (1.0,)


def test_tokens_are_those_the_usage_counts_and_their_place_is_not_invented() -> None:
    """Three events for five tokens: the sum is five, the two unplaced ones in the last event, and said."""
    reply = read(stream(choice("a b"), choice("c"), choice("d e"), usage(5), "[DONE]"))

    assert (reply.tokens, reply.surplus) == ((1, 1, 3), 2)


def test_fewer_tokens_than_events_are_taken_from_the_end() -> None:
    """An event that only flushed text is not a token more."""
    reply = read(stream(choice("a"), choice("b"), choice("c"), usage(2), "[DONE]"))

    assert (reply.tokens, reply.surplus) == ((1, 1, 0), -1)


def test_token_ids_say_how_many_tokens_an_event_bore() -> None:
    """With ids in each choice nothing is unplaced, and a token whose text is withheld has its stamp."""
    rows = [choice("", token_ids=[5]), choice("a", token_ids=[6, 7]), choice("", token_ids=[])]

    reply = read(stream(*rows, usage(3), "[DONE]"))

    assert (reply.times, reply.tokens, reply.surplus) == ((1.0, 2.0), (1, 2), 0)


def test_a_usage_in_each_event_says_it_too() -> None:
    """Continuous usage counts up; each event bore the difference."""
    rows = [{**choice(text), **usage(n), "choices": choice(text)["choices"]} for text, n in [("ab", 2), ("c", 3)]]

    reply = read(stream(*rows, usage(3), "[DONE]"))

    assert (reply.tokens, reply.surplus) == ((2, 1), 0)


def test_without_usage_events_are_counted_and_it_shows() -> None:
    """No usage: one token per event, and usage_tokens is null."""
    reply = read(stream(choice("a"), choice("b", finish_reason="stop")))

    assert (reply.tokens, reply.usage_tokens, reply.ended, reply.finish) == ((1, 1), None, False, "stop")


@pytest.mark.parametrize(
    ("event", "failure", "words"),
    [
        ('{"choices": [{"te', "malformed", "not JSON"),
        ("[1, 2]", "malformed", "not a completion"),
        ('{"choices": "none"}', "malformed", "not a completion"),
        ('{"error": {"message": "out of memory", "code": 500}}', "server", "out of memory"),
    ],
)
def test_an_event_that_is_none_ends_the_reading(event: str, failure: str, words: str) -> None:
    """What came before it is kept; the failure has its kind and says what came."""
    reply = read(stream(choice("a"), event, choice("b")))

    assert (reply.times, reply.failure) == ((1.0,), failure)
    assert words in reply.message


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"error": {"message": "too many"}}', "too many"),
        (b'{"error": "gone"}', "gone"),
        (b'{"message": "m"}', "m"),
        (b'{"detail": "not found"}', "not found"),
        (b"<html>\n502  Bad Gateway", "<html> 502 Bad Gateway"),
        (b"", ""),
        (b"\xff" + b"x" * 500, "\ufffd" + "x" * 199),
    ],
)
def test_a_servers_message_is_one_short_line(body: bytes, expected: str) -> None:
    """Whatever shape the error has."""
    assert error_message(body) == expected
