"""Contradictions in a record, reported before it is published, and the marks of figures that may mislead."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from bench.contract.record import RequestTrace, Result
from bench.contract.speculation import draft_of
from bench.contract.variation import coefficient_of_variation
from bench.contract.workload import Trace
from bench.measure import speculation
from bench.measure.bounds import SCORES, WATCHED, impossible
from bench.measure.latency import completed, e2el_s, itl_s, latency_metrics, osl, stamps, ttft_s
from bench.measure.memory import allocator_peak, widths_bytes
from bench.measure.online_load import measured
from bench.measure.stats import Spread

VARIES, BUSY, THROTTLED, ERRORS, NVML, ROUND = "varies", "busy", "throttled", "errors", "nvml", "round"
CLIENT, SHORT, REMOTE, DUMMY, ENERGY, WIDE = "client", "short", "remote", "dummy", "energy", "wide"
CALLS, EVENTS, IDEMPOTENT = "calls", "events", "idempotent"
OTHER_MODEL, OTHER_TOKENS = "other-model", "other-tokens"
FOREIGN, OTHER_TOOL = "foreign", "other-tool"
MARKS = {
    VARIES: "the coefficient of variation over rounds is above 5 %",
    BUSY: "the device was not idle and empty before a round",
    THROTTLED: "the GPU lowered its clocks for power or heat",
    ERRORS: "requests failed and are left out of every figure",
    NVML: "peak memory is NVML's process figure, CUDA context included: the engine reports no allocator peak",
    ROUND: "at least one round failed and is left out",
    CLIENT: "the load's own process was busy or late: the server may be faster than this",
    SHORT: "a window of requests was shorter than 10 s",
    DUMMY: "dummy weights of a real model's shape: speed, memory and energy mean something, tokens do not",
    WIDE: "the quantized weights take over 1.2 x their stored bytes once loaded: the engine unpacked them",
    REMOTE: "the server was not started here: what it runs, how and on which device is its owner's word",
    CALLS: "answers called functions and had no text: their tokens are the calls'",
    EVENTS: "the server counts no tokens and there is no tokenizer to: tokens/s, TPOT and ITL are of its events",
    OTHER_MODEL: "a checkpoint of another shape than the baseline's: it is compared with another model",
    OTHER_TOKENS: "its tokenizer is another one: nothing per token compares, bits per byte and tasks do",
    IDEMPOTENT: "stored in the types that its source was stored in: it loses nothing by that, and proves nothing",
    FOREIGN: "imported: this machine has not measured it",
    OTHER_TOOL: "figures of another tool, by its definitions: notes say where they are not this suite's",
    ENERGY: "the joules of a round do not hold, for the reasons in its record (energy_faults)",
}
CV_LIMIT = 0.05
WINDOW_S, CLIENT_CPU, CLIENT_LAG_S = 10.0, 0.8, 0.005
_WIDER = 1.2
_MOST = 0.5
_ROUNDING_S = 5e-6  # traces are kept to the microsecond


def check(result: Result, traces: Sequence[RequestTrace], baseline_bits: float | None) -> list[str]:
    """Sentences for what contradicts itself; `baseline_bits`: bits per weight, None for what is not to be quantized."""
    if result.status != "ok":
        return [] if result.reason else [f"a record with status {result.status} gives no reason"]
    traces = measured(traces, result.facts)
    problems = [problem for trace in traces if not trace.error for problem in _request(trace, result)]
    problems += [*_agreement(result, traces), *impossible(result), *speculation.faults(result)]
    if (bits := _by_name_only(result, baseline_bits)) is not None:
        problems.append(
            f"recipe {result.cell.recipe.name} quantizes by name only: {bits:.2f} bits per weight, "
            f"the baseline has {baseline_bits:.2f}"
        )
    return problems


def marks(results: Sequence[Result], figures: Mapping[str, Spread] | None = None) -> tuple[str, ...]:
    """Codes of MARKS for the rounds of one cell, sorted; `varies:tpot_s` names the metric.

    Codes that the rounds recorded themselves (`Result.marks`) are among them. A task's score does not depend on the
    clock: its time and memory do not count, and neither a busy device nor unpacked weights mark it. `figures`: the
    spread of each metric over the rounds that are ok, where it is known.
    """
    done = [r for r in results if r.status == "ok"]
    scores = any(r.cell.task is not None for r in done)
    codes = {m for r in done for m in r.marks}.union(*(load_marks(r.facts) for r in done))
    applies = {
        ROUND: bool(done) and any(r.status == "failed" for r in results),
        ERRORS: any(r.metrics.get("failed_requests", 0.0) > 0 for r in done),
        THROTTLED: any(r.facts.get("throttle_reasons") for r in done),
        NVML: any(
            r.cell.device.startswith("cuda") and "peak_memory_bytes" in r.metrics and allocator_peak(r.facts) is None
            for r in done
        ),
        ENERGY: any(r.metrics.get("energy_valid", 1.0) < 1 for r in done),
        WIDE: any(_unpacked(r) for r in done),
        IDEMPOTENT: any(_keeps_grid(r) for r in done),
    }
    codes |= {code for code, it_does in applies.items() if it_does}
    for key in (*SCORES, "kl_mean", "accuracy_fraction") if scores else WATCHED:
        if figures is None:
            cv = coefficient_of_variation([r.metrics[key] for r in done if key in r.metrics])
        else:
            cv = figures[key].cv if key in figures else math.nan
        if cv > CV_LIMIT:
            codes.add(f"{VARIES}:{key}")
    return tuple(sorted(codes - {BUSY, THROTTLED, NVML, WIDE} if scores else codes))


def load_marks(facts: Mapping[str, Any]) -> set[str]:
    """Codes of MARKS of a load over HTTP; a busy client or a failed request counts in any stage: it sets the next."""
    stages: Sequence[Mapping[str, Any]] = facts.get("stages", ())
    applies = {
        CLIENT: any(map(_client_bound, (facts, *stages))),
        ERRORS: any(stage["metrics"].get("failed_requests", 0.0) > 0 for stage in stages),
        SHORT: 0 < facts.get("window_s", 0.0) < WINDOW_S,
        REMOTE: bool(facts.get("remote")),
        CALLS: bool(facts.get("calls_only")),
        EVENTS: any(of.get("counted_by") == "events" for of in (facts, *stages)),
    }
    return {code for code, it_does in applies.items() if it_does}


def _request(trace: RequestTrace, result: Result) -> Iterator[str]:
    name = f"request {trace.request} of window {trace.window}"
    times = stamps(trace)
    yield from _wrong_lengths(name, trace, result)
    if not times:
        return
    if min(trace.due_s, trace.sent_s, *trace.token_s) < 0 or trace.sent_s < trace.due_s:
        yield f"{name} has a negative time, or was sent before it was due"
    if any(b < a for a, b in pairwise(trace.token_s)):
        yield f"{name} has events that go back in time"
    if times[0] <= trace.sent_s:
        yield f"{name} has its first token no later than it was sent"
    if abs(math.fsum(itl_s(trace)) - (e2el_s(trace) - ttft_s(trace))) > _ROUNDING_S:
        yield f"{name}: the sum of its ITL is not E2EL - TTFT"


def _wrong_lengths(name: str, trace: RequestTrace, result: Result) -> Iterator[str]:
    """Where every request has the same lengths, or an answer of its own a limit; else the client compares."""
    load, facts = result.cell.workload, result.facts
    if load is None or isinstance(load, Trace) or not (load.exact or load.prompts):
        return
    by_usage = facts.get("counted_by", "usage") == "usage"  # what events and tokenizers count is no exact length
    is_shorter = load.answers == "natural" and osl(trace) < load.new_tokens
    if osl(trace) != load.new_tokens and not is_shorter and facts.get("exact_length", True) and by_usage:
        yield f"{name} produced {osl(trace)} tokens, expected {load.new_tokens}"
    if load.exact and trace.prompt_tokens != load.whole_prompt and facts.get("prompts", "ids") in ("ids", "text"):
        yield f"{name} had a prompt of {trace.prompt_tokens} tokens, expected {load.whole_prompt}"


def _agreement(result: Result, traces: Sequence[RequestTrace]) -> Iterator[str]:
    """The recorded metrics are those the traces give: the same definition, the same requests."""
    if not completed(traces):
        return
    for key, value in latency_metrics(traces).items():
        recorded = result.metrics.get(key)
        if recorded is not None and not math.isclose(recorded, value, rel_tol=1e-3, abs_tol=_ROUNDING_S):
            yield f"{key} is recorded as {recorded:g}, its traces give {value:g}"


def _by_name_only(result: Result, baseline_bits: float | None) -> float | None:
    """The bits per weight if steps left the baseline's within 1 %, and the last one asks for none of 16 or 32 bits."""
    artifact = result.artifact
    if artifact is None or baseline_bits is None or not artifact.steps:
        return None
    wide = {"f16", "bf16", "f32", "fp16", "fp32", "float16", "bfloat16", "float32"}
    options = (str(v).lower() for s in artifact.steps[-1:] for k, v in s.options.items() if "dtype" not in k)
    bits = artifact.audit.bits_per_weight
    return bits if abs(bits - baseline_bits) <= 0.01 * baseline_bits and wide.isdisjoint(options) else None


def _client_bound(facts: Mapping[str, Any]) -> bool:
    """The client used most of its core, or its timers fired late."""
    cpu, lag = facts.get("client_cpu_fraction", 0.0), facts.get("client_lag_p99_s", 0.0)
    return bool(cpu > CLIENT_CPU or lag > CLIENT_LAG_S)


def _keeps_grid(result: Result) -> bool:
    """Whether most layers of the artifact are stored in the type that a quantized source stored them in."""
    return result.artifact is not None and result.artifact.facts.get("source_grid_fraction", 0.0) >= _MOST


def _unpacked(result: Result) -> bool:
    """Whether an engine unpacked what was quantized: what is not, it may convert to the type it computes in.

    That type taken off at its widest, so that a CPU's 32 bits for a 16-bit embedding are no such thing.
    """
    loaded, artifact = result.facts.get("weights_bytes"), result.artifact
    if artifact is None or loaded is None or not artifact.audit.quantized_fraction:
        return False
    if draft_of(result.cell.engine.options):  # whose weights a server counts too
        return False
    audit = artifact.audit
    whole = audit.linear_parameters * (1 - audit.quantized_fraction)
    rest = audit.parameters - audit.linear_parameters
    width = max(widths_bytes(result.receipts.get("compute_dtype", "")), default=4.0)
    stored = audit.linear_bytes - 2 * whole
    return stored > 0 and loaded - (rest + whole) * width > _WIDER * stored
