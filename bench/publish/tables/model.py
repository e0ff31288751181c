"""A table before it is laid out: rows of device, suite, model, recipe, engine; an entry per task and load."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from bench.contract.columns import Part
from bench.contract.record import Audit, Result
from bench.contract.wire import OMITTED_AT_DEFAULT
from bench.measure.sanity import MARKS
from bench.measure.seeds import SeedSpread
from bench.measure.stats import Spread

OTHER_ENGINE = "reference"
NO_GAIN = "no-gain"
ROUNDED_CACHE = "rounded cache"  # a text of a cell whose keys or values are kept in fewer than 16 bits
LEGEND = {
    **MARKS,
    OTHER_ENGINE: "the change is against the baseline on another engine: it has none on this one",
    NO_GAIN: "calibrated, and yet worse than the same grid or zeros without data: see first_token_weight",
}


@dataclass(frozen=True)
class CellSummary:
    """What one row has for one task or workload; `rounds` counts those that ran.

    A `missing` cell is planned and has not run, an `unplanned` one is not part of the suite. `figures`: metric ->
    spread over rounds, SI units. `change`: against the baseline, of a task as its comparison returns it, of a load
    the speedup of its steps. `metric`: the name of the score if the task has several. `curve`: the levels of a
    sweep or a search, ascending. `note`: a caveat for the reader. `words`: text values by name. `sizes`: batch,
    prompt tokens and new tokens of an offline load. `kind`: the plugin of a task; `parts`: metrics of parts of its
    items, with their changes against the baseline. `categories`: the figures of a load of real text by the category of
    its prompts; `answers`: what a correct answer takes at a load, by task. `seeds`: metrics and changes of a recipe
    with replicates, over all of them.
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
    parts: tuple[Part, ...] = field(default=(), metadata=OMITTED_AT_DEFAULT)
    categories: tuple[Category, ...] = field(default=(), metadata=OMITTED_AT_DEFAULT)
    answers: tuple[Category, ...] = field(default=(), metadata=OMITTED_AT_DEFAULT)
    seeds: Mapping[str, SeedSpread] = field(default_factory=dict, metadata=OMITTED_AT_DEFAULT)


@dataclass(frozen=True)
class Category:
    """The prompts of one category, or the correct answers of one task, and their figures over rounds."""

    name: str
    figures: Mapping[str, Spread]


@dataclass(frozen=True)
class Point:
    """One level of a sweep or a search (requests in flight, or per second), and its figures."""

    level: float
    figures: Mapping[str, Spread]


@dataclass(frozen=True)
class Row:
    """`tasks` and `workloads` have an entry for each of the table's titles.

    `source_type`: what the model was quantized to before anything was done, "" for plain floats.
    `made_s`: the time of all steps of the artifact, 0 if unknown; at most that, where not `made_alone`.
    `made_peak_bytes`: the most host memory its last step took, 0 if unknown. `whole`: its weights are not quantized.
    `checkpoint`: where it is from, if somebody else made it. `replicate_of`: the recipe that it is a replicate of.
    `predicted_kl`: of mixed types, by which they were chosen.
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
    made_peak_bytes: int = 0
    made_alone: bool = True
    whole: bool = False
    checkpoint: str = field(default="", metadata=OMITTED_AT_DEFAULT)
    source_type: str = ""
    replicate_of: str = field(default="", metadata=OMITTED_AT_DEFAULT)
    predicted_kl: float | None = field(default=None, metadata=OMITTED_AT_DEFAULT)

    def size(self, key: str) -> float | None:
        """A figure of the artifact itself, None if unknown, or known as a bound only."""
        if key == "made_peak_bytes":
            value: float | None = self.made_peak_bytes or None
        elif key == "made_s":
            value = (self.made_s if self.made_alone else None) or None
        elif key == "predicted_kl":
            value = self.predicted_kl
        else:
            value = getattr(self.audit, key, None)
        return None if value is None else float(value)

    def at_most(self, key: str) -> float | None:
        """The bound of a figure that is not known better."""
        return self.made_s or None if key == "made_s" and not self.made_alone else None


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

    `below`: continues the section before it, e.g. with its memory. `best`: line and column of each bold cell.
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
