"""Metrics of recorded rounds computed anew from their facts and traces, after a definition changed.

What was measured stays as it is. Traces are kept to the microsecond and facts to six digits, so a metric is only
replaced where it moves by more than that rounding.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from bench.contract import plugins, wire
from bench.contract.record import Result
from bench.contract.workload import Online
from bench.foreign import is_selected
from bench.measure import online_load
from bench.run import metrics
from bench.store import Store

_ROUNDING = 1e-4  # relative, of a metric that is computed from rounded traces

Changes = dict[str, tuple[float, float]]  # old and new value of each metric that moved


def recompute(store: Store, names: Sequence[str], device: str = "") -> Iterator[Changes]:
    """Rewrite the records in which a metric of one of the `names` (globs) differs, and give what moved in each.

    Only metrics that a record has are replaced, in the stages of a sweep or search too. `device`: a glob; imported
    records are left as they are unless it names them. UserError where traces are damaged.
    """
    for result in store.all():
        if result.status != "ok" or not is_selected(result.hardware.slug, device):
            continue
        path = store.path(result)
        record = json.loads(path.read_text(encoding="utf-8"))
        changes: Changes = {}
        for recorded, figures in zip(_recorded(record), _computed(result, store), strict=True):
            changes |= _replace(recorded, figures, names)
        if changes:
            wire.write(path, wire.dumps(record, indent=1) + "\n")
            yield changes


def summary(records: Sequence[Changes]) -> list[dict[str, Any]]:
    """By metric: how many records it moved in, and by what share of itself at the most; null from zero."""
    moved: dict[str, list[float]] = {}
    for changes in records:
        for name, (old, new) in changes.items():
            moved.setdefault(name, []).append(abs(new / old - 1) if old else math.inf)
    largest = {name: max(shares) for name, shares in sorted(moved.items())}
    return [
        {"metric": name, "records": len(moved[name]), "change_max_fraction": share if math.isfinite(share) else None}
        for name, share in largest.items()
    ]


def _recorded(record: dict[str, Any]) -> list[dict[str, float]]:
    return [record["metrics"], *(stage["metrics"] for stage in record["facts"].get("stages", ()))]


def _computed(result: Result, store: Store) -> Iterator[Mapping[str, float]]:
    """The metrics of the record, then those of each stage."""
    load, traces = result.cell.workload, store.traces(store.path(result))
    task = plugins.load(plugins.TASKS, result.cell.task.kind) if result.cell.task else None
    yield metrics.metrics(result, traces, task)
    if isinstance(load, Online):
        for k, stage in enumerate(result.facts.get("stages", ())):
            yield online_load.online_metrics(online_load.stage(traces, k), stage, load)


def _replace(recorded: dict[str, float], computed: Mapping[str, float], names: Sequence[str]) -> Changes:
    """Put what is named and differs into `recorded`."""
    changes = {
        name: (old, wire.rounded(computed[name]))
        for name, old in recorded.items()
        if name in computed
        and any(fnmatchcase(name, pattern) for pattern in names)
        and not math.isclose(old, computed[name], rel_tol=_ROUNDING)
    }
    recorded.update({name: new for name, (_, new) in changes.items()})
    return changes
