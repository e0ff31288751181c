"""What figures can be at all: checked before a record is written, and whenever one is read.

A record is a text file: what was edited into it by hand, or damaged, must not be published.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

from bench.contract.record import RequestTrace, Result
from bench.measure.roofline import FRACTIONS

SCORES = ("perplexity",)
WATCHED = (
    "ttft_s",
    "tpot_s",
    "e2el_s",
    "output_tok_per_s",
    "prefill_tok_per_s",
    "decode_tok_per_s",
    "peak_memory_bytes",
)
_DIVERGENCE = "kl_"  # what the names of divergences begin with: zero at the least, up to rounding
_KL_MIN = -1e-6
_AGREEMENT = "top1_agreement"  # and of shares of tokens
_MAY_BE_NEGATIVE = ("energy_net", _DIVERGENCE)  # what the names begin with: idle power is measured apart
_ROUNDED = 1 + 1e-5  # records keep six digits


def impossible(result: Result) -> list[str]:
    """Sentences for the figures of an ok record that cannot be, whatever was measured."""
    if result.status != "ok":
        return []
    return [*_metrics(result), *_measured(result), *_beyond(result.metrics), *_artifact(result)]


def is_ordered(trace: RequestTrace) -> bool:
    """Whether a request's tokens came one after the other, after it was sent, and none bore fewer than none."""
    times, tokens = trace.token_s, trace.event_tokens
    if len(times) != len(tokens) or not all(map(math.isfinite, (trace.due_s, trace.sent_s, *times))):
        return False
    if trace.answer_s is not None and not (times and times[0] <= trace.answer_s <= times[-1]):
        return False
    return (
        0 <= trace.reasoning_tokens <= sum(tokens)
        and (not times or trace.sent_s <= times[0])
        and all(a <= b for a, b in pairwise(times))
        and min(tokens, default=0) >= 0
    )


def _metrics(result: Result) -> Iterator[str]:
    metrics = result.metrics
    for key, value in metrics.items():
        if not isinstance(value, int | float) or not math.isfinite(value):
            yield f"{key} is not a finite number"
        elif value <= 0 and key in (*WATCHED, *SCORES):
            yield f"{key} is {value:g}, and must be positive"
        elif key.startswith(_DIVERGENCE) and value < _KL_MIN:
            yield f"{key} is {value:g}, and a KL divergence cannot be negative"
        elif (key.startswith(_AGREEMENT) or key == "accuracy_fraction") and not 0 <= value <= 1:
            yield f"{key} is {value:g}, and must be within 0 .. 1"
        elif key == "perplexity" and value < 1:
            yield f"perplexity is {value:g}, and cannot be below 1"
    peak, weights = metrics.get("peak_memory_bytes"), result.facts.get("weights_bytes")
    if weights is None and result.artifact is not None:
        weights = result.artifact.audit.weight_bytes
    if peak is not None and isinstance(weights, int | float) and peak < weights:
        yield f"peak memory of {peak:.0f} bytes is less than the {weights:.0f} bytes of weights"
    yield from _energy(metrics)
    ttft, e2el = metrics.get("ttft_s"), metrics.get("e2el_s")
    if ttft is not None and e2el is not None and ttft > e2el:
        yield f"the median TTFT {ttft:g} s is longer than the median E2EL {e2el:g} s"


def _measured(result: Result) -> Iterator[str]:
    """Of a load: nothing below zero, and no time longer than the round; in every stage of it."""
    if result.cell.workload is None:
        return
    for number, metrics in enumerate([result.metrics, *_stages(result.facts)]):
        where = f" of load {number}" if number else ""
        for key, value in metrics.items():
            if not isinstance(value, int | float) or not math.isfinite(value):
                yield f"{key}{where} is not a finite number"
            elif value < 0 and not key.startswith(_MAY_BE_NEGATIVE) and (number or key not in WATCHED):
                yield f"{key}{where} is {value:g}, and cannot be negative"
            elif _is_time(key) and 0 < result.duration_s * _ROUNDED < value:
                yield f"{key}{where} is {value:g} s, longer than the whole round of {result.duration_s:g} s"


def _stages(facts: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The metrics of each load of a sweep or a search."""
    stages = facts.get("stages")
    for stage in stages if isinstance(stages, list | tuple) else ():
        metrics = stage.get("metrics") if isinstance(stage, Mapping) else None
        yield metrics if isinstance(metrics, Mapping) else {"its metrics": math.nan}


def _is_time(key: str) -> bool:
    return key.endswith("_s") and not key.endswith("_per_s")


def _artifact(result: Result) -> Iterator[str]:
    """Sizes and times of what was built are not below zero, shares are within 0 .. 1."""
    artifact = result.artifact
    if artifact is None:
        return
    audit = dataclasses.asdict(artifact.audit)
    making = {
        "make_s": artifact.make_s,
        "make_total_s": artifact.make_total_s,
        "make_peak_bytes": artifact.make_peak_bytes,
    }
    for key, value in {**audit, **making}.items():
        if isinstance(value, int | float):
            if not math.isfinite(value) or value < 0:
                yield f"{key} of the artifact is {value:g}, and cannot be negative or infinite"
            elif key.endswith("_fraction") and value > 1:
                yield f"{key} of the artifact is {value:g}, and must be within 0 .. 1"


def _energy(metrics: Mapping[str, float]) -> Iterator[str]:
    """Joules that are marked as valid are positive; net ones are never above gross ones."""
    for kind in ("gross", "net") if metrics.get("energy_valid") else ():
        if (joules := metrics.get(f"energy_{kind}_j", 1.0)) <= 0:
            yield f"energy_{kind}_j is marked as valid, but is {joules:g}: it must be positive"
    gross, net = metrics.get("energy_gross_j", math.inf), metrics.get("energy_net_j", -math.inf)
    if net > gross:
        yield f"the net energy of {net:g} J is more than the gross {gross:g} J"


def _beyond(metrics: Mapping[str, Any]) -> Iterator[str]:
    for key in FRACTIONS:
        if metrics.get(key, 0.0) > 1:
            yield (
                f"{key} is {metrics[key]:.3g}, more than the device can do: its ceiling was measured while "
                "it was busy (delete ceilings in the cache, and ceiling.json), or bytes or operations are "
                "miscounted"
            )
