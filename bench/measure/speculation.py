"""What speculation gained, from an engine's counters: facts["speculation"] as `bench.contract.speculation` has it.

- `acceptance_length`: 1 + accepted tokens / drafts, as vLLM ("mean acceptance length"), llama.cpp ("mean len") and
  EAGLE count it: the tokens of a pass that had a draft to check, its own among them.
- `acceptance_rate`: accepted / proposed tokens.
- `tokens_per_pass`: generated tokens / passes of the model, those without a draft and prefill included: Spec-Bench's
  "mean accepted tokens". No engine can gain more than this by speculation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bench.contract.record import RequestTrace, Result
from bench.contract.speculation import method_of
from bench.measure.latency import completed, osl, stamps

FACT = "speculation"
_AT_LEAST_ONE = ("acceptance_length", "tokens_per_pass")


def per_pass(traces: Sequence[RequestTrace]) -> dict[str, float]:
    """`tokens_per_pass` of requests alone, prefill included; nothing where none is completed."""
    done = completed(traces)
    return {"tokens_per_pass": sum(map(osl, done)) / sum(map(passes, done))} if done else {}


def passes(trace: RequestTrace) -> int:
    """How often the model ran for a request: once for each event, or for each token it did not accept from a draft."""
    return osl(trace) - trace.accepted_tokens if trace.accepted_tokens else len(stamps(trace))


def speculation_metrics(traces: Sequence[RequestTrace], facts: Mapping[str, Any]) -> dict[str, float]:
    """Metrics of a round and its measured requests; {} where nothing was counted.

    A ratio is absent where nothing was proposed.
    """
    counts = facts.get(FACT) or {}
    if not counts:
        return {}
    drafts, proposed, accepted = (float(counts.get(key) or 0) for key in ("drafts", "draft_tokens", "accepted_tokens"))
    metrics = {"drafts": drafts, **per_pass(traces)}
    if drafts:
        metrics["acceptance_length"] = 1 + accepted / drafts
    if proposed:
        metrics["acceptance_rate"] = accepted / proposed
    return metrics


def faults(result: Result) -> Iterator[str]:
    """Sentences for speculation that did not take place, or was miscounted."""
    method, metrics = method_of(result.cell.engine.options), result.metrics
    if method == "off" or result.cell.workload is None:
        return
    if "drafts" not in metrics:
        yield "speculation was asked for, and the engine counted none of it"
    elif method != "ngram" and not metrics["drafts"]:
        yield f"speculation by {method} was asked for, and the engine drafted nothing"
    if metrics.get("acceptance_rate", 0.0) > 1 or min(metrics.get(key, 1.0) for key in _AT_LEAST_ONE) < 1:
        yield "more tokens were accepted than were drafted, or fewer than none"


def distribution(histogram: Sequence[float]) -> str:
    """Of how many drafts no token was accepted, one, two, …: "0: 61 %, 1: 12 %, 2: 27 %"."""
    total = sum(histogram) or 1
    return ", ".join(f"{n}: {100 * count / total:.0f} %" for n, count in enumerate(histogram))
