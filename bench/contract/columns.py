"""How tables, charts and documents present a metric. Records have seconds, bytes and fractions: units change here.

A task declares its own columns in COLUMNS; bench/publish/tables/columns.py has those of artifacts and loads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Flag, auto
from typing import Literal


class Group(Flag):
    """Where a metric appears. A column may be in several groups; a task's without any is in its table."""

    NONE = 0
    SIZE = auto()  # of an artifact, exact
    MORE_SIZE = auto()  # of an artifact, where there is something to show
    SERVING = auto()  # of a load that one caller waits for
    ONLINE = auto()  # of requests over HTTP
    SEARCH = auto()  # of a search for the rate within the SLO
    TAIL = auto()  # latency in the spreadsheet of any load over HTTP
    CURVE = auto()  # of each level of a sweep
    MEMORY = auto()  # sections of their own below a load's
    ROOFLINE = auto()
    SPECULATION = auto()
    ENERGY = auto()
    PRICE = auto()  # what a user's prices make of a load
    ANSWER = auto()  # of a correct answer of a task at a load
    MONEY = auto()  # shown behind the currency of its cell
    CONTENT = auto()  # of loads whose prompts are more than their lengths: shown where measured
    CATEGORY = auto()  # of the prompts of one category
    CSV_ONLY = auto()  # no column of a table: in its spreadsheet, and for documents to quote
    X_AXIS = auto()  # of a chart against quality
    DISTRIBUTION = auto()  # of a chart of quantiles
    SCALING = auto()  # of a chart against load
    CHANGE = auto()  # no metric but its change against the baseline, printed after it
    RELATIVE = auto()  # a change that is a fraction of the baseline's metric, not a difference
    PAIRED = auto()  # a task's score on items, in a section of its own with the paired test of its change
    LOG_AXIS = auto()  # a chart draws it in factors
    PER_TOKEN = auto()  # means nothing beside a figure over another tokenizer's tokens
    ANY_TOKENS = auto()  # compares across tokenizers: shown where there are several
    SEEDS = auto()  # a metric over the replicates of a recipe
    HEAT_MAP = auto()  # of a task's parts with two axes, drawn as a field of colours


@dataclass(frozen=True)
class Column:
    """`key` is a metric, a change against the baseline, or a field of the audit; it is displayed times `scale`.

    `digits` are significant ones; whole numbers keep all of theirs. {title} in a header is the task's name, or
    its metric's. `interval`: the keys of the ends of its 95 % interval. `change`: of a task's metric, how two
    artifacts differ in it by `compare_to_baseline` or `compare_by_reference`. `floor`: the key of the metric's
    noise floor per token. `text_unit`: the unit in a sentence, where a table leaves it out. `axis_min`: the lower
    end of a chart's axis in the displayed unit; smaller values lie on it.
    """

    key: str
    header: str
    unit: str = ""
    scale: float = 1.0
    digits: int = 3
    better: Literal["lower", "higher"] | None = None
    groups: Group = Group.NONE
    interval: tuple[str, str] | None = None
    change: Column | None = None
    floor: str = ""
    text_unit: str = ""
    axis_min: float = 0.0

    @property
    def word(self) -> str:
        """The metric's own name."""
        return self.header.partition(" ")[0]

    @property
    def named(self) -> str:
        """The header with its unit, as a sentence has it."""
        return f"{self.header} {self.unit}".strip()

    def heading(self, title: str = "") -> str:
        """The header with its unit and an arrow to the better side."""
        arrow = {"lower": " ↓", "higher": " ↑", None: ""}[self.better]
        return f"{self.header.format(title=title).strip()}{f' {self.unit}' if self.unit else ''}{arrow}"


@dataclass(frozen=True)
class Part:
    """Metrics of some of a task's items. `labels`: by axis what sets them apart, as {"length": "512", "depth": "25 %"}.

    The last axis is the one that tables have across. `at`: where the part is on it, where a curve is drawn over it.
    """

    labels: Mapping[str, str]
    metrics: Mapping[str, float]
    at: float = 0.0


def csv_only(*keys: str, groups: Group = Group.NONE) -> tuple[Column, ...]:
    """Metrics that only a spreadsheet and a quotation show, as stored."""
    return tuple(Column(key, key, groups=groups | Group.CSV_ONLY) for key in keys)


# What `compare_to_baseline` returns of a task whose items are paired (eval/stats/paired.py): the change in points,
# its test, and the test adjusted over the recipes of a table, which the table adds.
TESTED, ADJUSTED = "mcnemar_p", "mcnemar_p_holm"
SCORE_CHANGE = Column(
    "score_change",
    "vs baseline, points",
    better="higher",
    groups=Group.CHANGE,
    interval=("score_change_low", "score_change_high"),
)
ACCURACY = Column(
    "accuracy_fraction",
    "{title}",
    "%",
    100.0,
    better="higher",
    groups=Group.PAIRED,
    interval=("accuracy_low_fraction", "accuracy_high_fraction"),
    change=SCORE_CHANGE,
)
# One digit more than other figures, to distinguish 99.91 from 99.99.
RECOVERY = Column("score_recovery_fraction", "recovery", "%", 100.0, 4, better="higher", groups=Group.CSV_ONLY)
PAIRED_CHANGES = (
    SCORE_CHANGE,
    RECOVERY,
    *csv_only("flips_worse", "flips_better", TESTED),
    Column(ADJUSTED, "p", digits=2, groups=Group.CSV_ONLY),
)
