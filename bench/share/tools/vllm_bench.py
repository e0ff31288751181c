"""The result file of `vllm bench serve` (--save-result): one load over HTTP.

Its metrics by vllm/benchmarks/serve.py of vLLM 0.32. TTFT: first token - sent. TPOT: (latency - TTFT) / (tokens - 1),
as here. ITL: gaps between received chunks, as here. Times are in ms, but for `duration`, in s.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from bench.contract.workload import Closed, Open
from bench.share.tools.measurement import (
    Count,
    MalformedError,
    Measurement,
    Number,
    Text,
    load,
    percentiles,
    public_name,
    validated,
)

NAME = "vllm-bench"
NOTES: tuple[str, ...] = (
    (
        "vllm bench serve: tokens/s and requests/s are over the whole run, its start and end included, and no "
        "warm-up is taken off; this suite's are of a steady window"
    ),
    ("vllm bench serve: TTFT is from when a request was sent, at a rate too; this suite's is from when it was due"),
)
_LATENCIES = ("ttft", "tpot", "itl", "e2el")


@dataclass(frozen=True)
class _File:
    model_id: Text
    num_prompts: Count
    completed: Count
    duration: Number
    total_input_tokens: Count
    total_output_tokens: Count
    request_throughput: Number
    output_throughput: Number
    request_rate: Number | Literal["inf"]
    max_concurrency: Count | None = None
    request_goodput: Number | None = None
    failed: Count = 0
    burstiness: Number = 1.0
    date: Text = ""
    backend: Text = ""
    tokenizer_id: Text | None = None
    ramp_up_strategy: Text | None = None


def matches(data: Any) -> bool:
    return isinstance(data, dict) and {"median_ttft_ms", "num_prompts", "request_throughput"} <= data.keys()


def read(data: Any) -> list[Measurement]:
    """The one measurement of a file; MalformedError where no request was completed, or its rate rose."""
    its = validated(_File, data)
    if not its.completed:
        raise MalformedError("no request was completed")
    if its.ramp_up_strategy:
        raise MalformedError("its rate rose as it went (--ramp-up-strategy), and its figures are of no one load")
    its_load, notes = _load(its)
    latencies: dict[str, float] = {}
    counts = {"itl": its.total_output_tokens - its.completed}  # gaps
    for name in _LATENCIES:
        key = f"median_{name}_ms"
        if key in data:
            latencies[f"{name}_p50_s" if name == "itl" else f"{name}_s"] = validated(Number, data[key], key) / 1e3
        by_rank = {q: data[f"p{q}_{name}_ms"] for q in (90, 95, 99) if f"p{q}_{name}_ms" in data}
        tails, left_out = percentiles(name, by_rank, counts.get(name, its.completed))
        latencies |= tails
        notes += left_out
    metrics = {
        **{key: value for key, value in latencies.items() if value > 0},
        "failed_requests": float(its.failed),
        "measured_s": its.duration,
        "output_tok_per_s": its.output_throughput,
        "request_per_s": its.request_throughput,
        **({"goodput_per_s": its.request_goodput} if its.request_goodput is not None else {}),
    }
    facts = {"backend": its.backend, "tokenizer": public_name(its.tokenizer_id or ""), "completed": its.completed}
    return [
        Measurement(
            public_name(its.model_id),
            its_load,
            None,
            metrics,
            facts,
            tuple(notes),
            started=_started(its.date),
            duration_s=its.duration,
        )
    ]


def _load(its: _File) -> tuple[Closed | Open, list[str]]:
    """Closed where requests wait for answers, open at a rate."""
    prompts, answers = its.total_input_tokens / its.completed, its.total_output_tokens / its.completed
    sizes: dict[str, Any] = {"requests": its.num_prompts}
    sizes |= {"prompt_tokens": max(1, round(prompts)), "new_tokens": max(1, round(answers))}
    notes = []
    if not prompts.is_integer() or not answers.is_integer():
        notes.append("vllm bench serve: lengths varied, and the load's name has their means")
    if its.request_rate == "inf":
        return load(Closed, concurrency=its.max_concurrency or its.num_prompts, **sizes), notes
    if its.max_concurrency:
        notes.append(f"vllm bench serve: at most {its.max_concurrency} requests were in flight, whatever the rate")
    if its.request_rate <= 0 or its.burstiness <= 0:
        raise MalformedError("request_rate and burstiness: expected numbers above zero")
    gamma: dict[str, Any] = {} if its.burstiness == 1 else {"arrivals": "gamma", "burstiness": its.burstiness}
    return load(Open, rate_per_s=its.request_rate, **gamma, **sizes), notes


def _started(date: str) -> str:
    """ISO 8601 of 20261129-121314, a local time; "" for another text."""
    try:
        return datetime.strptime(date, "%Y%m%d-%H%M%S").isoformat()  # noqa: DTZ007  (the file names no zone)
    except ValueError:
        return ""
