"""A comparison as a person reads it: what it comes to above, cell by cell below, and what to be wary of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, fields, replace
from itertools import groupby

from bench.contract import wire
from bench.contract.errors import UserError
from bench.measure.ratio import EQUAL, SINGLE, WELCH, ZERO
from bench.measure.sanity import MARKS
from bench.publish.compare.compare import BETTER, NO_DIFFERENCE, SAME, UNTESTED, WORSE, Comparison, Figure, Place
from bench.publish.compare.differences import differences
from bench.publish.compare.paired import EXACT, MCNEMAR, OTHER, UNPAIRED, WINDOWS
from bench.publish.compare.selectors import AXES, ENGINE, MODEL, RECIPE, Side
from bench.publish.tables import render
from bench.publish.tables.columns import DASH, number
from bench.publish.tables.model import Section

RULES = {
    WELCH: "ratio of geometric means over rounds; interval and p by Welch's t on logarithms",
    SINGLE: "a side has one round: no interval and no p, since its noise is not known",
    EQUAL: "each side's rounds are all equal: there is no noise to make an interval or a p of",
    ZERO: "a figure is zero: no ratio",
    EXACT: "bits and bytes on disk, the same in every run",
    WINDOWS: "both sides paired by windows of the text; interval and p are normal",
    MCNEMAR: "both sides paired by items; interval of the change by bootstrap, p by McNemar's exact test",
    UNPAIRED: "the task has no score for each item: no interval and no p",
    OTHER: "over other items, against another reference, or by another version of the task: not comparable",
}
_HOLM = "p has Holm's correction over the cells of one figure, intervals (95 %) have none"
_LEAST_P = 1e-9  # what an approximation has left to say of the tails
_NAMED = 5
_WIDE = 96  # columns, below which there is no room for the rules beside the figures
_CUT = "intervals are left out where the terminal is too narrow: --json has them"
_NATS = frozenset({"kl_mean"})


def sections(found: Comparison) -> list[Section]:
    """First the totals; then for artifacts, each task and each load the figures of its cells."""
    total = [
        (t.heading, _counts(t.verdicts), DASH if t.ratio is None else number(t.ratio, 4), str(t.cells))
        for t in found.totals
    ]
    heads = ("figure", "B is", "B/A", "cells")
    made = [Section("over all cells: geometric mean of B/A", heads, tuple(total))] if total else []
    vary = _varying([figure.place for figure in found.figures])
    for what, group in groupby(found.figures, key=lambda f: (f.place.kind, f.place.what)):
        lines = tuple(_line(figure, vary) for figure in group)
        heads_ = ("cell", "figure", "A", "B", "B/A", "p", "verdict", "by")
        made.append(Section(what[1] or "size", heads_, lines))
    return made


def page(found: Comparison, columns: int) -> str:
    """All of it as plain text of at most `columns` columns."""
    parts = sections(found)
    if columns < _WIDE:
        parts = [*parts[:1], *(replace(s, heads=s.heads[:-1], lines=_cut(s)) for s in parts[1:])]
    fitting = [render.fitting(section, columns) for section in parts]
    tables = render.text(fitting, columns)
    below = [*said(found), *([_CUT] if fitting != parts else [])]
    texts = [render.wrapped(head(found), columns), tables, render.wrapped(below, columns)]
    return _printable("\n".join(filter(None, texts)))


def _printable(text: str) -> str:
    """Without what would steer a terminal: names and reasons come from records."""
    return "".join(sign if sign.isprintable() or sign == "\n" else "?" for sign in text)


def _cut(section: Section) -> tuple[tuple[str, ...], ...]:
    """The lines without their last column, which says by what rule: the rules are told below anyhow."""
    return tuple(line[:-1] for line in section.lines)


def head(found: Comparison) -> list[str]:
    """Who is A and who is B, and what is the same in every cell."""
    places = [figure.place for figure in found.figures]
    vary = _varying(places)
    fixed = [
        f"{name} {value}"
        for name in ("device", "suite", "model", "recipe", "engine")
        if name not in vary and (value := next((v for p in places if (v := getattr(p, name))), ""))
    ]
    cells = len({p for p in places if p.kind != "size"})
    return [
        f"A: {found.a.name}",
        f"B: {found.b.name}",
        ": ".join(filter(None, (f"{_cells(cells)} compared", ", ".join(fixed)))),
    ]


def said(found: Comparison) -> list[str]:
    """What stands below: the rules, what only one side has, marks, and what else is not the same."""
    rules = dict.fromkeys(figure.ratio.rule for figure in found.figures)
    told = "A, B: geometric means over rounds; B/A with its 95 % interval, or that of the change"
    lines = [told] if found.figures else []
    lines += [f"{rule}: {RULES[rule]}" for rule in rules]
    lines += [_HOLM] if any(figure.p_holm is not None for figure in found.figures) else []
    lines += [f"{mark}: {MARKS[mark]} ({_cells(count)})" for mark, count in _marks(found).items()]
    lines += _one_sided(found)
    apart = differences(found.pairs, AXES[found.a.kind])
    lines += [_none(found)] if found.figures and not found.pairs and not found.same else []
    return [*lines, *(["What else is not the same, A / B:"] if apart else []), *apart]


def as_json(found: Comparison) -> str:
    """Everything, for a program, in stored units."""
    plain = {
        "a": {"kind": found.a.kind, "word": found.a.word, "name": found.a.name},
        "b": {"kind": found.b.kind, "word": found.b.word, "name": found.b.name},
        "totals": [
            {"metric": t.column.key, "ratio": t.ratio, "cells": t.cells, "verdicts": t.verdicts} for t in found.totals
        ],
        "figures": [_plain(figure) for figure in found.figures],
        "only_a": [{**asdict(p), "other": why} for p, why in found.only[0].items()],
        "only_b": [{**asdict(p), "other": why} for p, why in found.only[1].items()],
        "same_records": [asdict(p) for p in found.same],
        "in_several_suites": [asdict(p) for p in found.several],
        "differences": differences(found.pairs, AXES[found.a.kind]),
        "rules": RULES,
    }
    return wire.dumps(plain, indent=1) + "\n"


def checked(found: Comparison) -> Comparison:
    """The same; UserError where no cell is on both sides: why, and what to write instead."""
    if found.figures or found.same:
        return found
    raise UserError(_none(found))


def _none(found: Comparison) -> str:
    a, b = found.a, found.b
    for side in (a, b):
        if not side.records:
            return f"no records of the {side.name}; loosen --suite, --device, --only, --engine, --recipe"
        tried = [r for r in side.records if r.cell.workload or r.cell.task]
        if tried and not any(r.status == "ok" for r in tried):
            return f"no cell of the {side.name} ran; the last is {tried[-1].status}: {tried[-1].reason}"
    if found.several:
        suites = ", ".join(sorted({r.suite for side in (a, b) for r in side.records}))
        return f"cells of one name are in several suites: choose with --suite, of {suites}"
    apart = {"kind", *AXES[a.kind], *(("suite",) if a.kind == MODEL else ())}
    parts = [field.name for field in fields(Place) if field.name not in apart]
    for part in parts:
        mine, theirs = (_values(side, part) for side in (a, b))
        if mine and theirs and not set(mine) & set(theirs):
            word = "loads and tasks" if part == "what" else f"{part}s"
            told = f"the {word} of {a.word} are {_some(mine)}; those of {b.word} {_some(theirs)}"
            hint = _hint(a, b, mine, theirs) if part in (RECIPE, ENGINE) else ""
            return f"no cell is on both sides: {told}{hint}"
    return f"no cell is on both sides: what {a.word} and {b.word} ran differs in {', '.join(parts)}"


def _hint(a: Side, b: Side, mine: Sequence[str], theirs: Sequence[str]) -> str:
    """Recipes that one engine alone can load are compared across engines as pairs."""
    mine, theirs = (sorted(names, key=lambda name: name != "baseline") for names in (mine, theirs))
    if a.kind == ENGINE:
        return f"; compare across both, as {mine[0]}@{a.word} {theirs[0]}@{b.word}"
    if a.kind == RECIPE:
        return f"; compare across both, as {a.word}@{mine[0]} {b.word}@{theirs[0]}"
    return ""


def _values(side: Side, part: str) -> list[str]:
    ran = [r for r in side.records if r.status == "ok" and (r.cell.workload or r.cell.task)]
    known = {
        "device": [r.hardware.slug for r in ran],
        "suite": [r.suite for r in ran],
        "model": [r.cell.model.shown for r in ran],
        "recipe": [r.cell.recipe.name for r in ran],
        "engine": [r.cell.engine.title for r in ran],
        "what": [r.cell.what for r in ran],
    }
    return sorted(set(known[part]))


def _varying(places: Sequence[Place]) -> set[str]:
    """The fields that are not the same in all cells; an artifact has no engine."""
    names = ("device", "suite", "model", "recipe", "engine")
    return {name for name in names if len({v for p in places if (v := getattr(p, name))}) > 1}


def _line(figure: Figure, vary: set[str]) -> tuple[str, ...]:
    place, column = figure.place, figure.column
    names = [getattr(place, name) for name in ("device", "suite", "model", "recipe", "engine") if name in vary]
    label = " / ".join(filter(None, names)) or _plainest(place)
    a, b = (number(value * column.scale, column.digits) for value in (figure.a, figure.b))
    return (label, figure.heading, a, b, _ratio(figure), _p(figure.p_holm), figure.verdict, _rule(figure))


def _plainest(place: Place) -> str:
    """Where all cells are of one device, suite, recipe and so on: a name there has to be."""
    return "artifact" if place.kind == "size" else place.engine or place.recipe or place.model


def _ratio(figure: Figure) -> str:
    """The ratio with its interval; where a task tells the change itself, that one's."""
    ratio, points = figure.ratio, figure.points
    text = DASH if ratio.value is None else number(ratio.value, 4)
    if ratio.low is not None and ratio.high is not None:
        low, high = (number(end, 4, like=ratio.value) for end in (ratio.low, ratio.high))
        return f"{text} ({low}{DASH}{high})"
    if points is None or points.low is None or points.high is None:
        return text
    lower, upper = points.low * figure.column.scale, points.high * figure.column.scale
    if figure.column.unit == "%":
        return f"{text} ({lower:+.1f} to {upper:+.1f} points)"
    ends = [number(end, 2, like=max(abs(lower), abs(upper))) for end in (lower, upper)]
    signed = [end if end.startswith("-") else f"+{end}" for end in ends]
    return f"{text} ({' to '.join(signed)}{' nats' if figure.column.key in _NATS else ''})"


def _p(value: float | None) -> str:
    if value is None:
        return DASH
    return number(value, 2) if value >= _LEAST_P else "<1e-9"


def _rule(figure: Figure) -> str:
    """What gave the interval, with the rounds of both sides where it is made of them."""
    rule = figure.ratio.rule
    return f"{rule} {figure.rounds[0]}+{figure.rounds[1]}" if rule == WELCH else rule


def _counts(verdicts: Mapping[str, int]) -> str:
    words = (BETTER, WORSE, SAME, NO_DIFFERENCE, UNTESTED)
    return ", ".join(f"{word} in {verdicts[word]}" for word in words if word in verdicts)


def _marks(found: Comparison) -> dict[str, int]:
    """Marks by name, with the number of compared cells that have them."""
    marked = {f.place: {m.partition(":")[0] for m in f.marks} & MARKS.keys() for f in found.figures}
    names = sorted({mark for its in marked.values() for mark in its})
    return {name: sum(name in its for its in marked.values()) for name in names}


def _one_sided(found: Comparison) -> Iterator[str]:
    for letter, other, cells in (("A", "B", found.only[0]), ("B", "A", found.only[1])):
        tried = {p: why for p, why in cells.items() if why}
        if alone := [p for p in cells if p not in tried]:
            yield f"only {letter} has {_cells(len(alone))}: {_some([_named(p) for p in alone])}"
        if tried:
            reasons = list(tried.values())
            told = [f"{why} ({_cells(reasons.count(why))})" for why in dict.fromkeys(reasons)]
            yield f"{letter} ran {_cells(len(tried))} that {other} could not: {_some(told)}"
    if found.same:
        yield f"left out, as both sides have the very same records of them: {_cells(len(found.same))}"
    if found.several:
        yield f"left out, as several suites have them: {_cells(len(found.several))}; choose with --suite"


def _named(place: Place) -> str:
    parts = (place.suite, place.model, place.recipe, place.engine, place.what)
    return "/".join(filter(None, parts))


def _some(words: Sequence[str]) -> str:
    more = len(words) - _NAMED
    return ", ".join(words[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _cells(count: int) -> str:
    return f"{count} {'cell' if count == 1 else 'cells'}"


def _plain(figure: Figure) -> dict[str, object]:
    """A figure with its units as stored, and the column's name and better side."""
    return {
        **asdict(figure.place),
        "metric": figure.column.key,
        "better": figure.column.better,
        "a": figure.a,
        "b": figure.b,
        "rounds": figure.rounds,
        "ratio": asdict(figure.ratio),
        "change": None if figure.points is None else asdict(figure.points),
        "p_holm": figure.p_holm,
        "verdict": figure.verdict,
        "marks": figure.marks,
    }
