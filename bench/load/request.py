"""Requests as bytes, ready before the clock starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import orjson

from bench.load.job import Endpoint, Request


@dataclass(frozen=True)
class Address:
    """Where the connections go. `host` is what a Host header says, port and all."""

    name: str
    port: int
    tls: bool
    host: str
    path: str


def address(endpoint: Endpoint) -> Address:
    """The parts of the endpoint's URL; ValueError for an invalid one."""
    url = urlsplit(endpoint.url)
    if url.scheme not in ("http", "https") or not url.hostname:
        raise ValueError(f"invalid server URL {endpoint.url!r}: expected http://HOST:PORT")
    root = url.path.rstrip("/")
    root = root if root.endswith("/v1") else f"{root}/v1"
    tls = url.scheme == "https"
    path = root + ("/chat/completions" if endpoint.api == "chat" else "/completions")
    host = url.netloc.rpartition("@")[2]
    return Address(url.hostname, url.port or (443 if tls else 80), tls, host, path)


def encode(endpoint: Endpoint, requests: Sequence[Request], variables: Mapping[str, str]) -> list[bytes]:
    """The bytes of every request. `variables` are the environment, from which the API key is read."""
    head = _head(endpoint, variables)
    bodies = (orjson.dumps(body(endpoint, request)) for request in requests)
    return [f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data for data in bodies]


def body(endpoint: Endpoint, request: Request) -> dict[str, Any]:
    """Greedy, streamed, of exactly `new_tokens`, with usage at the end; `extra` overrides fields, null removes one."""
    fields: dict[str, Any] = {
        "model": endpoint.model,
        **_prompt(endpoint, request),
        "max_tokens": request.new_tokens,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
        **endpoint.extra,
        **request.extra,
    }
    return {name: value for name, value in fields.items() if value is not None}


def _prompt(endpoint: Endpoint, request: Request) -> dict[str, Any]:
    if sum(map(bool, (request.ids, request.text, request.messages))) != 1:
        raise ValueError("a request needs exactly one of ids, text and messages")
    if endpoint.api == "completions":
        if request.messages:
            raise ValueError("the completions API takes no messages; give ids or text")
        return {"prompt": list(request.ids) if request.ids else request.text}
    if request.ids:
        raise ValueError("the chat API takes no token ids; give text or messages")
    pairs = request.messages or (("user", request.text),)
    return {"messages": [{"role": role, "content": content} for role, content in pairs]}


def _head(endpoint: Endpoint, variables: Mapping[str, str]) -> str:
    to = address(endpoint)
    lines = {
        "Host": to.host,
        "User-Agent": "llm-bench",
        "Accept": "text/event-stream",
        "Content-Type": "application/json",
        **endpoint.headers,
    }
    if endpoint.key_variable:
        if endpoint.key_variable not in variables:
            raise ValueError(f"the API key's variable {endpoint.key_variable} is not set: export it first")
        lines["Authorization"] = f"Bearer {variables[endpoint.key_variable]}"
    if any("\r" in text or "\n" in text for pair in lines.items() for text in pair):
        raise ValueError("a header contains a line break")
    return f"POST {to.path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items())
