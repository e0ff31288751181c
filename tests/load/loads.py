"""Small loads against the scripted server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench.load import client
from bench.load.job import Ask, Closed, Endpoint, LoadAnswer, LoadJob, Open, Served
from tests.instrument.scripted_server import Scripted

Script = Mapping[str, Any]


def endpoint(server: Scripted, **fields: Any) -> Endpoint:
    return Endpoint(**{"url": server.url, "model": "scripted", "timeout_s": 5.0, **fields})


def asks(*scripts: Script, tokens: int = 8) -> tuple[Ask, ...]:
    """One request for each script, told apart in the server's log by its text."""
    return tuple(
        Ask(tokens, text=f"request {i}", prompt_tokens=3, extra={"script": dict(script)})
        for i, script in enumerate(scripts)
    )


def closed(
    server: Scripted, *scripts: Script, tokens: int = 8, concurrency: int = 1, warmup: int = 0, **fields: Any
) -> LoadAnswer:
    shape = Closed(concurrency, warmup)
    return client.run(LoadJob(endpoint(server, **fields), asks(*scripts, tokens=tokens), closed=shape))


def opened(server: Scripted, shape: Open, *scripts: Script, tokens: int = 8, **fields: Any) -> LoadAnswer:
    return client.run(LoadJob(endpoint(server, **fields), asks(*scripts, tokens=tokens), opened=shape))


def one(server: Scripted, script: Script, **fields: Any) -> Served:
    """A request of 8 tokens alone."""
    return closed(server, script, **fields).served[0]
