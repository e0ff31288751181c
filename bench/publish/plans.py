"""A plan as text: a line per cell, with the rounds recorded and to run, or the reason why it cannot."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bench.run.planned import PlannedRound, SkippedPair

_Status = Literal["recorded", "to run", "unsupported"]


@dataclass(frozen=True)
class PlannedCell:
    """A cell of a plan: its rounds, how many of these are to run, or the reason why none can."""

    title: str
    device: str
    status: _Status
    reason: str
    rounds: int
    to_run: int


def cells(items: Sequence[PlannedRound], todo: Sequence[PlannedRound]) -> list[PlannedCell]:
    """Each cell once, in the suite's order. `todo` are the rounds without a record, refusals included."""
    rounds = Counter(item.order for item in items)
    to_run = Counter(item.order for item in todo if not item.reason)
    result = []
    for order, item in sorted({item.order: item for item in items}.items()):
        status: _Status = "unsupported" if item.reason else "to run" if to_run[order] else "recorded"
        result.append(PlannedCell(item.cell.title, item.cell.device, status, item.reason, rounds[order], to_run[order]))
    return result


def lines(
    items: Sequence[PlannedRound],
    todo: Sequence[PlannedRound],
    skipped: Sequence[SkippedPair] = (),
    preparation: str = "",
) -> Iterator[str]:
    """One line per cell in the suite's order, one per engine and format it does not load, the totals.

    `preparation`: what a run makes of the model first, as a sentence.
    """
    planned = cells(items, todo)
    width = max(len(cell.title) for cell in planned)
    for cell in planned:
        state = {
            "unsupported": f"unsupported: {cell.reason}",
            "recorded": f"recorded, {cell.rounds} rounds",
            "to run": f"to run, {cell.to_run} of {cell.rounds} rounds",
        }[cell.status]
        yield f"{cell.title:<{width}}  {cell.device:<7} {state}"
    recipes: dict[tuple[str, str], list[str]] = defaultdict(list)
    for pair in skipped:
        recipes[pair.engine, pair.format].append(pair.recipe)
    for (engine, artifact_format), names in recipes.items():
        yield f"not paired: {engine} does not load {artifact_format} ({', '.join(names)})"
    if preparation:
        yield preparation
    to_run, unsupported = sum(cell.to_run for cell in planned), sum(bool(cell.reason) for cell in planned)
    yield f"{len(planned)} cells, {len(items)} rounds: {to_run} to run, {unsupported} cells unsupported"


def as_json(
    suite: str,
    items: Sequence[PlannedRound],
    todo: Sequence[PlannedRound],
    skipped: Sequence[SkippedPair] = (),
    preparation: str = "",
) -> dict[str, Any]:
    """The cells, the pairs that are none, and what a run makes of the model first, where it does."""
    extra = {"preparation": preparation} if preparation else {}
    return {"suite": suite, "cells": cells(items, todo), "not_paired": skipped, **extra}
