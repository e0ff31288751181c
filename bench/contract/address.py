"""Where the requests of an OpenAI-compatible endpoint go, by the URL that a person gives for it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal
from urllib.parse import SplitResult, parse_qsl, quote, urlsplit

from bench.contract.outside import is_secret_field

Api = Literal["completions", "chat"]

_PATHS: dict[Api, str] = {"completions": "/completions", "chat": "/chat/completions"}
# A path with a version in it, or of an Azure deployment, is the API's root; below any other path that is /v1.
_API_ROOT = re.compile(r"/v\d+((alpha|beta)\d*)?(/|$)|/deployments/[^/]+$")
_IN_A_URL = "/%:@!$&'()*+,;=~?"


@dataclass(frozen=True)
class Address:
    """One address of an endpoint. `host` is what a Host header says, port and all; `path` has the query too."""

    name: str
    port: int
    tls: bool
    host: str
    path: str

    @property
    def url(self) -> str:
        """The whole address, as errors name it."""
        return f"{'https' if self.tls else 'http'}://{self.host}{self.path}"


def api_of(url: str, api: Api) -> Api:
    """The API that the URL's own path names, else `api`; ValueError where the two contradict each other."""
    path = _split(url).path.rstrip("/")
    if path.endswith(_PATHS["chat"]):
        return "chat"
    if path.endswith(_PATHS["completions"]) and api == "chat":
        raise ValueError(f"{url} is not the chat API's address: give …/chat/completions, or leave the chat API out")
    return api


def of_api(url: str, api: Api) -> Address:
    """Where completions are asked for; ValueError for an invalid URL.

    The URL is the server's root, its API's root (a path with /v1, /v4, …), or the whole address, which ends in
    completions. A query stays.
    """
    split = _split(url)
    root, whole = _root(split)
    return _address(split, whole or root + _PATHS[api])


def of_models(url: str) -> Address:
    """Where the same endpoint lists its models."""
    split = _split(url)
    return _address(split, _root(split)[0] + "/models")


def of_metrics(url: str) -> Address:
    """Where the same server may have counters for Prometheus: beside its API's root."""
    split = _split(url)
    return _address(split, _root(split)[0].rpartition("/")[0] + "/metrics")


def _root(split: SplitResult) -> tuple[str, str]:
    """(the API's root, the whole path where the URL names one)."""
    path = split.path.rstrip("/")
    for end in (_PATHS["chat"], _PATHS["completions"]):
        if path.endswith(end):
            return path.removesuffix(end), path
    return path if _API_ROOT.search(path) else f"{path}/v1", ""


def _split(url: str) -> SplitResult:
    """The URL's parts; ValueError with what is wrong, for one that cannot be asked or would show a secret."""
    try:
        split = urlsplit(url)
        _ = split.port
    except ValueError as error:
        shown = url.rpartition("@")[2]  # without a password
        raise ValueError(f"invalid server URL {shown!r} ({error}): expected http://HOST:PORT") from None
    if split.scheme not in ("http", "https") or not split.hostname:
        raise ValueError(f"invalid server URL {_without_user(split)!r}: expected http://HOST:PORT")
    if split.username or split.password:
        raise ValueError("the URL holds a password, which records and messages would show: use key_variable")
    if secret := next((name for name, _ in parse_qsl(split.query) if is_secret_field(name)), ""):
        raise ValueError(
            f"the URL's query holds a secret ({secret}), which records and messages would show: use key_variable, "
            "and key_header for the header that the key belongs in"
        )
    return split


def _without_user(split: SplitResult) -> str:
    return split._replace(netloc=split.netloc.rpartition("@")[2]).geturl()


def _address(split: SplitResult, path: str) -> Address:
    tls, name = split.scheme == "https", split.hostname or ""
    try:
        ascii_name = name if name.isascii() else name.encode("idna").decode()
    except UnicodeError:
        raise ValueError(f"invalid server name {name!r}: expected http://HOST:PORT") from None
    host = f"[{ascii_name}]" if ":" in ascii_name else ascii_name
    host += "" if split.port is None else f":{split.port}"
    query = f"?{quote(split.query, safe=_IN_A_URL)}" if split.query else ""
    return Address(ascii_name, split.port or (443 if tls else 80), tls, host, quote(path, safe=_IN_A_URL) + query)
