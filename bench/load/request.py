"""Requests as bytes, ready before the clock starts."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from bench.contract.address import Address, of_api, of_metrics, of_models
from bench.contract.outside import is_secret_field
from bench.load.job import BEARER, Endpoint, Request

_LENGTHS = ("max_tokens", "max_completion_tokens", "max_new_tokens", "n_predict")
_HEADER = re.compile(r"[\w!#$%&'*+.^`|~-]+: [\x20-\x7e]*", re.ASCII)
_LEAST_BYTES, _TOKEN_BYTES = 1 << 20, 1 << 12  # of an answer: with its head, its prompt's ids, log-probabilities


def address(endpoint: Endpoint) -> Address:
    """Where the requests go; ValueError for an invalid URL."""
    return of_api(endpoint.url, endpoint.api)


def most_bytes(request: Request, data: bytes) -> int:
    """The most that an answer can take, a generous multiple of what servers send; `data` is the request's."""
    return _LEAST_BYTES + 4 * len(data) + _TOKEN_BYTES * request.new_tokens


def encode(endpoint: Endpoint, requests: Sequence[Request], variables: Mapping[str, str]) -> list[bytes]:
    """The bytes of every request. `variables` are the environment, from which the API key is read."""
    to = address(endpoint)
    head = _head("POST", to, endpoint, {"Accept": "text/event-stream", "Content-Type": "application/json"}, variables)
    bodies = (orjson.dumps(body(endpoint, request)) for request in requests)
    return [f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data for data in bodies]


def list_models(endpoint: Endpoint, variables: Mapping[str, str]) -> tuple[Address, bytes]:
    """The request for the endpoint's list of models, and where it goes."""
    to = of_models(endpoint.url)
    return to, f"{_head('GET', to, endpoint, {'Accept': 'application/json'}, variables)}\r\n".encode()


def list_metrics(endpoint: Endpoint, variables: Mapping[str, str]) -> tuple[Address, bytes]:
    """The request for the server's own counters, and where it goes."""
    to = of_metrics(endpoint.url)
    return to, f"{_head('GET', to, endpoint, {'Accept': 'text/plain'}, variables)}\r\n".encode()


def body(endpoint: Endpoint, request: Request) -> dict[str, Any]:
    """Greedy, streamed, of exactly `new_tokens`, with usage at the end; `extra` overrides fields, null removes one."""
    fields: dict[str, Any] = {
        "model": endpoint.model,
        **_prompt(endpoint, request),
        endpoint.length_field: request.new_tokens,
        "temperature": 0,
        "ignore_eos": True,
        **({} if request.whole else {"stream": True, "stream_options": {"include_usage": True}}),
        **endpoint.extra,
        **request.extra,
    }
    if other := next((name for name in _LENGTHS if fields.get(name) not in (None, request.new_tokens)), ""):
        raise ValueError(
            f"extra asks for {fields[other]} tokens ({other}) and the load for {request.new_tokens}: leave it out of "
            f"extra, and where the server wants that name give it by --length-field (length_field in a suite)"
        )
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


def _head(verb: str, to: Address, endpoint: Endpoint, content: Mapping[str, str], variables: Mapping[str, str]) -> str:
    """The request line and the headers, but for the length of a body."""
    lines = {"Host": to.host, "User-Agent": "llm-bench", **content, **endpoint.headers}
    if secret := next((name for name in endpoint.headers if is_secret_field(name)), ""):
        raise ValueError(f"the header {secret} holds a secret: name its variable by key_variable, and it by key_header")
    if endpoint.key_variable:
        if not variables.get(endpoint.key_variable, "").strip():
            raise ValueError(f"the API key's variable {endpoint.key_variable} is not set: export it first")
        key = variables[endpoint.key_variable].strip()
        lines[endpoint.key_header] = f"Bearer {key}" if endpoint.key_header.lower() == BEARER.lower() else key
    if not all(_HEADER.fullmatch(f"{name}: {value}") for name, value in lines.items()):
        raise ValueError("a header contains a line break, or another character that no header has")
    return f"{verb} {to.path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items())
