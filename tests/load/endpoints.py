"""Endpoints as they are met, on loopback: a function of the request says what comes back, and requests are kept."""

from __future__ import annotations

import json
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

STREAM = "text/event-stream"


@dataclass(frozen=True)
class Received:
    """One request as it came."""

    verb: str
    path: str
    headers: dict[str, str]  # names in lower case
    body: dict[str, Any]


@dataclass(frozen=True)
class Response:
    """What goes back: events `gap_s` apart where that is above zero, the body again and again where it is `endless`."""

    status: int = 200
    body: bytes = b""
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)
    endless: bool = False
    gap_s: float = 0.0


@dataclass(frozen=True)
class Running:
    """An endpoint that runs: its root, and the requests that came so far."""

    url: str
    requests: list[Received]


Answer = Callable[[Received], Response]


def streamed(*chunks: Any, content_type: str = STREAM, gap_s: float = 0.0) -> Response:
    """Each chunk an event; a chunk that is no payload yet is the delta of a choice."""
    payloads = [chunk if "choices" in chunk else {"choices": [{"index": 0, "delta": chunk}]} for chunk in chunks]
    events = [f"data: {json.dumps(payload)}\n\n" for payload in payloads]
    return Response(body="".join([*events, "data: [DONE]\n\n"]).encode(), content_type=content_type, gap_s=gap_s)


def usage(tokens: int, **details: Any) -> dict[str, Any]:
    return {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": tokens, **details}}


def self_signed(folder: Path) -> Path:
    """A file with a new certificate for 127.0.0.1 that no system trusts, and its key."""
    key, certificate, both = (folder / name for name in ("key.pem", "certificate.pem", "both.pem"))
    words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    files = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(["openssl", *words.split(), *files], check=True, capture_output=True)
    both.write_text(certificate.read_text() + key.read_text())
    return both


@contextmanager
def endpoint(answer: Answer, certificate: Path | None = None) -> Iterator[Running]:
    """Serve `answer` on a free port of loopback; with TLS by a file that has a certificate and its key."""
    requests: list[Received] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def _respond(self) -> None:
            sent = self.rfile.read(int(self.headers.get("content-length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            request = Received(self.command, self.path, headers, json.loads(sent) if sent else {})
            requests.append(request)
            response = answer(request)
            length = {} if response.endless else {"Content-Length": str(len(response.body))}
            self.send_response(response.status)
            for name, value in ({"Content-Type": response.content_type} | length | response.headers).items():
                self.send_header(name, value)
            self.end_headers()
            try:
                for event in response.body.split(b"\n\n") if response.gap_s else ():
                    self.wfile.write(event + b"\n\n" * bool(event))
                    time.sleep(response.gap_s)
                self.wfile.write(b"" if response.gap_s else response.body)
                while response.endless:
                    self.wfile.write(response.body)
            except OSError:  # the client hung up
                self.close_connection = True

        do_GET = do_POST = _respond  # noqa: N815  (the library's names)

        def log_message(self, *words: Any) -> None:
            """Say nothing."""

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *words: Any) -> None:
            """A handshake that the client broke off is no error here."""

    with Quiet(("127.0.0.1", 0), Handler) as server:
        if certificate is not None:
            tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            tls.load_cert_chain(certificate)
            server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield Running(f"http{'s' if certificate else ''}://127.0.0.1:{server.server_port}", requests)
        server.shutdown()
