"""Is a compressed model faster? By batch, against the unquantized one in that engine, and where it turns.

Weights that take fewer bytes are read faster, which pays while reading them is what a step waits for; a large
batch computes instead, and unpacking the weights costs then.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

from bench.measure.stats import Spread
from bench.publish.tables.columns import DASH, number
from bench.publish.tables.model import Row, Section

_KEY = "output_tok_per_s"
_SINGLE = 1.05
Batches = Mapping[int, Spread]  # batch -> the metric


def sections(rows: Sequence[Row]) -> list[Section]:
    """For each pair of prompt and new tokens that offline loads of several batches share, a section."""
    found = []
    whole = {row.engine: row for row in reversed(rows) if row.whole or row.baseline}
    whole |= {row.engine: row for row in rows if row.baseline}
    for lengths in dict.fromkeys(e.sizes[1:] for row in rows for e in row.workloads.values() if e.sizes):
        measured = [(row, _batches(row, lengths)) for row in rows]
        base = {engine: _batches(row, lengths) for engine, row in whole.items()}
        batches = sorted({batch for _, its in measured for batch in its})
        lines = [
            (row.recipe, row.engine, *_line(its, base[row.engine], batches))
            for row, its in measured
            if its and row.engine in base and row is not whole[row.engine]
        ]
        if len(batches) > 1 and lines:
            heads = ("recipe", "engine", *(f"batch {batch}" for batch in batches), "faster?")
            sizes = "p{}-n{}".format(*lengths)
            title = f"is it faster? output tok/s over the unquantized model's in that engine, {sizes}"
            found.append(Section(title, heads, tuple(lines)))
    return found


def verdict(mine: Batches, base: Batches) -> str:
    """In words: at which batches it is faster; rounds that overlap are no difference.

    The batch at which both are even is read off between two batches, on logarithmic scales.
    """
    shared = sorted(set(mine) & set(base))
    signs = {batch: _sign(mine[batch], base[batch]) for batch in shared}
    if len(shared) < 2:
        return DASH
    for word, sign in (("faster", 1), ("slower", -1), ("no difference", 0)):
        if set(signs.values()) == {sign}:
            return f"{word} at every batch"
    for low, high in pairwise(shared):
        before, after = _ratio(mine[low], base[low]), _ratio(mine[high], base[high])
        if signs[low] > 0 > signs[high]:
            share = math.log(before) / (math.log(before) - math.log(after))
            even = low * (high / low) ** share
            return f"up to about batch {even:.0f}"
    names = {1: "faster at", 0: "no difference at", -1: "slower at"}
    parts = [(names[s], [str(b) for b in shared if signs[b] == s]) for s in (1, 0, -1)]
    return "; ".join(f"{word} {', '.join(at)}" for word, at in parts if at)


def _batches(row: Row, lengths: tuple[int, int]) -> Batches:
    return {
        e.sizes[0]: e.figures[_KEY]
        for e in row.workloads.values()
        if e.sizes and e.sizes[1:] == lengths and _KEY in e.figures
    }


def _line(mine: Batches, base: Batches, batches: Sequence[int]) -> list[str]:
    cells = [number(_ratio(mine[b], base[b]), 3) if b in mine and b in base else DASH for b in batches]
    return [*cells, verdict(mine, base)]


def _ratio(mine: Spread, base: Spread) -> float:
    return mine.median / base.median


def _sign(mine: Spread, base: Spread) -> int:
    """1 where every round is faster than every round of the other, -1 where slower, else 0.

    Of single rounds, which say nothing of noise, a twentieth is no difference.
    """
    slack = _SINGLE if min(mine.n, base.n) < 2 else 1.0
    return int(mine.low > base.high * slack) - int(mine.high * slack < base.low)
