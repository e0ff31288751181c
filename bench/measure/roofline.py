"""What a cell must read and compute, and how near the device's ceilings it came: MBU, MFU, the roofline.

The least that a decode step must do: read every weight once, but for an input embedding of which it looks up
a row, and the keys and values that each sequence attends to; two operations per weight and token, and four
per layer, head and dimension for each token attended to. A tied head is read, as any other. What an engine
does besides that (copies, dequantized weights, padding) is its loss, and counted in no numerator.

Facts read:

| key | meaning | from |
|---|---|---|
| architecture | layers, heads, dimensions | the artifact |
| ceiling | `vendor` and `measured`: bandwidth by working set, operations a second by dtype | the device |
| weights_bytes | weights as the engine holds them | Session.memory |
| unread_bytes | of those, what a step does not read; absent: unknown, of a tied head 0 | Session.memory |
| depth_tokens | context that was in the KV cache before the prompts; absent: none | the load |
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bench.contract import speculation, wire
from bench.contract.record import Architecture, RequestTrace, Result
from bench.contract.workload import Offline, Sweep, Workload
from bench.measure.latency import completed, osl
from bench.measure.memory import apart_width_bytes, widths_bytes

Bound = Literal["memory", "compute", "launch", "client", ""]
FRACTIONS = ("mbu_fraction", "mfu_fraction", "decode_mfu_fraction", "roofline_fraction")
NEAR = 0.4  # of the roofline: from here on the bytes or operations decide, below it what surrounds them
_ALIASES = {
    "f32": "float32",
    "f16": "float16",
    "bf16": "bfloat16",
    **dict.fromkeys(("u8", "i8", "uint8"), "int8"),
    **dict.fromkeys(("float8_e4m3fn", "float8_e5m2", "fp8_e4m3", "fp8_e5m2"), "fp8"),
}
_WITHOUT_TENSOR_CORES = {"tf32": "float32"}
_ONE_FIGURE = {"float16_acc16": "float16"}  # in a data sheet that does not distinguish the two
_DTYPES = ("float32", "tf32", "float16", "float16_acc16", "bfloat16", "fp8", "int8", "int4", "fp4")


@dataclass(frozen=True)
class Load:
    """`batch` sequences decode together, each of `prompt_tokens`, a step attending to `context`: means if they vary.

    `depth`: tokens of the context that were there before the prompt.
    """

    batch: float
    prompt_tokens: float
    context: float
    depth: float = 0.0


def kv_bytes(architecture: Architecture, bits: float, context: float) -> float:
    """Keys and values of one sequence that a step over `context` tokens reads.

    With a window no more than that many: a floor where only some of the layers have it.
    """
    return architecture.kv_elements * min(context, architecture.window or context) * bits / 8


def attention_flop(architecture: Architecture, context: float) -> float:
    """Operations for one token that attends to `context` tokens: scores, and the sum of values."""
    tokens = min(context, architecture.window or context)
    return 4 * architecture.layers * architecture.heads * architecture.head_dim * tokens


def token_flop(architecture: Architecture, linear_parameters: int, context: float) -> float:
    """Operations of one decode step for one sequence. `linear_parameters` has the head unless it is tied."""
    tied = architecture.vocab_size * architecture.hidden if architecture.tied_head else 0
    return 2 * (linear_parameters + tied) + attention_flop(architecture, context)


def prefill_flop(architecture: Architecture, linear_parameters: int, tokens: float, depth: float = 0.0) -> float:
    """Operations for a prompt after `depth` tokens: each token attends to those before it, the last has the head."""
    head = architecture.vocab_size * architecture.hidden
    body = linear_parameters - (0 if architecture.tied_head else head)
    window = architecture.window or depth + tokens
    attended = _attended(depth + tokens, window) - _attended(depth, window)
    return 2 * (body * tokens + head) + attention_flop(architecture, 1) * attended


def _attended(tokens: float, window: float) -> float:
    """Pairs of a token and one that it attends to, itself among them, of a text."""
    growing = min(tokens, window)
    return growing * (growing + 1) / 2 + (tokens - growing) * window


def bandwidth_for(ceilings: Mapping[str, Any], size: float) -> float | None:
    """The most bytes a second that a working set of `size` bytes can be read with.

    Of a measured ceiling the largest set that is no larger, since a smaller one is at least as fast; below
    all of them the smallest. Where a cache beats the vendor's figure, which is the memory's, the cache's.
    """
    rates = []
    for ceiling in filter(None, (ceilings.get("vendor"), ceilings.get("measured"))):
        sets = sorted((int(set_bytes), float(rate)) for set_bytes, rate in ceiling["bandwidth"].items())
        if sets:
            rates.append(next((rate for set_bytes, rate in reversed(sets) if set_bytes <= size), sets[0][1]))
    return max(rates, default=None)


def flop_for(ceilings: Mapping[str, Any], dtypes: Sequence[str]) -> float | None:
    """Operations a second: the vendor's figure, else the measured one; of several types the fastest.

    None where one of them has no figure: then nothing bounds it.
    """
    rates = [_peak(ceilings, dtype) for dtype in dtypes]
    known = [rate for rate in rates if rate is not None]
    return max(known) if known and len(known) == len(rates) else None


def _peak(ceilings: Mapping[str, Any], dtype: str) -> float | None:
    for source in ("vendor", "measured"):
        rates = (ceilings.get(source) or {}).get("flop_per_s", {})
        names = (dtype, _WITHOUT_TENSOR_CORES.get(dtype), _ONE_FIGURE.get(dtype) if source == "vendor" else None)
        if (name := next((n for n in names if n in rates), None)) is not None:
            return float(rates[name])
    return None


def product_dtypes(receipts: Mapping[str, str]) -> tuple[str, ...]:
    """What matrices are multiplied in: the receipt `product_dtype`, else every type `compute_dtype` names."""
    text = receipts.get("product_dtype") or receipts.get("compute_dtype", "")
    names = (_ALIASES.get(name, name) for name in re.findall(r"[a-z]+[a-z0-9_]*", text.lower()))
    return tuple(dict.fromkeys(name for name in names if name in _DTYPES))


def kv_bits(receipts: Mapping[str, str]) -> float | None:
    """Bits of one cached number, of several types the narrowest; None where the receipt does not say.

    Where keys have one type and values another, the mean of both.
    """
    if (mean := apart_width_bytes(receipts)) is not None:
        return 8 * mean
    return min((8 * width for width in widths_bytes(receipts.get("kv_dtype", ""))), default=None)


def roofline_metrics(result: Result, traces: Sequence[RequestTrace], metrics: Mapping[str, float]) -> dict[str, float]:
    """From a round's facts and its other metrics; a key is absent where something it needs is not known.

    `decode_step_bytes`, `decode_step_flop`: the least of a step. `mbu_fraction`: its bytes / TPOT /
    `ceiling_bytes_per_s`. `decode_mfu_fraction`: its operations / TPOT / `ceiling_flop_per_s`.
    `mfu_fraction`: operations of a batch's prompts / TTFT / the same. `roofline_s`: the least time of a step
    by both ceilings, `roofline_fraction`: that / TPOT.
    """
    workload, depth = result.cell.workload, float(result.facts.get("depth_tokens", 0))
    return _of_load(result, load_of(workload, traces, metrics, depth) if workload is not None else None, metrics)


def depth_stage_metrics(result: Result, stage: Mapping[str, Any]) -> dict[str, float]:
    """`roofline_s` of a stage of a sweep over the depth; {} of any other, and where something it needs is not known."""
    load = result.cell.workload
    if not isinstance(load, Sweep) or load.over != "depth":
        return {}
    metrics, depth = stage["metrics"], float(stage["level"])
    batch = max(1.0, metrics.get("output_tok_per_s", 0.0) * metrics.get("tpot_s", 0.0))
    at_depth = Load(batch, load.prompt_tokens, depth + load.prompt_tokens + load.new_tokens / 2, depth)
    return {key: value for key, value in _of_load(result, at_depth, metrics).items() if key == "roofline_s"}


def _of_load(result: Result, load: Load | None, metrics: Mapping[str, float]) -> dict[str, float]:
    facts, audit = result.facts, result.artifact.audit if result.artifact else None
    if speculation.method_of(result.cell.engine.options) != "off":  # a step is of several tokens then
        return {}
    ceilings, workload = facts.get("ceiling"), result.cell.workload
    if load is None or audit is None or not ceilings or "architecture" not in facts:
        return {}
    architecture = wire.build(Architecture, facts["architecture"])
    # By the audit, which counted the linear layers: a conversion may give the head a matrix of its own.
    architecture = dataclasses.replace(architecture, tied_head=audit.tied_head)
    tpot, parameters = metrics.get("tpot_s", 0.0), audit.linear_parameters
    peak = flop_for(ceilings, product_dtypes(result.receipts)) if parameters else None
    size = step_bytes(facts, result.receipts, architecture, load)
    bandwidth = None if size is None else bandwidth_for(ceilings, size)
    flop = load.batch * token_flop(architecture, parameters, load.context) if parameters else 0.0
    roofline = {} if size is None else {"decode_step_bytes": size}
    roofline |= {"decode_step_flop": flop} if flop else {}
    if peak is not None:
        roofline["ceiling_flop_per_s"] = peak
        if isinstance(workload, Offline) and not workload.prompts and metrics.get("ttft_s"):
            work = load.batch * prefill_flop(architecture, parameters, load.prompt_tokens, load.depth)
            roofline["mfu_fraction"] = work / metrics["ttft_s"] / peak
        roofline |= {"decode_mfu_fraction": flop / tpot / peak} if tpot else {}
    if size is not None and bandwidth:
        least_s = max(size / bandwidth, flop / peak if peak else 0.0)
        roofline |= {"ceiling_bytes_per_s": bandwidth, "roofline_s": least_s}
        roofline |= {"mbu_fraction": size / tpot / bandwidth, "roofline_fraction": least_s / tpot} if tpot else {}
    return roofline


def load_of(
    workload: Workload, traces: Sequence[RequestTrace], metrics: Mapping[str, float], depth: float = 0.0
) -> Load | None:
    """A static batch as the suite defines it; of other loads what decodes together, and the requests' means.

    What decodes together is output tokens a second x TPOT, one at the least: of those in flight many may wait.
    `depth`: tokens that were in the KV cache before each prompt.
    """
    if isinstance(workload, Offline) and not workload.prompts:
        context = depth + workload.prompt_tokens + workload.new_tokens / 2
        return Load(workload.batch, workload.prompt_tokens, context, depth)
    done, batch = completed(traces), metrics.get("output_tok_per_s", 0.0) * metrics.get("tpot_s", 0.0)
    tokens = sum(map(osl, done))
    if not tokens or not batch:
        return None
    prompt = sum(trace.prompt_tokens * osl(trace) for trace in done) / tokens  # a long answer counts longer
    attended = sum((trace.prompt_tokens + osl(trace) / 2) * osl(trace) for trace in done) / tokens
    return Load(max(1.0, batch), prompt, depth + attended, depth)


def step_bytes(
    facts: Mapping[str, Any], receipts: Mapping[str, str], architecture: Architecture, load: Load
) -> float | None:
    """The least that a decode step reads; None where weights, what is unread of them, or KV are not known."""
    weights, bits = facts.get("weights_bytes"), kv_bits(receipts)
    unread = facts.get("unread_bytes", 0 if architecture.tied_head else None)
    if not weights or unread is None or bits is None:
        return None
    return float(weights - unread) + load.batch * kv_bytes(architecture, bits, load.context)


def bound(figures: Mapping[str, float], *, client: bool) -> Bound:
    """What a step's time went to: the memory's speed, arithmetic, or what surrounds both.

    `launch`: less than NEAR of the time is explained by either ceiling, so the rest is the overhead of
    framework and kernels. Empty where a ceiling is missing that might explain it.
    """
    if client:
        return "client"
    fraction, reading = figures.get("roofline_fraction"), figures.get("mbu_fraction")
    if fraction is None or reading is None:
        return ""
    computing = figures.get("decode_mfu_fraction")
    if fraction >= NEAR:
        return "memory" if reading >= (computing or 0.0) else "compute"
    return "" if computing is None else "launch"
