"""A plan as lines a person reads: one per cell, with what is recorded, what is to run, and what cannot."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from bench.contract import wire
from bench.contract.spec import Cell


class Planned(Protocol):
    """What is read of a planned round."""

    @property
    def cell(self) -> Cell: ...
    @property
    def order(self) -> int: ...
    @property
    def reason(self) -> str: ...


class Apart(Protocol):
    """What is read of a recipe and an engine that make no cell."""

    @property
    def engine(self) -> str: ...
    @property
    def format(self) -> str: ...
    @property
    def recipe(self) -> str: ...


@dataclass(frozen=True)
class PlannedCell:
    """A cell of a plan: its rounds, how many of these are to run, or the reason why none can."""

    title: str
    device: str
    status: Literal["recorded", "to run", "unsupported"]
    reason: str
    rounds: int
    to_run: int


def cells(items: Sequence[Planned], todo: Sequence[Planned]) -> list[PlannedCell]:
    """Each cell once, in the suite's order. `todo` are the rounds without a record, refusals included."""
    rounds = Counter(item.order for item in items)
    ahead = Counter(item.order for item in todo if not item.reason)
    found = []
    for order, item in sorted({item.order: item for item in items}.items()):
        status: Literal["recorded", "to run", "unsupported"] = "to run" if ahead[order] else "recorded"
        status = "unsupported" if item.reason else status
        counts = (rounds[order], ahead[order])
        found.append(PlannedCell(item.cell.title, item.cell.device, status, item.reason, *counts))
    return found


def lines(items: Sequence[Planned], todo: Sequence[Planned], unpaired: Sequence[Apart] = ()) -> Iterator[str]:
    """One line per cell in the suite's order, one per engine and format it does not load, the totals."""
    found = cells(items, todo)
    width = max(len(cell.title) for cell in found)
    for cell in found:
        state = {
            "unsupported": f"unsupported: {cell.reason}",
            "recorded": f"recorded, {cell.rounds} rounds",
            "to run": f"to run, {cell.to_run} of {cell.rounds} rounds",
        }[cell.status]
        yield f"{cell.title:<{width}}  {cell.device:<7} {state}"
    yield from _unpaired(unpaired)
    to_run = sum(cell.to_run for cell in found)
    against = sum(1 for cell in found if cell.reason)
    yield f"{len(found)} cells, {len(items)} rounds: {to_run} to run, {against} cells unsupported"


def as_json(suite: str, items: Sequence[Planned], todo: Sequence[Planned], unpaired: Sequence[Apart] = ()) -> str:
    """The same for a program."""
    apart = [{"engine": each.engine, "format": each.format, "recipe": each.recipe} for each in unpaired]
    return wire.dumps({"suite": suite, "cells": cells(items, todo), "not_paired": apart}, indent=1)


def _unpaired(pairs: Sequence[Apart]) -> Iterator[str]:
    recipes: dict[tuple[str, str], list[str]] = defaultdict(list)
    for pair in pairs:
        recipes[pair.engine, pair.format].append(pair.recipe)
    for (engine, kind), names in recipes.items():
        yield f"not paired: {engine} does not load {kind} ({', '.join(names)})"
