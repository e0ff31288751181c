"""Is a compressed model faster? By batch, against the unquantized one in the same engine.

Smaller weights are read faster, which pays off while a step is bound by memory; a large batch is bound by
compute, and unpacking the weights costs time there.
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
_NAMES = {1: "faster", 0: "no difference", -1: "slower"}
Batches = Mapping[int, Spread]  # batch -> the metric


def sections(rows: Sequence[Row]) -> list[Section]:
    """For each pair of prompt and new tokens that offline loads of several batches share, a section."""
    result = []
    references = {row.engine: row for row in reversed(rows) if row.whole or row.baseline}
    references |= {row.engine: row for row in rows if row.baseline}
    measured = [(row, _by_lengths(row)) for row in rows]
    bases = {engine: _by_lengths(row) for engine, row in references.items()}
    for lengths in dict.fromkeys(e.sizes[1:] for row in rows for e in row.workloads.values() if e.sizes):
        batches = sorted({batch for _, speeds in measured for batch in speeds.get(lengths, ())})
        if len(batches) < 2:
            continue
        lines = []
        for row, by_lengths in measured:
            speeds = by_lengths.get(lengths, {})
            if speeds and row.engine in references and row is not references[row.engine]:
                base = bases[row.engine].get(lengths, {})
                ratios = (number(_ratio(speeds[b], base[b]), 3) if b in speeds and b in base else DASH for b in batches)
                lines.append((row.recipe, row.engine, *ratios, verdict(speeds, base)))
        if lines:
            heads = ("recipe", "engine", *(f"batch {batch}" for batch in batches), "faster?")
            title = "is it faster? output tok/s over the unquantized model's in that engine, p{}-n{}".format(*lengths)
            result.append(Section(title, heads, tuple(lines)))
    return result


def verdict(speeds: Batches, base: Batches) -> str:
    """At which batches it is faster; overlapping rounds count as no difference.

    Where it turns from faster to slower, the even batch is interpolated on logarithmic scales.
    """
    shared = sorted(set(speeds) & set(base))
    signs = {batch: _sign(speeds[batch], base[batch]) for batch in shared}
    if len(shared) < 2:
        return DASH
    for low, high in pairwise(shared):
        if signs[low] > 0 > signs[high]:
            before, after = (math.log(_ratio(speeds[batch], base[batch])) for batch in (low, high))
            return f"up to about batch {low * (high / low) ** (before / (before - after)):.0f}"
    by_sign = {sign: [str(batch) for batch in shared if signs[batch] == sign] for sign in _NAMES}
    if len(shared) in map(len, by_sign.values()):
        return f"{_NAMES[signs[shared[0]]]} at every batch"
    return "; ".join(f"{_NAMES[sign]} at {', '.join(batches)}" for sign, batches in by_sign.items() if batches)


def _by_lengths(row: Row) -> dict[tuple[int, int], dict[int, Spread]]:
    """By prompt and new tokens, the metric by batch."""
    speeds: dict[tuple[int, int], dict[int, Spread]] = {}
    for load in row.workloads.values():
        if load.sizes and _KEY in load.figures:
            batch, *_ = load.sizes
            speeds.setdefault(load.sizes[1:], {})[batch] = load.figures[_KEY]
    return speeds


def _ratio(speed: Spread, base: Spread) -> float:
    return speed.median / base.median


def _sign(speed: Spread, base: Spread) -> int:
    """1 if every round is faster than every round of the baseline, -1 if slower, else 0.

    Between single rounds, whose noise is unknown, less than 5 % is no difference.
    """
    slack = _SINGLE if min(speed.n, base.n) < 2 else 1.0
    return int(speed.low > base.high * slack) - int(speed.high * slack < base.low)
