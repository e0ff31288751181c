"""Predictions as text, apart from every table of what was measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Protocol

from bench.contract import wire
from bench.contract.columns import Column
from bench.contract.spec import Cell
from bench.publish.tables.columns import DASH, GIB, number, quotable
from bench.publish.tables.model import Section


class Need(Protocol):
    """What is read of the memory that a cell needs."""

    @property
    def total_bytes(self) -> int: ...


class Law(Protocol):
    """What is read of the law that times were predicted by."""

    @property
    def of(self) -> str: ...
    @property
    def cells(self) -> int: ...


class Predicted(Protocol):
    """What is read of a prediction."""

    @property
    def cell(self) -> Cell: ...
    @property
    def need(self) -> Need | None: ...
    @property
    def reason(self) -> str: ...
    @property
    def ttft_s(self) -> float | None: ...
    @property
    def tpot_s(self) -> float | None: ...
    @property
    def law(self) -> Law | None: ...
    @property
    def prompt_law(self) -> Law | None: ...
    def output_tok_per_s(self, *, least: bool = False) -> float | None: ...


class Measured(Protocol):
    """What is read of the cells that were predicted from."""

    @property
    def devices(self) -> tuple[str, ...]: ...
    @property
    def on_gpu(self) -> bool: ...
    @property
    def steps(self) -> Sequence[Any]: ...
    @property
    def step_error(self) -> tuple[float, float] | None: ...
    @property
    def prompt_error(self) -> tuple[float, float] | None: ...


PREDICTED = (
    replace(quotable("total_bytes"), header="needs", unit="GiB", scale=1 / GIB),
    *map(quotable, ("ttft_s", "tpot_s", "output_tok_per_s")),
    replace(quotable("output_tok_per_s"), header="at most"),
)
_HEADS = ("recipe", "engine", "fits?", *(column.named for column in PREDICTED), "by")


def sections(predictions: Sequence[Predicted]) -> tuple[list[Section], list[str]]:
    """A section per workload, and the reasons that its cells refer to by number."""
    reasons: dict[str, int] = {}
    found = []
    for what in dict.fromkeys(p.cell.measurement for p in predictions):
        lines = tuple(_line(p, reasons) for p in predictions if p.cell.measurement == what)
        found.append(Section(f"predicted, not measured: {what}", _HEADS, lines))
    return found, [f"[{number_}] {reason}" for reason, number_ in reasons.items()]


def said(measured: Measured, gpu: str) -> Iterator[str]:
    """What a reader must know of where the figures come from, and how far off they may be."""
    yield (
        f"Peaks of {gpu} by its data sheet. at most: nothing but reading the weights and the KV cache, and "
        "multiplying. by: whose measured overhead per layer and efficiency the other figures have."
    )
    if not measured.steps:
        yield "Nothing was measured with a roofline yet: run a suite here, and there is more than the bound."
        return
    yield f"From {len(measured.steps)} cells measured on {', '.join(measured.devices)}."
    for word, found in (("TPOT", measured.step_error), ("TTFT", measured.prompt_error)):
        if found is not None:
            yield (
                f"Error of {word}, each of those cells predicted from the others: median {found[0]:.0%}, "
                f"nine in ten within {found[1]:.0%}."
            )
    if not measured.on_gpu:
        yield (
            "No GPU was measured: overheads and efficiencies are a CPU's, the error is that of predicting "
            "CPU cells, and only fits and at most are to be relied on."
        )


def as_json(predictions: Sequence[Predicted], measured: Measured, gpu: str) -> str:
    """Everything, for a program."""
    plain = {
        "gpu": gpu,
        "predicted": [_plain(p) for p in predictions],
        "measured_on": measured.devices,
        "cells": len(measured.steps),
        "tpot_error_fraction": measured.step_error,
        "ttft_error_fraction": measured.prompt_error,
    }
    return wire.dumps(plain, indent=1) + "\n"


def _line(p: Predicted, reasons: dict[str, int]) -> tuple[str, ...]:
    names, need = (p.cell.recipe.name, p.cell.engine.title), p.need.total_bytes if p.need else None
    rates = [p.output_tok_per_s(least=least) for least in (False, True)]
    shown = [_shown(*pair) for pair in zip(PREDICTED, (need, p.ttft_s, p.tpot_s, *rates), strict=True)]
    if p.reason:
        note = reasons.setdefault(p.reason, len(reasons) + 1)
        return (*names, f"no [{note}]", *shown, DASH)
    return (*names, "yes", *shown, _by(p))


def _by(p: Predicted) -> str:
    """Whose laws the times are by: of the steps, and of the prompts where those are others' cells."""
    step, prompt = (f"{law.of} ({law.cells})" if law else "" for law in (p.law, p.prompt_law))
    apart = bool(p.law and p.prompt_law and p.law.of != p.prompt_law.of)
    return f"{step}; TTFT {prompt}" if apart else step or prompt or DASH


def _shown(column: Column, value: float | None) -> str:
    return DASH if value is None else number(value * column.scale, column.digits)


def _plain(p: Predicted) -> dict[str, Any]:
    found: dict[str, Any] = wire.plain(p)
    return {**found, "output_tok_per_s": p.output_tok_per_s(), "at_most_tok_per_s": p.output_tok_per_s(least=True)}
