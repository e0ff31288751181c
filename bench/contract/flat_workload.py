"""A workload as fingerprints of records have it."""

from __future__ import annotations

from dataclasses import fields, make_dataclass
from functools import cache
from typing import Any

from bench.contract.workload import KINDS, Workload

_ALL_FIELDS = (
    *("batch", "prompt_tokens", "new_tokens", "repeats", "kind", "name", "concurrency", "rate_per_s", "arrivals"),
    *("burstiness", "requests", "window_s", "at_most_s", "lengths", "spread", "turns", "think_s", "path", "speed"),
    *("over", "most", "slo"),
)


def flat(load: Workload) -> Any:
    """The fields of every kind at their defaults, in the fixed order that fingerprints of records depend on.

    Younger ones follow where they are not at their defaults.
    """
    defaults = {each.name: each.default for kind in KINDS.values() for each in fields(kind)}
    younger = (each for each in fields(load) if each.metadata.get("omitted_at_default"))
    more = tuple(each.name for each in younger if getattr(load, each.name) != each.default)
    values = {**defaults, **vars(load)}
    return _flat_type(more)(**{name: values[name] for name in (*_ALL_FIELDS, *more)})


@cache
def _flat_type(more: tuple[str, ...]) -> Any:
    return make_dataclass("_Flat", (*_ALL_FIELDS, *more), frozen=True)
