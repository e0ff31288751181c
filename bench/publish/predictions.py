"""Predictions as text and JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from bench.contract import wire
from bench.publish.tables.columns import DASH, GIB, format_value, quotable
from bench.publish.tables.model import Section
from bench.run.predict import CalibrationSet, Prediction

PREDICTED = (
    replace(quotable("total_bytes"), header="needs", unit="GiB", scale=1 / GIB),
    *map(quotable, ("ttft_s", "tpot_s", "output_tok_per_s")),
    replace(quotable("output_tok_per_s"), header="at most"),
)
_RATES = ("output_tok_per_s", "at_most_tok_per_s")
_HEADS = ("recipe", "engine", "fits?", *(column.named for column in PREDICTED), "by")


def sections(predictions: Sequence[Prediction]) -> tuple[list[Section], list[str]]:
    """A section per workload, and the reasons that its cells refer to by number."""
    reasons: dict[str, int] = {}
    result = []
    for workload in dict.fromkeys(p.cell.measurement for p in predictions):
        lines = tuple(_line(p, reasons) for p in predictions if p.cell.measurement == workload)
        result.append(Section(f"predicted, not measured: {workload}", _HEADS, lines))
    return result, [f"[{number}] {reason}" for reason, number in reasons.items()]


def caveats(measured: CalibrationSet, gpu: str) -> Iterator[str]:
    """Where the figures come from, and how far off they may be."""
    yield (
        f"Peaks of {gpu} by its data sheet. at most: nothing but reading the weights and the KV cache, and "
        "multiplying. by: whose measured overhead per layer and efficiency the other figures have."
    )
    if not measured.steps:
        yield "No cell with a roofline was measured yet: run a suite here to predict more than the bound."
        return
    yield f"From {len(measured.steps)} cells measured on {', '.join(measured.devices)}."
    for metric, error in (("TPOT", measured.step_error), ("TTFT", measured.prompt_error)):
        if error is not None:
            tail = f"at most {error.largest:.0%}" if error.p90 is None else f"nine in ten within {error.p90:.0%}"
            each = f"Error of {metric}, each of those cells predicted from the others"
            yield f"{each}: median {error.median:.0%}, {tail}."
    if not measured.on_gpu:
        yield (
            "No GPU was measured: overheads and efficiencies are a CPU's, the error is that of predicting "
            "CPU cells, and only fits and at most are to be relied on."
        )


def as_json(predictions: Sequence[Prediction], measured: CalibrationSet, gpu: str) -> dict[str, Any]:
    """The predictions and their calibration."""
    return {
        "gpu": gpu,
        "predicted": [{**wire.plain(p), **dict(zip(_RATES, _rates(p), strict=True))} for p in predictions],
        "measured_on": measured.devices,
        "cells": len(measured.steps),
        "tpot_error_fraction": measured.step_error and measured.step_error[:2],
        "ttft_error_fraction": measured.prompt_error and measured.prompt_error[:2],
    }


def _line(p: Prediction, reasons: dict[str, int]) -> tuple[str, ...]:
    names, need = (p.cell.recipe.name, p.cell.engine.title), p.need.total_bytes if p.need else None
    values = (need, p.ttft_s, p.tpot_s, *_rates(p))
    texts = map(format_value, PREDICTED, values)
    if p.reason:
        return (*names, f"no [{reasons.setdefault(p.reason, len(reasons) + 1)}]", *texts, DASH)
    return (*names, "yes", *texts, _by(p))


def _rates(p: Prediction) -> tuple[float | None, float | None]:
    return p.output_tok_per_s(), p.output_tok_per_s(least=True)


def _by(p: Prediction) -> str:
    """The cells that the overheads of steps come from, and those of prompts where they are others."""
    step, prompt = (f"{model.of} ({model.cells})" if model else "" for model in (p.law, p.prompt_law))
    differ = p.law and p.prompt_law and p.law.of != p.prompt_law.of
    return f"{step}; TTFT {prompt}" if differ else step or prompt or DASH
