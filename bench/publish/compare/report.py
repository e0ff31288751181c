"""A comparison as a person reads it: totals above, each cell below, then what to be wary of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import groupby
from typing import Any

from bench.contract import outside
from bench.contract.columns import Group
from bench.contract.errors import UserError
from bench.measure.ratio import EQUAL, SINGLE, WELCH, ZERO
from bench.measure.sanity import MARKS
from bench.publish.compare import gates
from bench.publish.compare.compare import FIELDS, VERDICTS, CellKey, Comparison, MetricComparison, PartDifference
from bench.publish.compare.differences import differences
from bench.publish.compare.paired import EXACT, MCNEMAR, OTHER, UNPAIRED, WINDOWS
from bench.publish.compare.selectors import AXES, ENGINE, MODEL, RECIPE, Selection
from bench.publish.tables import render
from bench.publish.tables.columns import DASH, number
from bench.publish.tables.model import Section, names
from bench.publish.tables.parts import change_text

RULES = {
    WELCH: "ratio of geometric means over rounds; interval and p by Welch's t on logarithms",
    SINGLE: "one of the two has one round: no interval and no p, since its noise is not known",
    EQUAL: "the rounds of each are all equal: there is no noise to make an interval or a p of",
    ZERO: "a figure is zero: no ratio",
    EXACT: "bits and bytes on disk, the same in every run",
    WINDOWS: "paired by windows of the text, or by answers; interval and p by Student's t",
    MCNEMAR: "paired by items; interval of the change by bootstrap, p by McNemar's exact test",
    UNPAIRED: "the task has no score for each item: no interval and no p",
    OTHER: "over other items, against another reference, or by another version of the task: not comparable",
}
_HOLM = "p has Holm's correction over the cells of one figure, intervals (95 %) have none"
_SEEDS = (
    "seeds: of recipes with replicates, p and interval are the larger of those by items and by Welch's t over seeds; "
    "a calibrated recipe without any is taken to vary as the other"
)
_LEAST_P = 1e-9  # below it the approximation of the tails means nothing
_LISTED = 5
_WIDE = 96  # columns, below which there is no room for the rules
_CUT = "intervals are left out where the terminal is too narrow: --json has them"
_NAMES = FIELDS[:-1]


def sections(comparison: Comparison) -> list[Section]:
    """First the totals; then for artifacts, each task and each load the metrics of its cells."""
    totals = [
        (t.heading, _counts(t.verdicts), DASH if t.ratio is None else number(t.ratio, 4), str(t.verdicts.total()))
        for t in comparison.totals
    ]
    heads = ("figure", "B is", "B/A", "cells")
    result = [Section("over all cells: geometric mean of B/A", heads, tuple(totals))] if totals else []
    varying = _varying(comparison)
    cell_heads = ("cell", "figure", "A", "B", "B/A", "p", "verdict", "by")
    for (_, what), group in groupby(comparison.metrics, key=lambda m: (m.cell.kind, m.cell.what)):
        result.append(Section(what or "size", cell_heads, tuple(_line(metric, varying) for metric in group)))
        result += _parts([part for part in comparison.parts if part.cell.what == what], varying)
    return result


def _parts(parts: Sequence[PartDifference], varying: set[str]) -> Iterator[Section]:
    """Of one task a section for each metric: B - A over each part of the items, the last axis across."""
    for change in dict.fromkeys(part.change for part in parts):
        its = [part for part in parts if part.change == change]
        *first, last = its[0].part.labels
        lines: dict[tuple[str, ...], dict[str, str]] = {}
        for one in its:
            *labels, label = one.part.labels.values()
            text = change_text(change, one.kind, one.part)
            lines.setdefault((_label(one.cell, varying), *labels), {})[label] = text
        heads = dict.fromkeys(label for line in lines.values() for label in line)
        metric = its[0].metric
        unit = "%" if Group.RELATIVE in change.groups else metric.unit and f"{metric.unit} points"
        name = " ".join(filter(None, (metric.header.format(title="").strip() or metric.key, unit)))
        body = tuple((*names, *(line.get(head, DASH) for head in heads)) for names, line in lines.items())
        yield Section(f"{its[0].cell.what}: {name}, B against A, by {last}", ("cell", *first, *heads), body, below=True)


def page(comparison: Comparison, columns: int, judgements: Sequence[gates.Judgement] = ()) -> str:
    """All of it as plain text of at most `columns` columns, what the gates say last."""
    parts = sections(comparison)
    if columns < _WIDE:  # without the rules, which are explained below
        parts = [*parts[:1], *(section if section.below else _without_rules(section) for section in parts[1:])]
    fitting = [render.fitting(section, columns) for section in parts]
    footer = [*_footer(comparison), *([_CUT] if fitting != parts else [])]
    head, below = (render.wrapped(lines, columns) for lines in (_head(comparison), footer))
    judged = render.text([gates.section(judgements)], columns) if judgements else ""
    end = render.wrapped([gates.summary(judgements)], columns) if judgements else ""
    return "\n".join(filter(None, (head, render.text(fitting, columns), below, judged, end)))


def markdown(comparison: Comparison, judgements: Sequence[gates.Judgement] = ()) -> str:
    """All of it for a pull request's comment: what the gates say first, each cell folded away below the totals."""
    totals, *cells = sections(comparison) or [Section("", (), ())]
    blocks = ["  \n".join(map(outside.markdown_text, _head(comparison)))]
    if judgements:
        blocks += [f"**{gates.summary(judgements)}**", _table(gates.section(judgements))]
    if totals.heads:
        blocks += [f"**{totals.title}**", _table(totals)]
    if cells:
        inner = [block for cell in cells for block in (f"**{outside.markdown_text(cell.title)}**", _table(cell))]
        blocks += ["<details><summary>every cell</summary>", *inner, "</details>"]
    blocks.append("  \n".join(map(outside.markdown_text, _footer(comparison))))
    return "\n\n".join(filter(None, blocks)) + "\n"


def _table(section: Section) -> str:
    return "\n".join(render.piped(section))


def _without_rules(section: Section) -> Section:
    return replace(section, heads=section.heads[:-1], lines=tuple(line[:-1] for line in section.lines))


def as_json(comparison: Comparison) -> dict[str, Any]:
    """Everything, for a program, in stored units."""
    a, b = comparison.baseline, comparison.candidate
    return {
        **{key: {"kind": s.kind, "word": s.name, "name": s.label} for key, s in (("a", a), ("b", b))},
        "totals": [
            {"metric": t.column.key, "ratio": t.ratio, "cells": t.verdicts.total(), "verdicts": t.verdicts}
            for t in comparison.totals
        ],
        "figures": [_plain(metric) for metric in comparison.metrics],
        "parts": [_plain_part(part) for part in comparison.parts],
        "only_a": [{**asdict(cell), "other": reason} for cell, reason in comparison.baseline_only.items()],
        "only_b": [{**asdict(cell), "other": reason} for cell, reason in comparison.candidate_only.items()],
        "same_records": [asdict(cell) for cell in comparison.same],
        "in_several_suites": [asdict(cell) for cell in comparison.several],
        "differences": differences(comparison.pairs, AXES[a.kind]),
        "rules": RULES,
    }


def require_common_cells(comparison: Comparison) -> None:
    """UserError where no cell is in both: why, and what to write instead."""
    if not comparison.metrics and not comparison.same:
        raise UserError(_nothing_common(comparison))


def _head(comparison: Comparison) -> list[str]:
    """What is A and what is B, and what is the same in every cell."""
    cells, varying = [m.cell for m in comparison.metrics], _varying(comparison)
    fixed = [
        f"{name} {value}"
        for name in _NAMES
        if name not in varying and (value := next(filter(None, (getattr(cell, name) for cell in cells)), ""))
    ]
    count = len({cell for cell in cells if cell.kind != "size"})
    return [
        f"A: {comparison.baseline.label}",
        f"B: {comparison.candidate.label}",
        ": ".join(filter(None, (f"{_cells(count)} compared", ", ".join(fixed)))),
    ]


def _footer(comparison: Comparison) -> list[str]:
    """The rules, what only one of the two has, marks, and what else is not the same."""
    metrics = comparison.metrics
    lines = ["A, B: geometric means over rounds; B/A with its 95 % interval, or that of the change"] if metrics else []
    lines += [f"{rule}: {RULES[rule]}" for rule in dict.fromkeys(metric.ratio.rule for metric in metrics)]
    lines += [_SEEDS] if any(metric.seeds != (1, 1) for metric in metrics) else []
    lines += [_HOLM] if any(metric.p_holm is not None for metric in metrics) else []
    lines += [f"{mark}: {MARKS[mark]} ({_cells(count)})" for mark, count in sorted(_marks(metrics).items())]
    lines += _left_out(comparison)
    lines += [_nothing_common(comparison)] if metrics and not comparison.pairs and not comparison.same else []
    other = differences(comparison.pairs, AXES[comparison.baseline.kind])
    return [*lines, *(["What else is not the same, A / B:"] if other else []), *other]


def _nothing_common(comparison: Comparison) -> str:
    a, b = comparison.baseline, comparison.candidate
    for selection in (a, b):
        if not selection.records:
            return f"no records of the {selection.label}; loosen --suite, --device, --only, --engine, --recipe"
        measured = [r for r in selection.records if r.cell.measurement]
        if measured and not any(r.status == "ok" for r in measured):
            return f"no cell of the {selection.label} ran; the last is {measured[-1].status}: {measured[-1].reason}"
    if comparison.several:
        suites = ", ".join(sorted({r.suite for selection in (a, b) for r in selection.records}))
        return f"cells of one name are in several suites: choose with --suite, of {suites}"
    ignored = {*AXES[a.kind], *(("suite",) if a.kind == MODEL else ())}
    matched = [field for field in FIELDS if field not in ignored]
    for field in matched:
        ours, others = (_names(selection, field) for selection in (a, b))
        if ours and others and not set(ours) & set(others):
            plural = "loads and tasks" if field == "what" else f"{field}s"
            text = f"no common cell: the {plural} of {a.name} are {_listed(ours)}; those of {b.name} {_listed(others)}"
            return text + (_pair_hint(a, b, ours, others) if field in (RECIPE, ENGINE) else "")
    return f"no common cell: what {a.name} and {b.name} ran differs in {', '.join(matched)}"


def _pair_hint(a: Selection, b: Selection, ours: Sequence[str], others: Sequence[str]) -> str:
    """Recipes that one engine alone can load are compared across engines as pairs."""
    one, other = ("baseline" if "baseline" in its else its[0] for its in (ours, others))
    if a.kind == ENGINE:
        return f"; compare across both, as {one}@{a.name} {other}@{b.name}"
    return f"; compare across both, as {a.name}@{one} {b.name}@{other}" if a.kind == RECIPE else ""


def _names(selection: Selection, field: str) -> list[str]:
    ran = [r for r in selection.records if r.status == "ok" and r.cell.measurement]
    return sorted({names(r)[FIELDS.index(field)] for r in ran})


def _varying(comparison: Comparison) -> set[str]:
    """The fields that are not the same in all cells; an artifact has no engine."""
    cells = [metric.cell for metric in comparison.metrics]
    return {name for name in _NAMES if len({value for cell in cells if (value := getattr(cell, name))}) > 1}


def _line(metric: MetricComparison, varying: set[str]) -> tuple[str, ...]:
    column, label = metric.column, _label(metric.cell, varying)
    a, b = (number(value * column.scale, column.digits) for value in (metric.baseline, metric.candidate))
    rule = metric.ratio.rule
    rule = f"{rule} {metric.rounds[0]}+{metric.rounds[1]}" if rule == WELCH else rule
    rule = f"{rule}, seeds {metric.seeds[0]}+{metric.seeds[1]}" if metric.seeds != (1, 1) else rule
    return (label, metric.heading, a, b, _ratio(metric), _p(metric.p_holm), metric.verdict, rule)


def _label(cell: CellKey, varying: set[str]) -> str:
    """Where all cells are of one device, suite, recipe and so on, a name there has to be."""
    alone = "artifact" if cell.kind == "size" else cell.engine or cell.recipe or cell.model
    return " / ".join(filter(None, (getattr(cell, name) for name in _NAMES if name in varying))) or alone


def _ratio(metric: MetricComparison) -> str:
    """The ratio with its interval; where a task tells the difference itself, that one's."""
    ratio, difference, column = metric.ratio, metric.difference, metric.column
    text = DASH if ratio.value is None else number(ratio.value, 4)
    if ratio.low is not None and ratio.high is not None:
        low, high = (number(end, 4, like=ratio.value) for end in (ratio.low, ratio.high))
        return f"{text} ({low}{DASH}{high})"
    if difference is None or difference.low is None or difference.high is None:
        return text
    lower, upper = difference.low * column.scale, difference.high * column.scale
    if column.unit == "%":
        return f"{text} ({lower:+.1f} to {upper:+.1f} points)"
    ends = [number(end, 2, like=max(abs(lower), abs(upper))) for end in (lower, upper)]
    signed = " to ".join(end if end.startswith("-") else f"+{end}" for end in ends)
    return f"{text} ({' '.join(filter(None, (signed, column.text_unit)))})"


def _p(value: float | None) -> str:
    if value is None:
        return DASH
    return number(value, 2) if value >= _LEAST_P else "<1e-9"


def _counts(verdicts: Mapping[str, int]) -> str:
    return ", ".join(f"{verdict} in {verdicts[verdict]}" for verdict in VERDICTS if verdict in verdicts)


def _marks(metrics: Iterable[MetricComparison]) -> Counter[str]:
    """Marks by name, with the number of compared cells that have them."""
    by_cell = {m.cell: {mark.partition(":")[0] for mark in m.marks} & MARKS.keys() for m in metrics}
    return Counter(mark for marks in by_cell.values() for mark in marks)


def _left_out(comparison: Comparison) -> Iterator[str]:
    for name, other, only in (("A", "B", comparison.baseline_only), ("B", "A", comparison.candidate_only)):
        reasons = Counter(filter(None, only.values()))
        if absent := [_path(cell) for cell, reason in only.items() if not reason]:
            yield f"only {name} has {_cells(len(absent))}: {_listed(absent)}"
        if reasons:
            texts = [f"{reason} ({_cells(count)})" for reason, count in reasons.items()]
            yield f"{name} ran {_cells(reasons.total())} that {other} could not: {_listed(texts)}"
    if comparison.same:
        yield f"left out, as both have the very same records of them: {_cells(len(comparison.same))}"
    if comparison.several:
        yield f"left out, as several suites have them: {_cells(len(comparison.several))}; choose with --suite"


def _path(cell: CellKey) -> str:
    return "/".join(filter(None, (cell.suite, cell.model, cell.recipe, cell.engine, cell.what)))


def _listed(texts: Sequence[str]) -> str:
    more = len(texts) - _LISTED
    return ", ".join(texts[:_LISTED]) + (f" and {more} more" if more > 0 else "")


def _cells(count: int) -> str:
    return f"{count} {'cell' if count == 1 else 'cells'}"


def _plain_part(part: PartDifference) -> dict[str, object]:
    """A change over a part of the items, and its interval where it has one, in stored units."""
    low, high = (part.part.metrics.get(end) for end in part.change.interval or ("", ""))
    figures = {"metric": part.metric.key, "change": part.part.metrics[part.change.key], "low": low, "high": high}
    return {**asdict(part.cell), "labels": part.part.labels, **figures}


def _plain(metric: MetricComparison) -> dict[str, object]:
    """A metric with its units as stored, and the column's name and better side."""
    return {
        **asdict(metric.cell),
        "metric": metric.column.key,
        "better": metric.column.better,
        "a": metric.baseline,
        "b": metric.candidate,
        "rounds": metric.rounds,
        "ratio": asdict(metric.ratio),
        "change": None if metric.difference is None else asdict(metric.difference),
        "p_holm": metric.p_holm,
        "verdict": metric.verdict,
        "marks": metric.marks,
        "seeds": metric.seeds,
    }
