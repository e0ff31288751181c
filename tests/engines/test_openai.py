"""Endpoints that run already, on loopback, measured by a suite: where requests go, what they carry, what is kept."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.contract import plugins, wire
from bench.contract.errors import UserError
from bench.contract.record import Result
from bench.progress.progress import Progress
from bench.run import artifacts, plan, records, runner
from bench.store import Store
from bench.suite import config
from tests.load.endpoints import Received, Response, endpoint, self_signed, streamed, usage

KEY = "sk-echoed/0123456789+abcdef"
MODELS = Response(body=b'{"data": [{"id": "m", "owned_by": "acme", "max_model_len": 512}]}')


def suite(url: str, load: dict[str, Any] | None = None, **options: Any) -> Any:
    fields = {"prompt_tokens": 8, "new_tokens": 4, "requests": 6} | (load or {"kind": "closed", "concurrency": 2})
    return config.suite(
        {
            "name": "endpoint",
            "model": "models/demo",
            "recipes": ["baseline"],
            "engines": [{"name": "openai", "url": url, "model": "m", "key_variable": "ACME", "api": "chat", **options}],
            "workloads": [fields],
            "devices": ["cpu"],
            "rounds": 1,
            "settle_s": 0,
        }
    )


def measured(folder: Path, url: str, load: dict[str, Any] | None = None, **options: Any) -> Result:
    """The record of one round."""
    store, planned = Store(folder), plan.plan(suite(url, load, **options), fetch=False)
    with Progress() as progress:
        runner.run(planned, store, progress)
    [result] = records.current(planned, store)
    return result


def answering(length: Callable[[dict[str, Any]], int]) -> Callable[[Received], Response]:
    """A chat API that answers with as many tokens as `length` finds in the body."""

    def answer(request: Received) -> Response:
        if request.verb == "GET":
            return MODELS
        count = length(request.body)
        return streamed(*[{"content": "a"}] * count, usage(count), gap_s=0.001)

    return answer


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACME", KEY)


@pytest.mark.usefixtures("cache")
def test_a_key_goes_to_no_other_host(tmp_path: Path) -> None:
    """Every address redirects to another server, which is never asked; the record shows where it would have been."""
    with endpoint(answering(lambda _: 4)) as other:

        def redirect(request: Received) -> Response:
            return Response(307, headers={"Location": f"{other.url}{request.path}"})

        with endpoint(redirect) as running:
            result = measured(tmp_path, running.url)

    assert other.requests == []
    assert {request.headers["authorization"] for request in running.requests} == {f"Bearer {KEY}"}
    assert running.requests[0].path == "/v1/models"
    assert result.status == "failed"
    assert f"HTTP 307: Temporary Redirect (asked {running.url}/v1/chat/completions)" in result.reason
    assert other.url in result.reason


@pytest.mark.slow
@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("status", [200, 401, 503])
def test_a_key_that_the_server_echoes_is_kept_and_shown_nowhere(
    tmp_path: Path, cache: Path, capfd: pytest.CaptureFixture[str], status: int
) -> None:
    """In the models, in an error's text up to where it is cut, in headers, in the finish reason."""

    def echo(request: Received) -> Response:
        key = request.headers["authorization"]
        if request.verb == "GET":
            return Response(body=json.dumps({"data": [{"id": "m", "owned_by": f"key {key}"}]}).encode())
        if status == 200:
            finish = {"choices": [{"delta": {"content": "a"}, "finish_reason": key}]}
            return streamed(*[{"content": key}] * 3, finish, usage(4), gap_s=0.001)
        message = json.dumps({"error": {"message": f"{'x' * 170} {key} {key}"}}).encode()
        return Response(status, message, headers={"Retry-After": key, "Location": f"/?{key}"})

    with endpoint(echo) as running:
        result = measured(tmp_path, running.url)

    assert result.status == ("ok" if status == 200 else "failed")
    streams = capfd.readouterr()
    stored = b"".join(file.read_bytes() for folder in (tmp_path, cache) for file in folder.rglob("*") if file.is_file())
    texts = [stored.decode(errors="replace"), streams.out, streams.err]
    texts += [trace.error for trace in Store(tmp_path).traces(Store(tmp_path).path(result))]
    for text in texts:
        assert KEY not in text
        assert KEY[:8] not in text
    assert "<ACME>" in (result.receipts["owned_by"] if status == 200 else result.reason)


@pytest.mark.usefixtures("cache")
def test_headers_fields_and_the_name_of_the_length(tmp_path: Path) -> None:
    """As Azure wants them, and every request asks for the length that was drawn for it."""
    load = {"kind": "closed", "concurrency": 2, "lengths": "uniform", "spread": 0.9, "new_tokens": 20}
    with endpoint(answering(lambda body: int(body["max_completion_tokens"]))) as running:
        result = measured(
            tmp_path,
            f"{running.url}/openai/deployments/d?api-version=2024-10-21",
            load,
            extra={"reasoning_effort": "low", "temperature": None},
            headers={"X-Team": "blue"},
            length_field="max_completion_tokens",
            key_header="api-key",
        )

    assert result.status == "ok", result.reason
    assert result.receipts == {"owned_by": "acme", "context": "512"}
    assert running.requests[0].path == "/openai/deployments/d/models?api-version=2024-10-21"
    completions = running.requests[1:]
    assert {a.path for a in completions} == {"/openai/deployments/d/chat/completions?api-version=2024-10-21"}
    assert all(a.headers["api-key"] == KEY and a.headers["x-team"] == "blue" for a in running.requests)
    assert not any("authorization" in a.headers for a in running.requests)
    assert all(
        a.body["reasoning_effort"] == "low" and not {"temperature", "max_tokens"} & set(a.body) for a in completions
    )
    lengths = [a.body["max_completion_tokens"] for a in completions]
    assert len(set(lengths)) > 2
    traces = Store(tmp_path).traces(Store(tmp_path).path(result))
    assert Counter(sum(trace.event_tokens) for trace in traces) <= Counter(lengths)


@pytest.mark.slow
@pytest.mark.usefixtures("cache")
def test_models_without_end_cost_no_memory_and_no_run(tmp_path: Path) -> None:
    """The list of models only gives receipts: without one the load goes on."""

    def answer(request: Received) -> Response:
        if request.verb == "GET":
            return Response(body=b"[" * (1 << 16), endless=True)
        return streamed(*[{"content": "a"}] * 4, usage(4), gap_s=0.001)

    with endpoint(answer) as running:
        result = measured(tmp_path, running.url)

    assert (result.status, result.receipts) == ("ok", {})


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize(
    ("models", "receipts"),
    [
        ([{"id": "other", "owned_by": "x", "max_model_len": 1}, {"id": "m", "owned_by": "acme"}], {"owned_by": "acme"}),
        ([{"id": "other", "owned_by": "x", "max_model_len": 1}, {"id": "another", "owned_by": "y"}], {}),
        ([{"id": "m:latest", "owned_by": "acme"}], {"owned_by": "acme"}),
    ],
)
def test_receipts_are_of_the_model_that_is_measured(
    tmp_path: Path, models: list[dict[str, Any]], receipts: dict[str, str]
) -> None:
    """Of several that the server lists the one by that name; of one alone, whatever its name there."""
    listed = Response(body=json.dumps({"data": models}).encode())
    answers = {"GET": listed, "POST": streamed(*[{"content": "a"}] * 4, usage(4), gap_s=0.001)}
    with endpoint(lambda request: answers[request.verb]) as running:
        result = measured(tmp_path, running.url)

    assert (result.status, result.receipts) == ("ok", receipts), result.reason


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"url": "http://me:pa55@h"}, "use key_variable"),
        ({"url": "http://h:99999999"}, "Port out of range"),
        ({"url": "http://h/v1?key=pa55"}, "query holds a secret"),
        ({"url": "http://h/v1/completions"}, "is not the chat API's address"),
        ({"model": ""}, "needs a url"),
    ],
)
def test_an_address_that_cannot_be_asked_is_known_at_the_plan(options: dict[str, Any], words: str) -> None:
    """As the cell's reason, and nothing is run."""
    [item] = plan.plan(suite(**{"url": "http://h", **options}), fetch=False).items

    assert words in item.reason
    assert "pa55" not in item.reason


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"extra": "[1]"}, "extra: expected"),
        ({"extra": "{"}, "extra: expected"),
        ({"headers": {"Authorization": "Bearer x"}}, "Authorization holds a secret.*key_variable"),
        ({"extra": {"api_key": "x"}}, "api_key holds a secret"),
    ],
)
def test_fields_that_are_none_or_secret_are_refused(options: dict[str, Any], words: str) -> None:
    """In one sentence that says what to do: records hold the options."""
    with pytest.raises(UserError, match=words):
        suite("http://h", **options)


def test_options_that_are_younger_than_records_leave_digests_as_they_were() -> None:
    """At their defaults they are no part of it; one that is set is, in whatever form it was written."""
    engine = plugins.load(plugins.ENGINES, "openai")
    old = {"url": "http://h", "model": "m", "api": "chat", "key_variable": "", "ids": False, "exact": True}

    def digest(**options: Any) -> str:
        fields = {k: v for k, v in old.items() if k != "key_variable"} | options
        return wire.digest(artifacts.digest_options(config.options(plugins.ENGINES, "openai", fields, ""), engine))

    assert digest() == wire.digest(old)
    assert digest(extra={"a": 1, "b": 2}) == digest(extra='{"b": 2, "a": 1}') != digest()


@pytest.mark.slow
@pytest.mark.usefixtures("cache")
@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_a_file_of_certificates_is_trusted_and_its_folder_recorded_nowhere(tmp_path: Path) -> None:
    """The list of models and the load go over TLS; one that is not there is told before anything runs."""
    certificate = self_signed(tmp_path)
    with endpoint(answering(lambda body: int(body["max_tokens"])), certificate) as running:
        stranger = measured(tmp_path / "stranger", running.url)
        result = measured(tmp_path / "trusted", running.url, ca=str(certificate))

    assert "certificate verify failed" in stranger.reason
    assert "ca of a suite's engine" in stranger.reason
    assert (result.status, result.receipts["owned_by"]) == ("ok", "acme"), result.reason
    assert result.cell.engine.options["ca"] == f"path:{certificate.name}"
    with pytest.raises(UserError, match="no such file"):
        plan.plan(suite("https://h", ca=str(tmp_path / "none.pem")), fetch=False)
