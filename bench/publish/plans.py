"""A plan as lines a person reads: one per cell, with what is recorded, what is to run, and what cannot."""

from __future__ import annotations

from collections import Counter
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


def lines(items: Sequence[Planned], todo: Sequence[Planned]) -> Iterator[str]:
    """One line per cell in the suite's order, then the totals."""
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
    runnable = sum(1 for item in todo if not item.reason)
    against = sum(1 for item in cells.values() if item.reason)
    yield f"{len(cells)} cells, {len(items)} rounds: {runnable} to run, {against} cells unsupported"
