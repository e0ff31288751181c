"""An engine's HTTP server as the suite starts and asks it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from bench.contract.address import Api

PromptLogprobs = Literal["", "echo", "prompt_logprobs"]


@dataclass(frozen=True)
class Server:
    """An engine's own HTTP server, OpenAI-compatible, as its command line; or one at `url` that runs already.

    `variables` are added to the environment's. `model` is what requests name. `health` is answered with 200 once it can
    serve. `takes_ids`: prompts may be lists of token ids. `extra`: body fields of every request over the client's own;
    null removes one; `natural`: where an answer ends as the model ends it; `reuse`: where a prompt is to stay in the KV
    cache, and to begin with what is there. `prompt_logprobs`: how it gives the log-probabilities of a prompt's tokens,
    by echo with logprobs or by a field of that name; "" where it gives none. `scored`: body fields of an answer that is
    scored, whose text is to have no special tokens. The rest as in the client's Endpoint.
    """

    argv: tuple[str, ...]
    model: str
    variables: Mapping[str, str] = field(default_factory=dict)
    health: str = "/health"
    takes_ids: bool = True
    extra: Mapping[str, Any] = field(default_factory=dict)
    natural: Mapping[str, Any] = field(default_factory=lambda: {"ignore_eos": None})
    url: str = ""
    api: Api = "completions"
    exact_length: bool = True
    key_variable: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    key_header: str = "Authorization"
    length_field: str = "max_tokens"
    ca: str = ""
    reuse: Mapping[str, Any] = field(default_factory=dict)
    prompt_logprobs: PromptLogprobs = ""
    scored: Mapping[str, Any] = field(default_factory=dict)
