"""The table cut to fit a page: per device and model a section for size and quality, one for each workload."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby

from bench.publish.tables import highlight, speedup
from bench.publish.tables.columns import (
    CEILING,
    CHANGE,
    CURVE,
    DASH,
    DIVERGENCE,
    FLOOR,
    MORE,
    MORE_SIZE,
    ONLINE,
    QUALITY,
    RECOVERY,
    SCORE_CHANGE,
    SCORES,
    SEARCH,
    SERVING,
    SIZE,
    Column,
    bounded,
    number,
    score_change,
    task_name,
    told_change,
)
from bench.publish.tables.model import ADJUSTED, LEGEND, OTHER_ENGINE, TESTED, Entry, Point, Row, Section, Table

_SUPERSCRIPT = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
STAR = "*"
_SHOWN = 1e-3  # a model that nobody pruned has a few zeros too
_PAIRED = (
    "vs baseline, points: paired over the same items, by bootstrap; p: McNemar's exact test of the items "
    "lost and won, with Holm's correction over the recipes"
)
_CEILINGS = (
    "MBU, MFU: the least that a step must read, and a prompt compute, a second, of the device's ceiling ({});"
    " launch: neither ceiling explains two fifths of a step's time"
)
_NOISE = "noise: the items show no difference, p is 0.05 or more"
NAMES = 2  # leading columns that hold names, not figures: recipe, engine


@dataclass
class Notes:
    """Footnotes and marks met while cells are written out, to be explained below."""

    reasons: dict[str, int] = field(default_factory=dict)
    marks: dict[str, None] = field(default_factory=dict)
    said: dict[str, None] = field(default_factory=dict)
    bold: bool = False  # whether a cell is best

    def number(self, reason: str) -> str:
        return str(self.reasons.setdefault(reason, len(self.reasons) + 1)).translate(_SUPERSCRIPT)

    def lines(self, *, bold: bool) -> list[str]:
        """The legend; `bold` is whether what is best can be set so."""
        found = [f"{str(n).translate(_SUPERSCRIPT)} {reason}" for reason, n in self.reasons.items()]
        named = {mark: STAR if mark == OTHER_ENGINE else mark for mark in self.marks if mark in LEGEND}
        said = [*self.said, *([highlight.LEGEND] if bold and self.bold else [])]
        return found + [f"{word}: {LEGEND[mark]}" for mark, word in named.items()] + said


@dataclass(frozen=True)
class Page:
    """One device, suite and model."""

    title: str
    sections: tuple[Section, ...]


def pages(table: Table, notes: Notes) -> list[Page]:
    """Every page; `notes` collects what its cells refer to, numbered through all of them."""
    found = []
    notes.said.update(dict.fromkeys(table.notes))
    for (device, suite, model), group in groupby(table.rows, key=lambda r: (r.device, r.suite, r.model)):
        rows = list(group)
        tasks = [t for t in table.tasks if any(r.tasks[t].status != "unplanned" for r in rows)]
        scored = [t for t in tasks if columns(rows, t)[0] in SCORES]
        sections = [_quality(rows, [t for t in tasks if t not in scored], notes)]
        sections += [_accuracy(rows, title, notes) for title in scored]
        notes.said.update(dict.fromkeys(filter(None, (_floor(rows, t) for t in tasks))))
        entries = [entry for row in rows for entry in (*row.tasks.values(), *row.workloads.values())]
        notes.said.update(dict.fromkeys(entry.note for entry in entries if entry.note))
        for title in table.workloads:
            asked = [row for row in rows if row.workloads[title].status != "unplanned"]
            sections += [_serving(asked, title, notes)] if asked else []
            sections += _more(asked, title, notes)
            if curves := [(row, row.workloads[title].curve) for row in asked if row.workloads[title].curve]:
                sections.append(_curves(title, curves))
        sections += speedup.sections(rows)
        notes.bold = notes.bold or any(section.best for section in sections)
        found.append(Page(" / ".join(filter(None, (device, suite, model))), tuple(sections)))
    return found


def summary(table: Table) -> str:
    """What the figures are; each section says over how many rounds."""
    if not any(e.rounds for row in table.rows for e in (*row.tasks.values(), *row.workloads.values())):
        return "No figures yet."
    return f"Figures are medians over n rounds, with (min{DASH}max) where they differ; ± is a 95 % interval."


def columns(rows: Sequence[Row], title: str) -> tuple[Column, ...]:
    """A task's columns, by the metrics its entries have; a column for its state while there are none."""
    found = {key for row in rows for key in row.tasks[title].figures}
    known = (DIVERGENCE, QUALITY, *((column,) for column in SCORES))
    return next((shown for shown in known if shown[0].key in found), (Column("", "{title}"),))


def load_columns(entries: Sequence[Entry]) -> tuple[Column, ...]:
    """A workload's columns: those of a server where requests in flight were counted; no empty ones."""
    known = {key for entry in entries for key in entry.figures}
    if "concurrency" not in known:
        return SERVING
    return tuple(c for c in (SEARCH if "slo_rate_per_s" in known else ONLINE) if c.key in known)


def _floor(rows: Sequence[Row], title: str) -> str:
    """What the divergence is where nothing is quantized: between engines, and by how the baseline is kept."""
    scored = [(row, row.tasks[title].figures) for row in rows if FLOOR in row.tasks[title].figures]
    if not scored:
        return ""
    key = DIVERGENCE[0].key
    parts = [f"{number(scored[0][1][FLOOR].median, 2)} stored"]
    parts += [f"{row.recipe} on {row.engine} {number(figures[key].median, 2)}" for row, figures in scored if row.whole]
    return f"noise floor of KL {task_name(title)}, nats per token: {'; '.join(parts)}"


def _quality(rows: Sequence[Row], tasks: Sequence[str], notes: Notes) -> Section:
    """A kind's only task is named above the columns, several are named in them."""
    shown = {t: columns(rows, t) for t in tasks}
    kinds = list(shown.values())
    alone = [t for t, its in shown.items() if its[0].key and kinds.count(its) == 1]
    sizes = [*SIZE, *(c for c in MORE_SIZE if any((row.size(c.key) or 0) > _SHOWN for row in rows))]
    heads = [c.heading() for c in sizes]
    for title, its in shown.items():
        name = "" if title in alone else task_name(title)
        heads += [c.heading(name if c.key else title) for c in its]
        heads += [CHANGE.heading()] if its == QUALITY else []
    above = ", ".join(f"{shown[t][0].word} over {task_name(t)}" for t in alone)
    tasked = [[c for t, its in shown.items() for c in _task(row, t, its, notes)] for row in rows]
    lines = [[*(size(row, c) for c in sizes), *cells] for row, cells in zip(rows, tasked, strict=True)]
    entries = [[row.tasks[t] for t in tasks] for row in rows]
    contests = [highlight.of_size(c, rows) for c in sizes]
    for title, its in shown.items():
        own = [row.tasks[title] for row in rows]
        contests += [highlight.of_task(c, rows, own) for c in its]
        contests += [highlight.of_change(CHANGE, rows, own)] if its == QUALITY else []
    title = f"size and quality{f': {above}' if above else ''}" if tasks else "size"
    return _section(title, heads, rows, lines, entries, notes, contests)


def _accuracy(rows: Sequence[Row], title: str, notes: Notes) -> Section:
    """A score on items, beside what the same items say of the baseline."""
    rows = [row for row in rows if row.tasks[title].status != "unplanned"]
    (column,) = columns(rows, title)
    entries = [row.tasks[title] for row in rows]
    metric = next((entry.metric for entry in entries if entry.metric), "")
    items = next((e.figures["scored_items"].median for e in entries if "scored_items" in e.figures), 0.0)
    heads = [column.heading(metric), SCORE_CHANGE.heading(), RECOVERY.heading(), "lost / won items", "p"]
    lines = [_score(row, entry, column, notes) for row, entry in zip(rows, entries, strict=True)]
    if any(entry.change for entry in entries):
        notes.said.setdefault(_PAIRED)
    if any("noise" in cell for line in lines for cell in line):
        notes.said.setdefault(_NOISE)
    contests = [highlight.of_task(column, rows, entries), highlight.of_change(SCORE_CHANGE, rows, entries)]
    return _section(
        f"{task_name(title)}: {items:,.0f} items", heads, rows, lines, [[e] for e in entries], notes, contests
    )


def _score(row: Row, entry: Entry, column: Column, notes: Notes) -> list[str]:
    if entry.status != "ok":
        return [void(entry, notes, first=not i) for i in range(5)]
    cells = [bounded(column, entry.figures)]
    if row.baseline:
        return [*cells, "baseline", DASH, DASH, DASH]
    changed = score_change(entry.change, is_fraction=column.key.endswith("_fraction"))
    found = entry.change.get(RECOVERY.key)
    cells.append(starred(changed, entry, notes))
    cells.append(DASH if found is None else number(found * RECOVERY.scale, RECOVERY.digits + 1))
    if TESTED not in entry.change:
        return [*cells, DASH, DASH]
    lost, won = (f"{entry.change[f'flips_{way}']:.0f}" for way in ("worse", "better"))
    return [*cells, f"{lost} / {won}", number(entry.change[ADJUSTED], 2)]


def _serving(rows: Sequence[Row], title: str, notes: Notes) -> Section:
    entries = [row.workloads[title] for row in rows]
    shown = load_columns(entries)
    heads = [c.heading() for c in shown]
    lines = [_figures(shown, entry, notes) for entry in entries]
    contests = [highlight.of_load(c, entries) for c in shown]
    return _section(title, heads, rows, lines, [[entry] for entry in entries], notes, contests)


def _more(rows: Sequence[Row], title: str, notes: Notes) -> list[Section]:
    """What else is known of a workload's rows: memory, energy, the roofline."""
    found = []
    for word, known in MORE.items():
        told = [row for row in rows if any(c.key in row.workloads[title].figures for c in known)]
        shown = [c for c in known if any(cell(c, row.workloads[title], notes) != DASH for row in told)]
        lines = [(row.recipe, row.engine, *(cell(c, row.workloads[title], notes) for c in shown)) for row in told]
        heads = ("recipe", "engine", *(c.heading() for c in shown))
        contests = [highlight.of_load(c, [row.workloads[title] for row in told]) for c in shown]
        won = _placed(contests, [line[NAMES:] for line in lines])
        found += [Section(f"{title}: {word}", heads, tuple(lines), below=True, best=won)] if lines else []
        sources = dict.fromkeys(row.workloads[title].words.get(CEILING, "") for row in told)
        notes.said.update({_CEILINGS.format(source): None for source in sources if source})
    return found


def cell(column: Column, entry: Entry, notes: Notes) -> str:
    """A figure, a word, or a change against the baseline, with a star where that ran on another engine."""
    if column.key in entry.words:
        return entry.words[column.key]
    if column.key not in entry.change:
        return bounded(column, entry.figures)
    return starred(number(entry.change[column.key] * column.scale, column.digits), entry, notes)


def starred(text: str, entry: Entry, notes: Notes) -> str:
    """A change with a star where the baseline ran on another engine."""
    if OTHER_ENGINE not in entry.marks:
        return text
    notes.marks.setdefault(OTHER_ENGINE)
    return f"{text} {STAR}"


def _curves(title: str, found: Sequence[tuple[Row, Sequence[Point]]]) -> Section:
    """Throughput against latency, a line for each level that an engine was tried at."""
    known = {key for _, curve in found for point in curve for key in point.figures}
    shown = [c for c in CURVE if c.key in known]
    lines = [
        (row.recipe, row.engine, f"{point.level:.4g}", *(bounded(c, point.figures) for c in shown))
        for row, curve in found
        for point in curve
    ]
    return Section(f"{title}: the curve", ("recipe", "engine", "at", *(c.heading() for c in shown)), tuple(lines))


def _section(
    title: str,
    heads: Sequence[str],
    rows: Sequence[Row],
    lines: Sequence[Sequence[str]],
    entries: Sequence[Sequence[Entry]],
    notes: Notes,
    contests: Sequence[highlight.Contest],
) -> Section:
    """Names before, marks after where there are any; n in the title, or in a column where lines differ."""
    counts = [list(dict.fromkeys(str(e.rounds) for e in found if e.rounds)) for found in entries]
    marks = [marked(found, notes) for found in entries]
    extra = []
    if len(different := {n for line in counts for n in line}) == 1:
        title = f"{title} (n={different.pop()})"
    elif different:
        extra.append(["n", *("/".join(line) or DASH for line in counts)])
    if any(marks):
        extra.append(["marks", *marks])
    body = [[row.recipe, row.engine, *line] for row, line in zip(rows, lines, strict=True)]
    full = [["recipe", "engine", *heads], *body]
    for column in extra:
        full = [[*line, cell] for line, cell in zip(full, column, strict=True)]
    return Section(title, tuple(full[0]), tuple(map(tuple, full[1:])), best=_placed(contests, lines))


def _placed(contests: Sequence[highlight.Contest], lines: Sequence[Sequence[str]]) -> frozenset[tuple[int, int]]:
    """The best cells among the lines without names, by their column with names."""
    return frozenset((line, column + NAMES) for line, column in highlight.winners(contests, lines))


def size(row: Row, column: Column) -> str:
    """A figure of the artifact; a model that nobody pruned has none of its weights at zero to speak of."""
    value = row.size(column.key)
    if value is not None and column in MORE_SIZE and value < _SHOWN:
        value = 0.0
    return DASH if value is None else number(value * column.scale, column.digits)


def _task(row: Row, title: str, shown: Sequence[Column], notes: Notes) -> list[str]:
    entry = row.tasks[title]
    cells = _figures(shown, entry, notes)
    if shown != QUALITY:
        return cells
    if entry.status != "ok":
        return [*cells, void(entry, notes, first=False)]
    if row.baseline:
        return [*cells, "baseline"]
    return [*cells, starred(told_change(CHANGE, entry.change, is_fraction=False), entry, notes)]


def _figures(shown: Sequence[Column], entry: Entry, notes: Notes) -> list[str]:
    if entry.status != "ok":
        return [void(entry, notes, first=not i) for i in range(len(shown))]
    return [bounded(c, entry.figures) for c in shown]


def void(entry: Entry, notes: Notes, *, first: bool) -> str:
    """In place of a figure: the word in the first cell, its footnote in the others. Never a blank."""
    if entry.status == "unplanned":
        return DASH
    if entry.status == "missing":
        return "not run yet" if first else "·"
    return f"{entry.status if first else ''}{notes.number(entry.reason)}"


def marked(entries: Sequence[Entry], notes: Notes) -> str:
    """Marks by name, without the metric: the spread beside a figure shows it, JSON names it."""
    found = (mark.partition(":")[0] for entry in entries for mark in entry.marks)
    words = [word for word in dict.fromkeys(found) if word != OTHER_ENGINE]  # which a star stands for
    for word in words:
        notes.marks.setdefault(word)
    return ", ".join(words)
