from __future__ import annotations

import contextlib
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bench.load import client
from bench.load.job import ClosedSchedule, Endpoint, LoadAnswer, LoadJob, Request
from bench.measure.latency import completed, latency_metrics
from tests.instrument.scripted_server import Scripted
from tests.load.endpoints import STREAM, Response, endpoint, self_signed, streamed, usage
from tests.load.loads import closed, one

FINE: dict[str, Any] = {"itl_s": 0.001}

HARMLESS: dict[str, dict[str, Any]] = {
    "a role-only chunk": {"role": True},
    "empty chunks": {"empties": 2},
    "comments": {"comments": True},
    "crlf": {"eol": "\r\n"},
    "crlf and comments": {"eol": "\r\n", "comments": True},
    "cr": {"eol": "\r"},
    "data of several lines": {"lines": True},
    "a character split over reads": {"split": True, "text": "\u20ac\U0001f600"},
    "split, crlf": {"split": True, "eol": "\r\n", "text": "\u00e9"},
    "several events in a send": {"burst": 4},
    "no finish reason": {"finish": False},
    "no [DONE]": {"done": False},
    "the connection is closed after the answer": {"drop": True},
}


@pytest.mark.parametrize("name", HARMLESS)
def test_what_is_allowed_changes_no_number(server: Scripted, name: str) -> None:
    """Eight tokens, one per event, without error."""
    result = one(server, {"itl_s": 0.004, **HARMLESS[name]})

    assert (result.failure, result.trace.error, result.trace.event_tokens) == (None, "", (1,) * 8)
    assert (result.usage_tokens, result.surplus_tokens, result.chunk_gaps) == (8, 0, False)


def test_a_role_only_chunk_is_not_the_first_token(server: Scripted) -> None:
    """The role comes at 100 ms, the first text at 200: TTFT is the text's, the first byte the role's."""
    result = one(server, {"ttft_s": 0.2, "role": True, "empties": 1, "itl_s": 0.001})

    assert result.first_byte_s is not None
    assert 0.1 <= result.first_byte_s < 0.2 <= result.trace.token_s[0]
    assert result.empty_events > 0


def test_several_tokens_in_a_chunk_are_counted_by_usage(server: Scripted) -> None:
    """Three events for eight tokens: the sum is eight, and the record says that gaps are chunks'."""
    result = one(server, {"per_event": 3, "itl_s": 0.002})

    assert (result.trace.event_tokens, result.surplus_tokens, result.chunk_gaps) == ((1, 1, 6), 5, True)


@pytest.mark.parametrize("fields", [{"ids": True}, {"usage": "each"}])
def test_a_server_that_counts_says_where_tokens_were(server: Scripted, fields: dict[str, Any]) -> None:
    """With token ids or a usage in each event nothing is unplaced."""
    result = one(server, {"per_event": 3, "itl_s": 0.002, **fields})

    assert (result.trace.event_tokens, result.surplus_tokens, result.chunk_gaps) == ((3, 3, 2), 0, True)


def test_without_usage_events_are_counted(server: Scripted) -> None:
    """And usage_tokens says that nobody vouches for them."""
    result = one(server, {"usage": "none"})

    assert (sum(result.trace.event_tokens), result.usage_tokens, result.failure) == (8, None, None)


FAULTS: dict[str, tuple[dict[str, Any], str, str]] = {
    "500": ({"status": 500}, "status", "HTTP 500: scripted 500"),
    "429": ({"status": 429, "retry_after": "7"}, "status", "HTTP 429: scripted 429"),
    "closed early": ({"close_after": 3}, "truncated", "after 3 tokens"),
    "reset early": ({"reset_after": 3, "itl_s": 0.01}, "reset", "connection was lost"),
    "no end": ({"done": False, "finish": False}, "truncated", "neither [DONE] nor a finish"),
    "an error event": ({"error_after": 2}, "server", "the engine died"),
    "half an object": ({"garbage_after": 2}, "malformed", "not JSON"),
    "one token short": ({"usage": "off"}, "length", "got 7 tokens, expected 8"),
    "no text in any event": ({"text": ""}, "empty", "usage counts 8"),
    "no answer": ({"never": True}, "timeout", "not complete within 0.3 s"),
    "an answer that stops": ({"itl_s": 0.2}, "timeout", "not complete within 0.3 s"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_counted_and_the_others_are_not_lost(server: Scripted, name: str) -> None:
    """Its kind and a sentence; the requests before and after it are whole, and alone in the percentiles."""
    script, failure, words = FAULTS[name]

    answer = closed(server, FINE, script, FINE, timeout_s=0.3)

    before, result, after = answer.measured
    assert (result.failure, words in result.trace.error) == (failure, True), result
    assert answer.failures == {failure: 1}
    assert [s.trace.event_tokens for s in (before, after)] == [(1,) * 8] * 2
    traces = [s.trace for s in answer.measured]
    assert len(completed(traces)) == 2
    assert latency_metrics(traces)["failed_requests"] == 1


def test_retry_after_is_recorded_and_nothing_is_sent_again(server: Scripted) -> None:
    """A 429 is one request at the server and one failure here."""
    server.reset()
    result = one(server, {"status": 429, "retry_after": "7"})

    assert (result.status, result.retry_after, result.reconnects) == (429, "7", 0)
    assert len(server.log()) == 1


def test_a_dropped_keep_alive_is_reopened(server: Scripted) -> None:
    """A server that hangs up as the second request arrives gets it again, once, and its tokens are right."""
    server.reset()
    answer = closed(server, FINE, {**FINE, "hang_up": True}, FINE)

    assert answer.reconnects == 1
    assert [s.reconnects for s in answer.measured] == [0, 1, 0]
    assert [s.trace.event_tokens for s in answer.measured] == [(1,) * 8] * 3
    assert [entry.key for entry in server.log()] == [f"request {i}" for i in (0, 1, 1, 2)]
    assert answer.measured[1].trace.due_s < answer.measured[1].trace.sent_s


def test_a_connection_dropped_while_idle_costs_nothing(server: Scripted) -> None:
    """Each answer's connection is closed after it: the next request opens another."""
    answer = closed(server, *[{**FINE, "drop": True}] * 4)

    assert answer.failures == {}
    assert sum(s.fresh_connection for s in answer.measured) >= 3


def test_nobody_listens() -> None:
    """Every request is counted as refused, and the run ends."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    where = Endpoint(f"http://127.0.0.1:{port}", "m", timeout_s=2.0)

    answer = client.run(LoadJob(where, (Request(4, text="x"),) * 6, closed=ClosedSchedule(2, 0)))

    assert answer.failures == {"refused": 6}
    address = f"http://127.0.0.1:{port}/v1/completions"
    assert answer.measured[0].trace.error == f"no connection: Connection refused (asked {address})"


@contextmanager
def _answering(data: bytes) -> Iterator[str]:
    """A server that answers anything with these bytes and hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                with contextlib.suppress(OSError), client:
                    if client.recv(1 << 16):
                        client.sendall(data)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(2)


def _load_once(url: str, **fields: Any) -> LoadAnswer:
    where = Endpoint(url, "m", timeout_s=2.0, exact_length=False, **fields)
    return client.run(LoadJob(where, (Request(2, text="x"),), closed=ClosedSchedule(1, 0)))


@pytest.mark.parametrize(
    ("data", "failure", "words"),
    [
        (b"SSH-2.0-OpenSSH_9.6\r\n", "malformed", "not HTTP"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n[1, 2, 3]",
            "malformed",
            "not an event stream",
        ),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n\n\n\r\nxyz\r\n", "malformed", "not HTTP"),
        (b"HTTP/1.1 307 Moved\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n", "status", "HTTP 307"),
        (b"", "reset", "before a byte"),
    ],
)
def test_what_is_no_event_stream_says_what_it_is(data: bytes, failure: str, words: str) -> None:
    """Another protocol, a plain JSON answer, a redirect, a hang-up."""
    with _answering(data) as url:
        result = _load_once(url).measured[0]

    assert (result.failure, words in result.trace.error) == (failure, True), result


def test_a_body_that_ends_with_its_connection_is_whole() -> None:
    """HTTP/1.0 style: no length, no chunks. The events say that nothing is missing."""
    event = b'data: {"choices": [{"text": "a"}]}\n\n'
    data = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + event * 2 + b"data: [DONE]\n\n"
    with _answering(data) as url:
        result = _load_once(url).measured[0]

    assert (result.failure, result.trace.event_tokens) == (None, (1, 1))


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_an_https_endpoint_is_asked_over_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its certificate trusted by SSL_CERT_FILE or `ca` the tokens come; without, the sentence names both."""
    certificate = self_signed(tmp_path)
    with endpoint(lambda _: streamed({"content": "a"}), certificate) as running:
        stranger = _load_once(running.url).measured[0]
        by_ca = _load_once(running.url, ca=str(certificate)).measured[0]
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        result = _load_once(running.url).measured[0]

    assert stranger.failure == "refused"
    for words in ("self-signed certificate", "--ca", "SSL_CERT_FILE", f"{running.url}/v1/completions"):
        assert words in stranger.trace.error
    assert [(r.failure, r.trace.event_tokens) for r in (by_ca, result)] == [(None, (1,))] * 2


@pytest.mark.parametrize(("text", "words"), [(None, "No such file"), ("no certificate", "holds no certificate")])
def test_a_file_of_certificates_that_is_none_is_refused(tmp_path: Path, text: str | None, words: str) -> None:
    """Before anything is asked, with what was expected."""
    file = tmp_path / "ca.pem"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ValueError, match=f"{words}.*expected a PEM file"):
        _load_once("https://127.0.0.1:9", ca=str(file))


def test_a_plain_server_behind_an_https_url_is_told() -> None:
    """The handshake's failure says what the URL should begin with."""
    with endpoint(lambda _: streamed({"content": "a"})) as running:
        result = _load_once(running.url.replace("http:", "https:")).measured[0]

    assert result.failure == "refused"
    assert "its URL begins with http://" in result.trace.error


@pytest.mark.parametrize("content_type", ["application/json", "text/plain; charset=utf-8", "Application/X-Stream"])
def test_an_event_stream_is_read_whatever_its_type(content_type: str) -> None:
    """A proxy that calls it something else changes no token."""
    with endpoint(lambda _: streamed({"content": "a"}, {"content": "b"}, content_type=content_type)) as running:
        result = _load_once(running.url).measured[0]

    assert (result.failure, result.trace.event_tokens) == (None, (1, 1))


@pytest.mark.parametrize(
    ("response", "failure", "words"),
    [
        (Response(302, headers={"Location": "https://login.example/?next=%2F"}), "status", ["https://login.example/"]),
        (Response(404, b'{"detail": "Not Found"}'), "status", ["HTTP 404: Not Found", "--chat"]),
        (Response(401, b'{"error": {"message": "no key"}}'), "status", ["HTTP 401: no key", "--key-variable"]),
        (
            Response(400, b'{"error": {"message": "use max_completion_tokens, not max_tokens"}}'),
            "status",
            ["--length-field max_completion_tokens"],
        ),
        (Response(503), "status", ["HTTP 503: Service Unavailable"]),
        (
            Response(200, b"<html>Sign in", "text/html"),
            "malformed",
            ["not an event stream (text/html)", "<html>Sign in"],
        ),
        (Response(200, b'{"error": "overloaded"}', STREAM), "malformed", ["not an event stream", "overloaded"]),
    ],
)
def test_every_error_names_the_address_and_what_to_do(response: Response, failure: str, words: list[str]) -> None:
    """A redirect shows where it points to, and nothing follows it."""
    with endpoint(lambda _: response) as running:
        result = _load_once(running.url).measured[0]

    assert result.failure == failure
    for word in (*words, f"(asked {running.url}/v1/completions)"):
        assert word in result.trace.error
    assert len(running.requests) == 1


def test_answer_and_reasoning_are_apart() -> None:
    """Thoughts count as tokens; how many there were, and when the answer began, is known of each request."""
    thoughts = [{name: "hm"} for name in ("thinking", "reasoning", "reasoning_content")]
    with endpoint(lambda _: streamed({"role": "assistant"}, *thoughts, {"content": "yes"}, usage(4))) as running:
        result = _load_once(running.url).measured[0]

    assert (result.failure, result.trace.event_tokens, result.reasoning_tokens) == (None, (1,) * 4, 3)
    assert result.answer_s == result.trace.token_s[3]
    assert not result.calls_only


@pytest.mark.parametrize("field", ["function_call", "tool_calls"])
def test_an_answer_that_only_calls_a_function_is_told_as_such(field: str) -> None:
    """Its tokens are the call's; one that also speaks is none."""
    call = {field: {"name": "f", "arguments": "{"}}
    with endpoint(lambda _: streamed(call, call, usage(2))) as running:
        alone = _load_once(running.url).measured[0]
    with endpoint(lambda _: streamed({"content": "I call"}, call, usage(2))) as running:
        both = _load_once(running.url).measured[0]

    assert [(r.failure, r.calls_only, sum(r.trace.event_tokens)) for r in (alone, both)] == [
        (None, True, 2),
        (None, False, 2),
    ]


@pytest.mark.parametrize("chunk", [{"choices": [{"delta": "x"}]}, {"choices": [{"delta": [1]}], "usage": "none"}])
def test_a_chunk_of_odd_types_is_no_token(chunk: dict[str, Any]) -> None:
    """It counts as nothing, and the request is told as empty: no other request is lost."""
    with endpoint(lambda _: streamed(chunk)) as running:
        result = _load_once(running.url).measured[0]

    assert (result.failure, result.trace.event_tokens) == ("empty", ())
