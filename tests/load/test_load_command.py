"""`bench load` as a person uses it, against endpoints as they are."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.conftest import Command
from tests.load.endpoints import Received, Response, endpoint, self_signed, streamed, usage

pytestmark = pytest.mark.slow  # starts the commands many times

KEY = "sk-typed-by-a-person-0123"
FEW = ("--model", "m", "--requests", "4", "--new-tokens", "4", "--concurrency", "2")


def reasoning(request: Received) -> Response:
    """As many thoughts as words of the answer."""
    half = int(request.body["max_completion_tokens"]) // 2
    return streamed(*[{"thinking": "hm"}] * half, *[{"content": "a"}] * half, usage(2 * half), gap_s=0.001)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_the_whole_address_of_a_reasoning_model_behind_tls(command: Command, tmp_path: Path) -> None:
    """Its path and query stay and say that it chats; key, header and length go by the names that were given."""
    certificate = self_signed(tmp_path)
    with endpoint(reasoning, certificate) as running:
        address = f"{running.url}/openai/deployments/d/chat/completions?api-version=1"
        words = ["load", address, *FEW, "--length-field", "max_completion_tokens", "--header", "X-Team: blue"]
        words += ["--key-variable", "ACME", "--key-header", "api-key"]
        stranger = command("bench", *words, ACME=KEY)
        done = command("bench", *words, "--ca", str(certificate), ACME=KEY)

    assert (stranger.returncode, "--ca" in stranger.stderr, "SSL_CERT_FILE" in stranger.stderr) == (2, True, True)
    assert done.returncode == 0, done.stderr
    assert {request.path for request in running.requests} == {"/openai/deployments/d/chat/completions?api-version=1"}
    assert all(a.headers["api-key"] == KEY and a.headers["x-team"] == "blue" for a in running.requests)
    assert all("messages" in a.body and "max_tokens" not in a.body for a in running.requests)
    assert "reasoning tokens                8," in done.stdout
    assert "median of 4 that came to it" in done.stdout
    assert KEY not in done.stdout + done.stderr + stranger.stdout + stranger.stderr


def test_calls_of_functions_are_told(command: Command) -> None:
    """In the terminal and as a fact."""
    call = {"function_call": {"name": "f", "arguments": "{"}}
    with endpoint(lambda _: streamed(*[call] * 4, usage(4), gap_s=0.001)) as running:
        text_run = command("bench", "load", running.url, *FEW, "--chat")
        data = json.loads(command("bench", "load", running.url, *FEW, "--chat", "--json").stdout)

    assert "4 of the answers called functions and had no text" in text_run.stdout
    assert data["facts"]["calls_only"] == 4


def test_what_a_server_says_is_text_without_the_key(command: Command) -> None:
    """An error that echoes the key among escapes: one printable line, and the variable's name in its place."""

    def refuse(request: Received) -> Response:
        message = f"\x1b]0;owned\x07\x1b[31m{request.headers['authorization']}\u202e\x9b2J"
        return Response(403, json.dumps({"error": {"message": message}}).encode())

    with endpoint(refuse) as running:
        done = command("bench", "load", running.url, *FEW, "--key-variable", "ANY_NAME", ANY_NAME=KEY)

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.strip().isprintable()
    assert KEY not in done.stderr
    assert "Bearer <ANY_NAME>" in done.stderr


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["localhost:8000"], "expected http://HOST:PORT"),
        (["http://h:pa55@x:1"], "use key_variable"),
        (["http://127.0.0.1:9", "--header", "nothing"], "write NAME:VALUE"),
        (["http://127.0.0.1:9", "--header", "Authorization: pa55"], "key_variable"),
        (["http://127.0.0.1:9", "--key-variable", "NOT_SET"], "NOT_SET is not set"),
        (["https://127.0.0.1:9", "--ca", "none.pem"], "expected a PEM file"),
        (["http://127.0.0.1:9/v1/completions", "--chat"], "not the chat API's address"),
    ],
)
def test_what_cannot_be_asked_is_one_sentence(command: Command, words: list[str], sentence: str) -> None:
    """With exit code 2, and without a secret that was typed."""
    done = command("bench", "load", *words, *FEW)

    assert (done.returncode, done.stdout) == (2, "")
    assert sentence in done.stderr
    assert "pa55" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
