"""Small loads against the scripted server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench.load import client
from bench.load.job import ClosedSchedule, Endpoint, LoadAnswer, LoadJob, OpenSchedule, Request, RequestResult
from tests.instrument.scripted_server import Scripted

Script = Mapping[str, Any]


def endpoint(server: Scripted, **fields: Any) -> Endpoint:
    return Endpoint(**{"url": server.url, "model": "scripted", "timeout_s": 5.0, **fields})


def requests(*scripts: Script, tokens: int = 8) -> tuple[Request, ...]:
    """One request for each script, told apart in the server's log by its text."""
    return tuple(
        Request(tokens, text=f"request {i}", prompt_tokens=3, extra={"script": dict(script)})
        for i, script in enumerate(scripts)
    )


def closed(
    server: Scripted, *scripts: Script, tokens: int = 8, concurrency: int = 1, warmup: int = 0, **fields: Any
) -> LoadAnswer:
    shape = ClosedSchedule(concurrency, warmup)
    return client.run(LoadJob(endpoint(server, **fields), requests(*scripts, tokens=tokens), closed=shape))


def opened(server: Scripted, shape: OpenSchedule, *scripts: Script, tokens: int = 8, **fields: Any) -> LoadAnswer:
    return client.run(LoadJob(endpoint(server, **fields), requests(*scripts, tokens=tokens), opened=shape))


def one(server: Scripted, script: Script, **fields: Any) -> RequestResult:
    """A request of 8 tokens alone."""
    return closed(server, script, **fields).measured[0]
