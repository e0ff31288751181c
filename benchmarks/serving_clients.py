"""The three load clients that serving_parity compares: the suite's own, `vllm bench serve` and guidellm.

Each is a process of its own that sends the same prompts, and returns every request as the client recorded it.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.envs import environment
from bench.load.job import ClosedSchedule, Endpoint, LoadJob, Request
from bench.measure.latency import stamps, ttft_s
from bench.measure.online_load import online_metrics
from bench.process import scratch, supervisor
from bench.run import online
from benchmarks import script

_OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
_TIMEOUT_S = 600.0
# llama-server drops a connection after a streamed answer and does not say so beforehand. Without this our
# client connects anew and sends again; vLLM's, whose library repeats no POST, counts failed requests.
_CLOSE = {"Connection": "close"}


@dataclass(frozen=True)
class RequestTiming:
    """One request as a client or the server recorded it; seconds on any clock."""

    sent_s: float
    ttft_s: float
    last_s: float
    prompt_tokens: int
    tokens: int


@dataclass(frozen=True)
class Turn:
    """One turn as its client recorded it: every request, and the figures that it prints (ms, ms, tok/s)."""

    requests: list[RequestTiming]
    printed: tuple[float, float, float]


@dataclass(frozen=True)
class Load:
    """What every client does in one turn."""

    url: str
    model: str
    tokenizer: Path
    texts: Sequence[str]
    prompt_tokens: int
    new_tokens: int
    concurrency: int


def ours(load: Load) -> Turn:
    requests = tuple(Request(load.new_tokens, text=text) for text in load.texts)
    job = LoadJob(Endpoint(load.url, load.model, headers=_CLOSE), requests, ClosedSchedule(load.concurrency))
    answer = online.apply(job, timeout_s=_TIMEOUT_S)
    if answer.error or answer.failures:
        sys.exit(f"our requests failed: {answer.error or answer.failures}")
    results = [*answer.warmup, *answer.measured]
    metrics = online_metrics([s.trace for s in results], {"window_s": answer.window_s})
    timings = [
        RequestTiming(t.sent_s, ttft_s(t), stamps(t)[-1], s.usage_prompt_tokens or 0, s.usage_tokens or 0)
        for s in results
        for t in [s.trace]
    ]
    return Turn(timings, (1e3 * metrics["ttft_s"], 1e3 * metrics["tpot_s"], metrics["output_tok_per_s"]))


def vllm(load: Load) -> Turn:
    """It counts tokens by the tokenizer: usage in an event with a choice, as llama-server's, it skips."""
    with scratch.folder() as folder:
        _write(load, folder / "prompts.jsonl")
        options = {
            "--backend": "openai",
            "--base-url": load.url,
            "--model": load.model,
            "--tokenizer": load.tokenizer,
            "--dataset-name": "custom",
            "--dataset-path": "prompts.jsonl",
            "--custom-output-len": load.new_tokens,
            "--num-prompts": len(load.texts),
            "--max-concurrency": load.concurrency,
            "--temperature": 0,
            "--result-filename": "out.json",
            "--header": "Connection=close",
        }
        switches = ("--skip-chat-template", "--disable-shuffle", "--ignore-eos", "--save-result", "--save-detailed")
        env = engine_environment("vllm")
        argv = [env.python, "-c", script.vllm_benchmark("serve"), *script.command_line(options), *switches]
        variables = supervisor.variables(env, "cpu") | _OFFLINE
        script.run(argv, folder=folder, env=variables, timeout_s=_TIMEOUT_S)
        result = json.loads((folder / "out.json").read_text())
    if result["failed"]:
        sys.exit(f"{result['failed']} requests of vllm bench serve failed: {max(result['errors'])[-500:]}")
    fields = ("start_times", "ttfts", "latencies", "input_lens", "output_lens")
    requests = [
        RequestTiming(start, ttft, start + latency, prompt, tokens)
        for start, ttft, latency, prompt, tokens in zip(*(result[name] for name in fields), strict=True)
    ]
    return Turn(requests, (result["median_ttft_ms"], result["median_tpot_ms"], result["output_throughput"]))


def guidellm(load: Load, *, program: str) -> Turn:
    """It sets `ignore_eos` itself where a row has a number of output tokens."""
    with scratch.folder() as folder:
        _write(load, folder / "prompts.jsonl")
        backend = {
            "kind": "openai_http",
            "target": load.url,
            "model": load.model,
            "request_format": "/v1/completions",
            "extras": {"headers": _CLOSE, "body": {"temperature": 0}},
        }
        options = {
            "--backend": json.dumps(backend),
            "--profile": f"kind=concurrent,streams={load.concurrency}",
            "--constraint": f"kind=max_requests,count={len(load.texts)}",
            "--data": "kind=json_file,path=prompts.jsonl",
            "--output": "kind=json,path=out.json",
        }
        argv = [program, "run", *script.command_line(options), "--disable-console"]
        script.run(argv, folder=folder, env={**os.environ, **_OFFLINE}, timeout_s=_TIMEOUT_S)
        result = json.loads((folder / "out.json").read_text())["benchmarks"][0]
    rows = result["requests"]["successful"]
    if len(rows) != len(load.texts):
        sys.exit(f"guidellm completed {len(rows)} of {len(load.texts)} requests")
    requests = [
        RequestTiming(
            row["request_start_time"],
            row["time_to_first_token_ms"] / 1e3,
            row["info"]["timings"]["last_token_iteration"],
            row["prompt_tokens"],
            row["output_tokens"],
        )
        for row in rows
    ]
    ttft, itl, rate = (
        result["metrics"][name]["successful"]
        for name in ("time_to_first_token_ms", "inter_token_latency_ms", "output_tokens_per_second")
    )
    return Turn(requests, (ttft["median"], itl["median"], rate["mean"]))


def _write(load: Load, file: Path) -> None:
    rows = ({"prompt": text, "output_tokens_count": load.new_tokens} for text in load.texts)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def engine_environment(name: str) -> environment.Environment:
    env = environment.find(name)
    if env is None:
        sys.exit(f"the environment {name} is not built: run python -m bench envs build {name}")
    return env
