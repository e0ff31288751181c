"""What a server sends without end costs the load process little memory, and no other request."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench import paths
from bench.contract import wire
from bench.load.client import read_answer
from bench.load.job import ClosedSchedule, Endpoint, LoadAnswer, LoadJob, Request
from tests.load.endpoints import STREAM, Received, Response, endpoint, streamed, usage

_MEMORY = 600 << 20  # bytes of address space: the process takes half of it before the first request

ENDLESS = {
    "one line": Response(body=b"data: " + b"x" * (1 << 16), content_type=STREAM, endless=True),
    "comments": Response(body=b": still there\n\n" * 4096, content_type=STREAM, endless=True),
    "tokens": Response(body=b'data: {"choices": [{"text": "a"}]}\n\n' * 512, content_type=STREAM, endless=True),
    "a page": Response(500, b"<p>no" * 4096, "text/html", endless=True),
    "a header": Response(headers={"X-Long": "y" * (8 << 20)}, endless=True, body=b"x"),
}


def loaded(url: str, folder: Path, requests: int, **job: Any) -> LoadAnswer:
    """The answer of a load process that may take _MEMORY."""
    shape = ClosedSchedule(4, 0)
    file, answer = folder / "job.json", folder / "answer.json"
    prompts = tuple(Request(4, text=f"request {i}") for i in range(requests))
    where = Endpoint(url, "m", timeout_s=30.0, exact_length=False)
    file.write_text(wire.dumps(LoadJob(where, prompts, closed=shape, **job)))
    done = subprocess.run(
        [sys.executable, "-m", "bench.load.client", str(file), str(answer)],
        cwd=paths.import_root(),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY)),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-1000:]
    return read_answer(answer)


@pytest.mark.parametrize("name", ENDLESS)
def test_an_answer_without_end_is_cut_off(tmp_path: Path, name: str) -> None:
    """It is malformed, which says how much was read; the requests beside it are whole."""

    def answer(request: Received) -> Response:
        return ENDLESS[name] if request.body["prompt"] == "request 5" else streamed({"content": "a"}, usage(1))

    with endpoint(answer) as running:
        result = loaded(running.url, tmp_path, 12)

    assert result.failures == {"malformed": 1}
    [error] = [r.trace.error for r in result.measured if r.failure]
    assert "the answer is longer than" in error
    assert sum(r.trace.event_tokens == (1,) for r in result.measured) == 11


@pytest.mark.slow
def test_what_many_answers_hold_is_bounded_too(tmp_path: Path) -> None:
    """Eight hundred errors of a megabyte each leave a sentence each: no body is kept once it is read."""
    page = json.dumps({"error": {"message": "z" * 1_000_000}}).encode()
    with endpoint(lambda _: Response(500, page)) as running:
        result = loaded(running.url, tmp_path, 800, hold_bytes=64 << 20)

    assert result.failures == {"status": 800}
    assert max(len(r.trace.error) for r in result.measured) < 400
