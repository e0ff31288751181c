from __future__ import annotations

import json
from typing import Any

import pytest

from bench.load.job import Endpoint, Request
from bench.load.request import address, body, encode

COMPLETIONS = Endpoint("http://localhost:8000", "m")
CHAT = Endpoint("http://localhost:8000", "m", api="chat")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://127.0.0.1:8000", ("127.0.0.1", 8000, False, "/v1/completions")),
        ("http://127.0.0.1:8000/v1/", ("127.0.0.1", 8000, False, "/v1/completions")),
        ("https://api.example.com", ("api.example.com", 443, True, "/v1/completions")),
        ("http://[::1]:9/openai", ("::1", 9, False, "/openai/v1/completions")),
    ],
)
def test_a_url_is_a_servers_root_or_its_v1(url: str, expected: tuple[str, int, bool, str]) -> None:
    """Both forms that people write lead to the same path."""
    to = address(Endpoint(url, "m"))

    assert (to.name, to.port, to.tls, to.path) == expected


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://x", "http://"])
def test_what_is_no_url_is_refused(url: str) -> None:
    """With the form that is one."""
    with pytest.raises(ValueError, match="http://HOST:PORT"):
        address(Endpoint(url, "m"))


def test_a_request_is_whole_before_the_clock_starts() -> None:
    """Line, headers, length and body: exact count of tokens asked, greedy, streamed, with usage."""
    [data] = encode(COMPLETIONS, [Request(5, ids=(1, 2, 3))], {})
    head, _, sent = data.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")

    assert lines[0] == "POST /v1/completions HTTP/1.1"
    assert "Host: localhost:8000" in lines
    assert f"Content-Length: {len(sent)}" in lines
    assert json.loads(sent) == {
        "model": "m",
        "prompt": [1, 2, 3],
        "max_tokens": 5,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_extra_fields_are_added_replaced_or_removed() -> None:
    """The request's own come last; null removes a field that a server would refuse."""
    endpoint = Endpoint("http://h", "m", extra={"ignore_eos": None, "top_k": 1, "seed": 1})

    fields = body(endpoint, Request(5, text="hi", extra={"seed": 2}))

    assert "ignore_eos" not in fields
    assert (fields["top_k"], fields["seed"], fields["prompt"]) == (1, 2, "hi")


def test_a_length_goes_by_the_servers_name_for_it() -> None:
    """Each request's own; a fixed one among the extra fields, which would replace them all, is refused."""
    endpoint = Endpoint("http://h", "m", api="chat", length_field="max_completion_tokens")

    for tokens in (5, 9):
        fields = body(endpoint, Request(tokens, text="hi"))
        assert fields["max_completion_tokens"] == tokens
        assert "max_tokens" not in fields
    fixed = Endpoint("http://h", "m", extra={"max_tokens": None, "max_completion_tokens": 64})
    with pytest.raises(ValueError, match=r"extra asks for 64 tokens .* and the load for 9.*--length-field"):
        body(fixed, Request(9, text="hi"))


def test_chat_takes_text_or_messages() -> None:
    """A text is the user's one message."""
    assert body(CHAT, Request(5, text="hi"))["messages"] == [{"role": "user", "content": "hi"}]
    messages_ = body(CHAT, Request(5, messages=(("system", "s"), ("user", "u"))))["messages"]
    assert [m["role"] for m in messages_] == ["system", "user"]


@pytest.mark.parametrize(
    ("endpoint", "prompt"),
    [
        (COMPLETIONS, Request(5)),
        (COMPLETIONS, Request(5, ids=(1,), text="x")),
        (COMPLETIONS, Request(5, messages=(("user", "x"),))),
        (CHAT, Request(5, ids=(1, 2))),
    ],
)
def test_a_prompt_the_api_does_not_take_is_refused(endpoint: Endpoint, prompt: Request) -> None:
    """None, two at once, messages for completions, token ids for chat."""
    with pytest.raises(ValueError, match=r"one of|chat API|takes no messages"):
        body(endpoint, prompt)


def test_the_key_comes_from_the_environment() -> None:
    """It is in the request and in no file; where its variable is missing, that is said."""
    endpoint = Endpoint("http://h", "m", key_variable="KEY")

    assert b"\r\nAuthorization: Bearer s3cret\r\n" in encode(endpoint, [Request(1, text="x")], {"KEY": "s3cret"})[0]
    with pytest.raises(ValueError, match="KEY is not set"):
        encode(endpoint, [Request(1, text="x")], {})


@pytest.mark.parametrize("fields", [{"headers": {"X": "a\r\nB: c"}}, {"headers": {"X\n": "a"}}])
def test_a_header_cannot_bring_another(fields: dict[str, Any]) -> None:
    """A line break in a name or value is refused."""
    with pytest.raises(ValueError, match="line break"):
        encode(Endpoint("http://h", "m", **fields), [Request(1, text="x")], {})
