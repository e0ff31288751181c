from __future__ import annotations

import contextlib
import shutil
import socket
import ssl
import subprocess
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
    endpoint = Endpoint(f"http://127.0.0.1:{port}", "m", timeout_s=2.0)

    answer = client.run(LoadJob(endpoint, (Request(4, text="x"),) * 6, closed=ClosedSchedule(2, 0)))

    assert answer.failures == {"refused": 6}
    asked = f"http://127.0.0.1:{port}/v1/completions"
    assert answer.measured[0].trace.error == f"no connection: Connection refused (asked {asked})"


@contextmanager
def _answering(data: bytes, tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """A server that answers anything with these bytes and hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                with (
                    contextlib.suppress(OSError),
                    client if tls is None else tls.wrap_socket(client, server_side=True) as link,
                ):
                    if link.recv(1 << 16):
                        link.sendall(data)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"{'http' if tls is None else 'https'}://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(2)


def _asked(url: str) -> LoadAnswer:
    endpoint = Endpoint(url, "m", timeout_s=2.0, exact_length=False)
    return client.run(LoadJob(endpoint, (Request(2, text="x"),), closed=ClosedSchedule(1, 0)))


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
        result = _asked(url).measured[0]

    assert (result.failure, words in result.trace.error) == (failure, True), result


def test_a_body_that_ends_with_its_connection_is_whole() -> None:
    """HTTP/1.0 style: no length, no chunks. The events say that nothing is missing."""
    event = b'data: {"choices": [{"text": "a"}]}\n\n'
    data = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + event * 2 + b"data: [DONE]\n\n"
    with _answering(data) as url:
        result = _asked(url).measured[0]

    assert (result.failure, result.trace.event_tokens) == (None, (1, 1))


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_an_https_endpoint_is_asked_over_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its certificate trusted the tokens come; without, the request is counted as refused."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=IP:127.0.0.1",
            "-keyout",
            str(key),
            "-out",
            str(certificate),
        ],
        check=True,
        capture_output=True,
    )
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    data = b'data: {"choices": [{"text": "a"}]}\n\ndata: [DONE]\n\n'
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: %d\r\n\r\n" % len(data)
    with _answering(head + data, tls) as url:
        stranger = _asked(url).measured[0]
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        result = _asked(url).measured[0]

    assert (stranger.failure, "certificate" in stranger.trace.error) == ("refused", True), stranger
    assert (result.failure, result.trace.event_tokens) == (None, (1,))
