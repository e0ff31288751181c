"""Any OpenAI-compatible endpoint that runs already: SGLang, TGI, Ollama, TensorRT-LLM, a hosted API.

The suite neither starts nor stops it and cannot inspect its process: that it serves the recipe's model on this
device is unverified, and every figure is marked so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.contract import address
from bench.contract.hooks import ANY
from bench.contract.outside import is_secret_field
from bench.contract.record import Artifact, Hardware
from bench.contract.server import PromptLogprobs, Server
from bench.contract.spec import Cell
from bench.contract.workload import Trace

ENV = "core"
VERSION = 1
LOADS = ANY
MODES = frozenset({"online"})
DEPTH_MODES = MODES
PATHS = ("ca",)
OPTIONS_SINCE = frozenset({"extra", "headers", "length_field", "key_header", "ca", "prefix_caching", "prompt_logprobs"})
_RECEIPTS = {"owned_by": "owned_by", "max_model_len": "context"}  # by their keys in the list of models
_LONGEST = 200  # characters of a receipt


@dataclass(frozen=True)
class Options:
    """`url` is the server's root, its API's root (…/v1), or the whole address; `model` what it calls the model.

    `key_variable`: the environment variable with the API key, which no record ever holds; `key_header`: the header
    that it goes into (Azure's: api-key). `ids`: prompts are lists of token ids, which vLLM, SGLang and llama-server
    take; off, they are text of as many tokens by the model's tokenizer. `exact`: it can be made to ignore the end
    token (`ignore_eos`); off, it stops where it likes, and lengths are not compared. `length_field`: its name of the
    number of tokens to generate (max_completion_tokens). `extra`: fields of the body, null removes one; `headers`:
    more headers; each a mapping, which records hold as JSON. `ca`: a file of certificates to trust besides the
    system's. `prefix_caching`: whether the server keeps prefixes; it is not told to, and its count is held to it.
    `prompt_logprobs`: how it gives the log-probabilities of a prompt, which multiple choice needs (with `ids`): echo
    (OpenAI's echo with logprobs: vLLM, SGLang), or the field prompt_logprobs (vLLM).
    """

    url: str = ""
    model: str = ""
    api: address.Api = "completions"
    key_variable: str = ""
    ids: bool = False
    exact: bool = True
    extra: Mapping[str, Any] | str = ""
    headers: Mapping[str, Any] | str = ""
    length_field: str = "max_tokens"
    key_header: str = "Authorization"
    ca: str = ""
    prefix_caching: bool = False
    prompt_logprobs: PromptLogprobs = ""

    def __post_init__(self) -> None:
        for name in ("extra", "headers"):
            object.__setattr__(self, name, _as_json(name, getattr(self, name)))


def unsupported(cell: Cell, artifact_format: str, hardware: Hardware) -> str | None:
    options = Options(**cell.engine.options)  # type: ignore[arg-type]  # validated against Options by the planner
    if not options.url or not options.model:
        return "the openai engine needs a url, as http://HOST:PORT, and the model's name there"
    try:
        address.of_api(options.url, address.api_of(options.url, options.api))
    except ValueError as error:
        return str(error)
    load = cell.workload
    own_template = address.api_of(options.url, options.api) == "chat"
    if load is not None and not isinstance(load, Trace) and load.prompts and own_template and not load.chat:
        return "the chat API puts prompts into the server's own template: set chat: true, or api: completions"
    if cell.workload and cell.workload.deepest and not options.ids:
        return "depth_tokens needs prompts of token ids: set ids: true where the server takes them"
    return None


def _as_json(name: str, given: Mapping[str, Any] | str) -> str:
    """Fields as JSON, the same text for the same fields; ValueError for none, or for one that holds a secret."""
    if not given:
        return ""
    try:
        fields = json.loads(given) if isinstance(given, str) else given
    except ValueError:
        fields = None
    if not isinstance(fields, Mapping):
        raise ValueError(f"{name}: expected 'field: value' lines or a JSON object")  # noqa: TRY004  (pydantic's)
    if secret := next((field for field in fields if is_secret_field(str(field))), ""):
        raise ValueError(f"{name}.{secret} holds a secret, which records would show: use key_variable and key_header")
    return json.dumps(fields, sort_keys=True)


def may_offload(options: Options) -> bool:
    """They are where the server is."""
    return True


def serve(folder: Path, artifact: Artifact, options: Options, python: str, port: int, device: str) -> Server:
    """The server's address and API."""
    return Server(
        argv=(),
        model=options.model,
        url=options.url,
        api=address.api_of(options.url, options.api),
        takes_ids=options.ids,
        key_variable=options.key_variable,
        exact_length=options.exact,
        extra={**({} if options.exact else {"ignore_eos": None}), **_fields(options.extra)},
        headers={name: str(value) for name, value in _fields(options.headers).items()},
        key_header=options.key_header,
        length_field=options.length_field,
        ca=options.ca.removeprefix("path:"),
        prompt_logprobs=options.prompt_logprobs,
    )


def _fields(text: Mapping[str, Any] | str) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads(text) if isinstance(text, str) and text else {}
    return fields


def read_log(text: str) -> tuple[Mapping[str, str], Mapping[str, int]]:
    """Receipts from its list of models, below the name of the one that is served: owner and context length.

    They are those of the one by that name, or of the only one.
    """
    name, _, models = text.partition("\n")
    try:
        listed: Any = json.loads(models or "{}")["data"]
        (model,) = [each for each in listed if isinstance(each, dict) and each.get("id") == name][:1] or listed
        return {receipt: str(model[key])[:_LONGEST] for key, receipt in _RECEIPTS.items() if key in model}, {}
    except (ValueError, LookupError, TypeError, RecursionError):
        return {}, {}
