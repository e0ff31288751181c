"""Limits on a comparison, as `tpot_s > 1.05`: which cells of B break one beyond their noise, and which cannot tell."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal

from bench.contract import plugins
from bench.contract.errors import UserError
from bench.measure.ratio import over_cells
from bench.publish.compare.compare import BETTER, WORSE, CellKey, Comparison, MetricComparison
from bench.publish.tables.columns import DASH, LEVEL, number
from bench.publish.tables.model import Section

Verdict = Literal["broken", "cannot tell", "kept"]
_EXPRESSION = re.compile(r"\s*([\w*?\[\]@.-]+)\s*(<|>)\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)\s*", re.IGNORECASE)
_FRACTION = "_fraction"
_LEAST_CELLS = 5  # loads that have a metric: of so many it is judged over all of them too
_FEW = "too few rounds for a p-value"


@dataclass(frozen=True)
class Gate:
    """A metric's name or glob, and the values of B that break the gate: those above the limit, or those below it.

    The limit is a ratio B/A, but for what tables give in % (accuracy, same top-1, bandwidth): there it is the
    difference B - A, as a fraction.
    """

    text: str
    metric: str
    above: bool
    limit: float

    def is_beyond(self, value: float) -> bool:
        """Whether the value is beyond the limit."""
        return value > self.limit if self.above else value < self.limit


@dataclass(frozen=True)
class Judgement:
    """A gate in one cell: B/A or B - A, and whether that breaks the gate beyond the noise of both."""

    gate: Gate
    cell: CellKey
    metric: str
    value: float | None
    verdict: Verdict
    why: str


def parse(text: str) -> Gate:
    """UserError for what is no gate."""
    parts = _EXPRESSION.fullmatch(text)
    if parts is None:
        raise UserError(f"'{text}' is no gate: write METRIC > NUMBER or METRIC < NUMBER, as 'tpot_s > 1.05'")
    metric, sign, limit = parts.groups()
    gate = Gate(text.strip(), metric, sign == ">", float(limit))
    if gate.limit < 0 and gate.above:
        raise UserError(f"'{text}' is a gate that all breaks which is not worse: a limit below zero goes with <")
    return gate


def judge(gates: Sequence[Gate], comparison: Comparison) -> list[Judgement]:
    """Every gate in every cell that has its metric; UserError for a gate whose metric no compared cell has.

    A gate is broken where the figure is beyond its limit and its difference from A is beyond noise, by the comparison's
    own test (Holm's correction over the cells of the metric) or exact. Where it is beyond the limit and the rounds do
    not show a difference, they cannot tell. Of five loads or more a metric is judged over all of them too, by Student's
    t over their ratios: what each shows too faintly they may show together.

    To break a gate that two runs of one thing should keep, either test has to err to one side, at 2.5 % each: at most
    one comparison in twenty, whatever the limit.
    """
    judgements: list[Judgement] = []
    for gate in gates:
        metrics = [metric for metric in comparison.metrics if _has(gate, metric)]
        if not metrics:
            known = tuple(sorted({metric.column.key for metric in comparison.metrics}))
            raise UserError(plugins.unknown("metric of the compared cells", gate.metric, known))
        judgements += (_judged(gate, metric) for metric in metrics)
        judgements += _over_loads(gate, metrics)
    return judgements


def section(judgements: Sequence[Judgement]) -> Section:
    """Each gate with its broken and doubtful cells; one that is kept in all of them has one line."""
    return Section("gates", ("gate", "cell", "B", "verdict", "why"), tuple(_lines(judgements)))


def summary(judgements: Sequence[Judgement]) -> str:
    counts = Counter(judgement.verdict for judgement in judgements)
    words: dict[Verdict, str] = {"broken": "broken", "cannot tell": "of which the rounds cannot tell", "kept": "kept"}
    listed = ", ".join(f"{counts[verdict]} {phrase}" for verdict, phrase in words.items() if counts[verdict])
    return f"gates: {listed}"


def is_broken(judgements: Sequence[Judgement]) -> bool:
    return any(judgement.verdict == "broken" for judgement in judgements)


def as_json(judgements: Sequence[Judgement]) -> list[dict[str, Any]]:
    return [
        {
            "gate": judgement.gate.text,
            **{name: value for name, value in vars(judgement.cell).items() if value},
            "metric": judgement.metric,
            "value": judgement.value,
            "verdict": judgement.verdict,
            "why": judgement.why,
        }
        for judgement in judgements
    ]


def _has(gate: Gate, metric: MetricComparison) -> bool:
    key = metric.column.key
    return any(fnmatchcase(name, gate.metric) for name in (key, key.removesuffix(_FRACTION)))


def _judged(gate: Gate, metric: MetricComparison) -> Judgement:
    value = _value(metric)
    if value is None:
        return Judgement(gate, metric.cell, metric.column.key, None, "cannot tell", f"no ratio: {metric.ratio.rule}")
    if not gate.is_beyond(value):
        return Judgement(gate, metric.cell, metric.column.key, value, "kept", "")
    if metric.verdict in (BETTER, WORSE):
        why = metric.ratio.rule if metric.p_holm is None else f"p {number(metric.p_holm, 2)}, {metric.ratio.rule}"
        return Judgement(gate, metric.cell, metric.column.key, value, "broken", why)
    why = _FEW if metric.p_holm is None else f"within noise: p {number(metric.p_holm, 2)}"
    return Judgement(gate, metric.cell, metric.column.key, value, "cannot tell", why)


def _over_loads(gate: Gate, metrics: Sequence[MetricComparison]) -> Iterator[Judgement]:
    """The gate on the mean over all loads, of each metric that enough of them have."""
    for key in dict.fromkeys(metric.column.key for metric in metrics):
        its = [metric for metric in metrics if metric.column.key == key and metric.cell.kind == "load"]
        ratios = [m.ratio.value for m in its if m.ratio.value is not None and m.ratio.value > 0]
        if len(ratios) < _LEAST_CELLS or its[0].column.unit == "%":
            continue
        mean = over_cells(ratios)
        cell = CellKey("", "", "", "", "", f"mean of {len(ratios)} loads", "load")
        value = mean.value or 1.0
        if not gate.is_beyond(value):
            yield Judgement(gate, cell, key, value, "kept", "")
        elif mean.p is not None and mean.p < LEVEL:
            yield Judgement(gate, cell, key, value, "broken", f"p {number(mean.p, 2)}, {mean.rule}")
        else:
            why = _FEW if mean.p is None else f"within noise: p {number(mean.p, 2)}"
            yield Judgement(gate, cell, key, value, "cannot tell", why)


def _value(metric: MetricComparison) -> float | None:
    """B - A of a fraction, else B/A."""
    if metric.column.unit != "%":
        return metric.ratio.value
    return metric.difference.change if metric.difference else metric.candidate - metric.baseline


def _lines(judgements: Sequence[Judgement]) -> Iterator[tuple[str, ...]]:
    for gate in dict.fromkeys(judgement.gate for judgement in judgements):
        its = [judgement for judgement in judgements if judgement.gate == gate]
        for judgement in its:
            if judgement.verdict != "kept":
                value = DASH if judgement.value is None else number(judgement.value, 4)
                yield (gate.text, _path(judgement.cell), value, judgement.verdict, judgement.why)
        if count := sum(judgement.verdict == "kept" for judgement in its):
            yield (gate.text, f"{count} {'cell' if count == 1 else 'cells'}", "", "kept", "")


def _path(cell: CellKey) -> str:
    return "/".join(filter(None, (cell.device, cell.suite, cell.model, cell.recipe, cell.engine, cell.what)))
