from __future__ import annotations

import json
from functools import partial
from typing import Any

import pytest

from bench.load import prompts
from bench.load.reply import Reply, error_message, read, recounted
from bench.load.sse import Event
from tests.conftest import ROOT


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


def test_more_events_than_tokens_are_thinned_evenly() -> None:
    """A server that sends characters: the first and the last arrival stay, so that no time is lost."""
    reply = read(stream(*map(choice, "abcdefg"), usage(3), "[DONE]"))

    assert (reply.times, reply.tokens, reply.surplus) == ((1.0, 4.0, 7.0), (1, 1, 1), -4)


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


def test_a_last_token_without_text_has_its_count_in_an_event_without_text() -> None:
    """Counts that rise over the texts and end at the total in the event behind them say what each event bore."""
    reply = _texts(("ab", 2), ("cd", 4), ("ef", 6), ("", 7))

    assert (reply.tokens, reply.surplus, reply.usage_tokens) == ((2, 2, 2, 1), 0, 7)


def test_a_total_in_an_event_without_text_is_no_token_where_each_event_counts_its_own() -> None:
    """The texts add up to it: nothing is left for the event behind them."""
    reply = _texts(("ab", 1), ("cd", 1), ("", 2))

    assert (reply.times, reply.tokens, reply.usage_tokens) == ((1.0, 2.0), (1, 1), 2)


def _texts(*pairs: tuple[str, int]) -> Reply:
    """A stream of texts, each with a usage."""
    return read(stream(*({**choice(text), "usage": {"completion_tokens": n}} for text, n in pairs), "[DONE]"))


def _each(*counted: int | None, total: int | None = None, text: str = "tok ") -> Reply:
    """A stream with a usage in each event that has text, then one without a choice where there is a total."""
    rows = [{**choice(text), **({} if n is None else {"usage": {"completion_tokens": n}})} for n in counted]
    closing = [] if total is None else [usage(total)]
    return read(stream(*rows, choice(finish_reason="length"), *closing, "[DONE]"))


@pytest.mark.parametrize(
    ("counted", "why"),
    [
        ((0,) * 8, "zeros"),
        ((1,) * 8, "each event's own count"),
        ((0, 1, 2, 3, 4, 5, 6, 7), "one behind"),
        ((8,) * 8, "the total, over and over"),
        ((None, None, None, 4, None, None, None, 8), "every fourth"),
        ((4, 4, 4, 4, 8, 8, 8, 8), "every fourth, and repeated"),
        ((1, 2, 3, 4, 5, 6, 7, 8), "counting up, as it should"),
        ((1, 2, 3, 3, 5, 6, 7, 8), "counting up, one late"),
    ],
)
def test_an_event_with_text_is_an_arrival_whatever_its_usage_says(counted: tuple[int | None, ...], why: str) -> None:
    """The first token is the first text, the last the last, and all are the total."""
    reply = _each(*counted, total=8)

    assert (reply.times[0], reply.times[-1], sum(reply.tokens), reply.usage_tokens) == (1.0, 8.0, 8, 8), why
    assert len(reply.times) >= 7


@pytest.mark.parametrize(
    ("counted", "tokens", "usage_tokens"),
    [
        ((0,) * 4, (1,) * 4, None),  # a usage of zero beside text is none
        ((1,) * 4, (1,) * 4, 4),
        ((2,) * 4, (2,) * 4, 8),
        ((3, 1, 2, 2), (3, 1, 2, 2), 8),
        ((1, 3, 6, 8), (1, 2, 3, 2), 8),
        ((8,) * 4, (1, 1, 1, 5), 8),
    ],
)
def test_without_a_closing_usage_the_events_own_are_read_for_what_they_are(
    counted: tuple[int, ...], tokens: tuple[int, ...], usage_tokens: int | None
) -> None:
    """Counts of each event add up; counts that rise end at the total; the same high one everywhere is the total."""
    reply = _each(*counted)

    assert (reply.tokens, reply.usage_tokens) == (tokens, usage_tokens)
    assert reply.counted_by == ("events" if usage_tokens is None else "usage")


def test_events_own_counts_place_the_tokens_of_a_total() -> None:
    """Each says four, and the total is their sum."""
    reply = _each(4, 4, 2, total=10)

    assert (reply.tokens, reply.surplus) == ((4, 4, 2), 0)


def test_the_same_total_of_characters_is_not_added_up() -> None:
    """Sixteen events of a character, each with the total of four: nobody writes 64 tokens in 16 characters."""
    reply = _each(*(4,) * 16, text="x")

    assert (sum(reply.tokens), reply.times[0], reply.times[-1]) == (4, 1.0, 16.0)


def test_a_running_total_of_two_events_a_token_is_not_added_up() -> None:
    """The last count is the total: the twelve events are thinned to it, and it shows."""
    reply = _each(1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, text="abcd")

    assert (reply.usage_tokens, sum(reply.tokens), reply.surplus) == (6, 6, -6)
    assert (reply.times[0], reply.times[-1]) == (1.0, 12.0)


def test_a_running_total_before_a_total_of_zero_is_not_added_up() -> None:
    """Nobody knows the total then: events are counted, and it shows."""
    reply = _each(1, 2, 3, 4, 5, 6, 7, 8, total=0, text="abcdefgh")

    assert (reply.tokens, reply.usage_tokens, reply.counted_by) == ((1,) * 8, None, "events")


def test_token_ids_that_are_not_the_events_are_left_aside() -> None:
    """A server that sends all ids so far in each event: their sum is no total."""
    rows = [choice("a", token_ids=list(range(n))) for n in (1, 2, 3)]

    assert read(stream(*rows, usage(3), "[DONE]")).tokens == (1, 1, 1)


def test_without_usage_events_are_counted_and_it_shows() -> None:
    """No usage: one token per event, and usage_tokens is null."""
    reply = read(stream(choice("a"), choice("b", finish_reason="stop")))

    assert (reply.tokens, reply.usage_tokens, reply.ended, reply.finish) == ((1, 1), None, False, "stop")
    assert (reply.counted_by, reply.texts) == ("events", ("a", "b"))


def test_a_tokenizer_counts_what_the_server_does_not() -> None:
    """Each token where it begins; the first and the last event have one each."""
    starts = partial(prompts.starts, tokenizer=ROOT / "models" / "demo" / "tokenizer.json")
    texts = ["def read(self, ", "si", "ze):\n    return", " self.size"]
    whole = starts("".join(texts))

    reply = recounted(read(stream(*map(choice, texts))), starts)
    split = recounted(read(stream(choice("retu"), choice("r"), choice("n"))), starts)
    by_server = read(stream(*map(choice, texts), usage(9)))

    assert (sum(reply.tokens), reply.counted_by, reply.usage_tokens) == (len(whole), "tokenizer", None)
    assert (reply.times[0], reply.times[-1]) == (1.0, 4.0)
    assert reply.tokens[0] == sum(start < len(texts[0]) for start in whole) > 1
    assert split.times[0] == 1.0
    assert recounted(by_server, starts) is by_server


def test_a_tokenizer_tells_thoughts_from_an_answer_that_came_in_one_read() -> None:
    """They share a time; each text has two tokens, and two texts are thoughts."""
    deltas = [{"reasoning": "aa"}, {"reasoning": "bb"}, {"content": "cc"}]
    events = [Event(1.0, json.dumps({"choices": [{"delta": delta}]}).encode(), b"") for delta in deltas]

    reply = recounted(read(events), lambda text: range(len(text)))

    assert (reply.tokens, reply.reasoning, reply.counted_by) == ((2, 2, 2), 4, "tokenizer")


@pytest.mark.parametrize("field", ["text", "content"])
def test_thoughts_that_a_server_left_in_the_text_are_told_apart(field: str) -> None:
    """From <think> at the beginning to the first text of the answer; of a text that only mentions it nothing is."""

    def reply(*texts: str) -> tuple[int, float | None]:
        deltas = [choice(text) if field == "text" else {"choices": [{"delta": {field: text}}]} for text in texts]
        its = read(stream(*deltas, usage(len(texts))))
        return its.reasoning, its.answer_s

    assert reply("<thi", "nk>", "hm", "</think>", "\n\n", "yes", "!") == (5, 6.0)
    assert reply("\n", "<think>hm", " </think> yes") == (2, 3.0)
    assert reply("<think>", "hm", "hm") == (3, None)
    assert reply("I write <think>", " here", "</think>") == (0, 1.0)


def test_a_calls_tokens_are_events_even_with_a_tokenizer() -> None:
    """Nobody knows how the call was written."""
    call = {"choices": [{"delta": {"tool_calls": [{"function": {"arguments": "{"}}]}}]}
    reply = read(stream(call, call))

    assert recounted(reply, lambda _: [0] * 9) is reply
    assert (reply.tokens, reply.counted_by, reply.calls_only) == ((1, 1), "events", True)


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
