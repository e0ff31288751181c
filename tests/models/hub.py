"""A Hugging Face Hub on loopback, which has the repositories that it is given as folders."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def hub(repositories: Mapping[str, Path]) -> Iterator[str]:
    """Its address: HF_ENDPOINT of a process that is to take it for the Hub. Every revision is COMMIT."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(repositories))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _siblings(folder: Path) -> list[dict[str, object]]:
    return [{"rfilename": file.name, "size": file.stat().st_size} for file in sorted(folder.iterdir())]


def _tree(folder: Path) -> list[dict[str, object]]:
    return [{"type": "file", "path": f["rfilename"], "oid": "0", "size": f["size"]} for f in _siblings(folder)]


def _handler(repositories: Mapping[str, Path]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._answer(head=True)

        def do_GET(self) -> None:
            self._answer(head=False)

        def _answer(self, *, head: bool) -> None:
            path = self.path.partition("?")[0].lstrip("/")
            for name, folder in repositories.items():
                if path.startswith(f"api/models/{name}"):
                    tree = path.startswith(f"api/models/{name}/tree/")
                    about = _tree(folder) if tree else {"id": name, "sha": COMMIT, "siblings": _siblings(folder)}
                    return self._send(json.dumps(about).encode(), "application/json", head=head)
                file = folder / path.rpartition("/")[2]
                if path.startswith(f"{name}/resolve/") and file.is_file():
                    return self._send(file.read_bytes(), "application/octet-stream", head=head)
            return self._send(b"", "text/plain", head=head, status=404)

        def _send(self, body: bytes, kind: str, *, head: bool, status: int = 200) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.end_headers()
            if not head:
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Say nothing."""

    return Handler
