"""Scored tokens by how many tokens of their window come before them, in bins of powers of two.

What a cache of keys and values, scaled rotary positions or a sliding window loses, it loses at depth, where a mean over
the whole window hides it. The first bin ends before 64 tokens: fewer are hard for any model, and too few to count.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from bench.contract.columns import Part
from eval.text.windows import Window

AXIS = "tokens before"
_FIRST = 64
Bin = Mapping[str, Any]


def bins(windows: Sequence[Window], values: Mapping[str, Sequence[Any]], context: int) -> list[dict[str, Any]]:
    """For each bin its `first` and `last` number of tokens before, and by window its tokens and sums of the `values`.

    `values`: by the name that the sums get, of each window an array with one per scored token. A bin without any
    scored token is left out.
    """
    edges = [1, *(_FIRST << k for k in range(context.bit_length()) if _FIRST << k < context), context]
    scored_bins = []
    for first, end in pairwise(edges):
        slices = [slice(max(first, w.first) - w.first, max(min(end, len(w.ids)) - w.first, 0)) for w in windows]
        counts = [len(range(*part.indices(w.scored))) for part, w in zip(slices, windows, strict=True)]
        if any(counts):
            sums = {
                name: [float(array[part].sum()) for part, array in zip(slices, arrays, strict=True)]
                for name, arrays in values.items()
            }
            scored_bins.append({"first": first, "last": end - 1, "window_tokens": counts, **sums})
    return scored_bins


def sums(its: Bin, key: str, other: Bin | None = None) -> tuple[list[float], list[int]]:
    """By window that has tokens in the bin: its sum of `key`, less that of the same window of `other`; its tokens."""
    bases = other[key] if other else [0.0] * len(its[key])
    changes = [value - base for value, base in zip(its[key], bases, strict=True)]
    pairs = [(change, tokens) for change, tokens in zip(changes, its["window_tokens"], strict=True) if tokens]
    return [change for change, _ in pairs], [tokens for _, tokens in pairs]


def part(its: Bin, metrics: Mapping[str, float]) -> Part:
    """A bin as a part of the items, with how many tokens it has; a curve has it in its middle."""
    first, last = its["first"], its["last"]
    label = f"{first}\N{EN DASH}{last}" if last > first else str(first)
    return Part({AXIS: label}, {"scored_tokens": float(sum(its["window_tokens"])), **metrics}, (first + last) / 2)
