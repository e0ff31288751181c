"""A plan as lines a person reads: one per cell, with what is recorded, what is to run, and what cannot."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Protocol

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


def lines(items: Sequence[Planned], todo: Sequence[Planned], unpaired: Sequence[Apart] = ()) -> Iterator[str]:
    """One line per cell in the suite's order, one per engine and format it does not load, the totals."""
    rounds = Counter(item.order for item in items)
    open_rounds = Counter(item.order for item in todo)
    cells = {item.order: item for item in items}
    width = max(len(item.cell.title) for item in cells.values())
    for order in sorted(cells):
        item, left = cells[order], open_rounds[order]
        if item.reason:
            state = f"unsupported: {item.reason}"
        elif not left:
            state = f"recorded, {rounds[order]} rounds"
        else:
            state = f"to run, {left} of {rounds[order]} rounds"
        yield f"{item.cell.title:<{width}}  {item.cell.device:<7} {state}"
    yield from _unpaired(unpaired)
    runnable = sum(1 for item in todo if not item.reason)
    against = sum(1 for item in cells.values() if item.reason)
    yield f"{len(cells)} cells, {len(items)} rounds: {runnable} to run, {against} cells unsupported"


def _unpaired(pairs: Sequence[Apart]) -> Iterator[str]:
    recipes: dict[tuple[str, str], list[str]] = defaultdict(list)
    for pair in pairs:
        recipes[pair.engine, pair.format].append(pair.recipe)
    for (engine, kind), names in recipes.items():
        yield f"not paired: {engine} does not load {kind} ({', '.join(names)})"
