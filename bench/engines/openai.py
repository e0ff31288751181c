"""Any OpenAI-compatible endpoint that runs already: SGLang, TGI, Ollama, TensorRT-LLM, a hosted API.

The suite neither starts nor stops it and cannot inspect its process: that it serves the recipe's model on this
device is unverified, and every figure is marked so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from bench.contract.hooks import ANY, Server
from bench.contract.record import Artifact, Hardware
from bench.contract.spec import Cell

ENV = "core"
VERSION = 1
LOADS = ANY
MODES = frozenset({"online"})
_RECEIPTS = {"owned_by": "owned_by", "max_model_len": "context"}  # by their keys in the list of models


@dataclass(frozen=True)
class Options:
    """`url` is the server's root or its /v1, `model` what it calls the model.

    `key_variable`: the environment variable with the API key, which no record ever holds. `ids`: prompts are
    lists of token ids, which vLLM, SGLang and llama-server take; off, they are text of as many tokens by the
    model's tokenizer. `exact`: it can be made to ignore the end token (`ignore_eos`); off, it stops where it
    likes, and lengths are not compared.
    """

    url: str = ""
    model: str = ""
    api: Literal["completions", "chat"] = "completions"
    key_variable: str = ""
    ids: bool = False
    exact: bool = True


def unsupported(cell: Cell, artifact_format: str, hardware: Hardware) -> str | None:
    options = Options(**cell.engine.options)  # type: ignore[arg-type]  # validated against Options by the planner
    url = urlsplit(options.url)
    if url.scheme not in ("http", "https") or not url.hostname or not options.model:
        return "the openai engine needs a url, as http://HOST:PORT, and the model's name there"
    if url.username or url.password:
        return "the url holds a password, which records would show: use key_variable"
    return None


def may_offload(options: Options) -> bool:
    """They are where the server is."""
    return True


def serve(folder: Path, artifact: Artifact, options: Options, python: str, port: int, device: str) -> Server:
    """The server's address and API."""
    return Server(
        argv=(),
        model=options.model,
        url=options.url,
        api=options.api,
        takes_ids=options.ids,
        key_variable=options.key_variable,
        exact_length=options.exact,
        extra={} if options.exact else {"ignore_eos": None},
    )


def read_log(text: str) -> tuple[Mapping[str, str], Mapping[str, int]]:
    """Receipts from its list of models: owner and context length."""
    try:
        model: Any = json.loads(text or "{}")["data"][0]
        return {receipt: str(model[key]) for key, receipt in _RECEIPTS.items() if key in model}, {}
    except (ValueError, LookupError, TypeError):
        return {}, {}
