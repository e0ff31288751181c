"""The verb load: a server that runs already, under a load."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from bench.cli.params import Json, put
from bench.contract.address import Api, api_of
from bench.contract.errors import UserError

app = typer.Typer()


@app.command()
def load(
    url: Annotated[str, typer.Argument(help="A server's root, as http://127.0.0.1:8000, or the whole address.")],
    model: Annotated[str, typer.Option(help="The model's name there.")],
    concurrency: Annotated[int | None, typer.Option(help="Requests in flight (1 unless given).")] = None,
    rate: Annotated[float | None, typer.Option(help="Requests per second, whatever is in flight.")] = None,
    trace: Annotated[str | None, typer.Option(metavar="FILE", help="Replay this trace's requests.")] = None,
    sweep: Annotated[
        Literal["concurrency", "rate"] | None, typer.Option(help="Double it until the output rises no more.")
    ] = None,
    search: Annotated[bool, typer.Option("--search", help="Find the highest rate within --slo-….")] = False,
    arrivals: Annotated[
        Literal["poisson", "constant", "gamma", "ramp"] | None, typer.Option(help="Poisson unless given.")
    ] = None,
    burstiness: Annotated[float | None, typer.Option(help="Gamma's shape; below 1 is burstier.")] = None,
    speed: Annotated[float | None, typer.Option(help="Replay a trace so many times as fast.")] = None,
    turns: Annotated[int | None, typer.Option(help="Turns of each conversation, its prompt growing.")] = None,
    requests: Annotated[int | None, typer.Option(help="Measured, after warm-up; 100 unless given.", min=1)] = None,
    at_most: Annotated[float | None, typer.Option(help="In flight: end after so many seconds.")] = None,
    window: Annotated[float | None, typer.Option(help="At a rate: requests for so many seconds at least.")] = None,
    prompts: Annotated[str | None, typer.Option(metavar="FILE", help="Real prompts, of a JSON or JSONL file.")] = None,
    natural: Annotated[bool, typer.Option("--natural", help="Their answers end where the model ends them.")] = False,
    shared_prefix: Annotated[
        str | None, typer.Option(metavar="TOKENS,GROUPS,TURNS", help="Prompts that begin with what others began with.")
    ] = None,
    prompt_tokens: Annotated[int | None, typer.Option(help="128 unless given.")] = None,
    new_tokens: Annotated[int | None, typer.Option(help="64 unless given.")] = None,
    lengths: Annotated[
        Literal["fixed", "uniform", "lognormal"] | None, typer.Option(help="Fixed unless given.")
    ] = None,
    spread: Annotated[float | None, typer.Option(help="Uniform: ± this share; lognormal: std / mean.")] = None,
    slo_ttft: Annotated[float, typer.Option(help="Seconds to the first token, for goodput.", min=0)] = 0.0,
    slo_tpot: Annotated[float, typer.Option(help="Seconds per token after it, for goodput.", min=0)] = 0.0,
    vocab_size: Annotated[int, typer.Option(help="Send token ids below it; 0: text.")] = 0,
    tokenizer: Annotated[Path | None, typer.Option(help="A tokenizer.json: text of exactly as many tokens.")] = None,
    context: Annotated[int, typer.Option(help="The model's; longer requests of a trace are cut.")] = 0,
    chat: Annotated[bool, typer.Option("--chat", help="The chat API instead of completions.")] = False,
    stop: Annotated[bool, typer.Option("--allow-stop", help="The model may end early.")] = False,
    extra: Annotated[str, typer.Option(metavar="JSON", help="Body fields; null removes one.")] = "{}",
    header: Annotated[list[str] | None, typer.Option(metavar="NAME:VALUE", help="One more header.")] = None,
    length_field: Annotated[str, typer.Option(help="The server's name of the tokens to generate.")] = "max_tokens",
    key_variable: Annotated[str, typer.Option(help="Environment variable that holds the API key.")] = "",
    key_header: Annotated[str, typer.Option(help="The header it goes into, as api-key.")] = "Authorization",
    ca: Annotated[Path | None, typer.Option(metavar="FILE", help="Certificates to trust, for TLS.")] = None,
    seed: Annotated[int, typer.Option(help="Of prompts, lengths and arrivals.")] = 0,
    timeout: Annotated[float, typer.Option(help="Seconds for the whole load.")] = 3600.0,
    as_json: Json = False,
) -> None:
    """Load an OpenAI-compatible server that runs already, and say how it did."""
    from bench.load import build
    from bench.load.job import Endpoint
    from bench.run import standalone
    from bench.suite import config

    kind = "open" if rate is not None else "closed"
    kind = "search" if search else "sweep" if sweep else "trace" if trace is not None else kind
    fields: dict[str, Any] = {"kind": kind, "concurrency": concurrency, "rate_per_s": rate, "path": trace}
    fields |= {"arrivals": arrivals, "burstiness": burstiness, "speed": speed, "turns": turns, "requests": requests}
    fields |= {"window_s": window, "at_most_s": at_most, "prompt_tokens": prompt_tokens, "new_tokens": new_tokens}
    fields |= {"lengths": lengths, "spread": spread, "slo": {"ttft_s": slo_ttft, "tpot_s": slo_tpot}}
    api = _api(url, "chat" if chat else "completions")
    fields |= {"over": sweep, "prompts": prompts, "answers": "natural" if natural else None}
    fields |= {"shared_prefix": _shared_prefix(shared_prefix), "chat": (prompts and api == "chat") or None}
    workload = config.workload({key: value for key, value in fields.items() if value is not None})
    fixed: dict[str, Any] = {"ignore_eos": None} if stop else {}
    endpoint = Endpoint(
        url,
        model,
        api,
        {**fixed, **config.body_fields(extra)},
        dict(map(_header, header or ())),
        key_variable,
        exact_length=not stop,
        length_field=length_field,
        key_header=key_header,
        ca=str(ca or ""),
    )
    target = build.Target(endpoint, vocab_size, tokenizer, context)
    result = standalone.measure(workload, target, seed=seed, timeout_s=timeout, prefix_caching=True)
    put(json.dumps(result, indent=1) if as_json else "\n".join(standalone.lines(workload.title, result)))


def _api(url: str, api: Api) -> Api:
    try:
        return api_of(url, api)
    except ValueError as error:
        raise UserError(str(error)) from None


def _shared_prefix(text: str | None) -> dict[str, int] | None:
    if text is None:
        return None
    try:
        tokens, groups, turns = map(int, text.split(","))
    except ValueError:
        raise UserError(f"--shared-prefix {text}: write TOKENS,GROUPS,TURNS, for example 768,8,16") from None
    return {"tokens": tokens, "groups": groups, "turns": turns}


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon:
        raise UserError(f"--header {text}: write NAME:VALUE, for example --header X-Team:blue")
    return name.strip(), value.strip()
