"""The table without a shape: rows of device, suite, model, recipe, engine; an entry per task and load."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from bench.contract.record import Audit, Result
from bench.measure.sanity import MARKS
from bench.measure.stats import Spread

OTHER_ENGINE = "reference"
LEGEND = {**MARKS, OTHER_ENGINE: "the change is against the baseline on another engine: it has none on this one"}


@dataclass(frozen=True)
class CellSummary:
    """What one row has for one task or workload. `rounds` counts those the figures come from.

    `missing` was asked for and has not run; `unplanned` was never asked for. `change` is against the
    baseline: of a task a fraction and its interval, as its `compare` gives them; of a load how many times as
    fast its steps are. `figures`: metric -> spread over rounds, SI units. `metric`: which one the score is,
    where a task has several. `curve`: the figures at each level of a sweep or a search, in ascending order.
    `note`: what a reader must know of the load. `words`: what is known of it and is no number, by name.
    `sizes`: batch, prompt tokens and new tokens of an offline load. `kind`: of a task, its plugin.
    """

    status: Literal["ok", "failed", "unsupported", "missing", "unplanned"]
    reason: str = ""
    rounds: int = 0
    figures: Mapping[str, Spread] = field(default_factory=dict)
    change: Mapping[str, float] = field(default_factory=dict)
    marks: tuple[str, ...] = ()
    curve: tuple[Point, ...] = ()
    note: str = ""
    metric: str = ""
    sizes: tuple[int, int, int] | None = None
    words: Mapping[str, str] = field(default_factory=dict)
    kind: str = ""


@dataclass(frozen=True)
class Point:
    """One level of a sweep or a search (requests in flight, or per second), and what was measured there."""

    level: float
    figures: Mapping[str, Spread]


@dataclass(frozen=True)
class Row:
    """`tasks` and `workloads` have an entry for each of the table's titles.

    `made_s`: what all steps of the artifact took; 0 is not known. `whole`: its weights are the model's own.
    """

    device: str
    suite: str
    model: str
    recipe: str
    engine: str
    baseline: bool
    audit: Audit | None
    tasks: Mapping[str, CellSummary]
    workloads: Mapping[str, CellSummary]
    made_s: float = 0.0
    whole: bool = False

    def size(self, key: str) -> float | None:
        """A figure of the artifact itself, where it is known."""
        found = self.made_s if key == "made_s" else getattr(self.audit, key, None)
        return None if found is None or (key == "made_s" and not found) else float(found)


@dataclass(frozen=True)
class Table:
    """Rows in the order they are shown; the titles of tasks and workloads likewise. `notes` are sentences."""

    rows: tuple[Row, ...]
    tasks: tuple[str, ...]
    workloads: tuple[str, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Section:
    """A part of a page: `heads` and the cells of each line, as text; the first two columns are names.

    `below`: more of the section before it, as its memory. `best`: line and column of what is set in bold.
    """

    title: str
    heads: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]
    below: bool = False
    best: frozenset[tuple[int, int]] = frozenset()


def names(result: Result) -> tuple[str, str, str, str, str, str]:
    """Device, suite, model, recipe, engine, and load or task ("" for an artifact)."""
    cell = result.cell
    choice = (cell.model.display_name, cell.recipe.name, cell.engine.title)
    return (result.hardware.slug, result.suite, *choice, cell.measurement)
