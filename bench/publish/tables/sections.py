"""The table cut to fit a page: per device and model a section for size and quality, one for each workload."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby

from bench.contract.columns import ADJUSTED, RECOVERY, SCORE_CHANGE, TESTED, Column, Group
from bench.measure.sanity import OTHER_MODEL, OTHER_TOKENS
from bench.publish.tables import columns, highlight, parts, price, served, speculation, speedup
from bench.publish.tables.columns import DASH, format_interval, format_value, group, number, task_name
from bench.publish.tables.model import LEGEND, OTHER_ENGINE, ROUNDED_CACHE, CellSummary, Point, Row, Section, Table

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
_BESIDE = "≤: at most; it was made beside other work of the run, and with --jobs 1 alone"
_PREDICTED = (
    "predicted KL: the sum of what each layer costs alone in the type that was chosen for it, in nats a token of the "
    "calibration text; the KL of a task is measured, on another text"
)
_NOISE = "noise: the items show no difference, p is 0.05 or more"
_SEEDS = (
    "over seeds: the mean of a recipe's replicates, which other calibration seeds made, ± its 95 % interval by "
    "Student's t, and how many they are; other figures are of the first. A change is ± the larger of both intervals, "
    "and noise by either"
)
NAMES = 2  # leading columns that hold names, not figures: recipe, engine


@dataclass
class Notes:
    """Footnotes, marks and sentences that cells refer to, to be explained below; `bold`: whether a cell is best."""

    reasons: dict[str, int] = field(default_factory=dict)
    marks: dict[str, None] = field(default_factory=dict)
    sentences: dict[str, None] = field(default_factory=dict)
    bold: bool = False

    def number(self, reason: str) -> str:
        return str(self.reasons.setdefault(reason, len(self.reasons) + 1)).translate(_SUPERSCRIPT)

    def add(self, *sentences: str) -> None:
        """Each once, and none that is empty."""
        self.sentences |= dict.fromkeys(filter(None, sentences))

    def lines(self, *, bold: bool) -> list[str]:
        """The legend; `bold` is whether what is best can be set so."""
        footnotes = [f"{str(n).translate(_SUPERSCRIPT)} {reason}" for reason, n in self.reasons.items()]
        marks = {mark: STAR if mark == OTHER_ENGINE else mark for mark in self.marks if mark in LEGEND}
        legend = [f"{shown}: {LEGEND[mark]}" for mark, shown in marks.items()]
        return [*footnotes, *legend, *self.sentences, *([highlight.LEGEND] if bold and self.bold else [])]


def pages(table: Table, notes: Notes) -> list[tuple[str, list[Section]]]:
    """Title and sections of each device, suite and model; `notes` collects what their cells refer to."""
    notes.add(*table.notes)
    result = []
    for names, rows in groupby(table.rows, key=lambda r: (r.device, r.suite, r.model)):
        sections = _page(list(rows), table, notes)
        notes.bold = notes.bold or any(section.best for section in sections)
        result.append((" / ".join(filter(None, names)), sections))
    return result


def source_notes(rows: Sequence[Row]) -> list[str]:
    """Of models that were quantized before anything was done here: what their baseline is then."""
    types = dict.fromkeys((row.model, row.source_type) for row in rows if row.source_type)
    return [
        f"{model}: its baseline is dequantized from {kind}, and no row shows what that has cost"
        for model, kind in types
    ]


def _page(rows: Sequence[Row], table: Table, notes: Notes) -> list[Section]:
    tasks = [t for t in table.tasks if any(r.tasks[t].status != "unplanned" for r in rows)]
    paired = [t for t in tasks if Group.PAIRED in measured_columns(rows, t)[0].groups]
    sections = [_quality(rows, [t for t in tasks if t not in paired], notes)]
    sections += [_accuracy(rows, title, notes) for title in paired]
    sections += [section for title in tasks for section in parts.sections(rows, title)]
    notes.add(
        *(_floor(rows, title, column) for title in tasks for column in measured_columns(rows, title) if column.floor)
    )
    notes.add(*(_origin(row) for row in rows))
    notes.add(
        *source_notes(rows), *(cell.note for row in rows for cell in (*row.tasks.values(), *row.workloads.values()))
    )
    for title in table.workloads:
        planned = [row for row in rows if row.workloads[title].status != "unplanned"]
        sections += [_serving(planned, title, notes)] if planned else []
        sections += _more(planned, title, notes)
        sections += [*_by_category(planned, title), *price.answers(planned, title)]
        notes.add(*speculation.notes(planned, title))
        if curves := [(row, row.workloads[title].curve) for row in planned if row.workloads[title].curve]:
            sections.append(_curves(title, curves))
    return [*sections, *speedup.sections(rows)]


def _origin(row: Row) -> str:
    """Where a checkpoint is from, and how it differs from the suite's model; "" of what was made here."""
    if not row.checkpoint:
        return ""
    cells = (*row.tasks.values(), *row.workloads.values())
    how = {name: cell.words[name] for cell in cells for name in (OTHER_MODEL, OTHER_TOKENS) if name in cell.words}
    parts = [f"{row.recipe}: a checkpoint, {row.checkpoint}, not made here"]
    parts += [f"another model: {how[OTHER_MODEL]}"] if OTHER_MODEL in how else []
    parts += [f"another tokenizer: {how[OTHER_TOKENS]}"] if OTHER_TOKENS in how else []
    return "; ".join(parts)


def summary(table: Table) -> str:
    """What the figures are; each section says over how many rounds."""
    if not any(c.rounds for row in table.rows for c in (*row.tasks.values(), *row.workloads.values())):
        return "No figures yet."
    return f"Figures are medians over n rounds, with (min{DASH}max) where they differ; ± is a 95 % interval."


def measured_columns(rows: Sequence[Row], title: str) -> tuple[Column, ...]:
    """A task's columns: its metrics that were measured, and their changes; one for its state while there are none."""
    cells = [row.tasks[title] for row in rows]
    measured = {key for cell in cells for key in cell.figures}
    declared = columns.task_columns(next((cell.kind for cell in cells if cell.kind), ""))
    if not any(OTHER_TOKENS in cell.marks for cell in cells):
        declared = tuple(c for c in declared if Group.ANY_TOKENS not in c.groups)
    metrics = [c for c in declared if c.key in measured and Group.CSV_ONLY not in c.groups]
    changes = [c for c in declared if Group.CHANGE in c.groups and Group.CSV_ONLY not in c.groups]
    return (*metrics, *changes) if metrics else (Column("", "{title}"),)


def with_seeds(shown: Sequence[Column], cells: Sequence[CellSummary]) -> tuple[Column, ...]:
    """A task's columns, the first followed by itself over seeds where one of the cells has replicates."""
    first, *rest = shown
    return (first, *([columns.over_seeds(first)] if any(first.key in cell.seeds for cell in cells) else []), *rest)


def load_columns(cells: Sequence[CellSummary]) -> tuple[Column, ...]:
    """A workload's columns: those of a server where requests in flight were counted; no empty ones."""
    measured = {key for cell in cells for key in cell.figures}
    if "concurrency" not in measured:
        return (*columns.SERVING, *(c for c in columns.CONTENT if c.key in measured))
    return tuple(c for c in (columns.SEARCH if "slo_rate_per_s" in measured else columns.ONLINE) if c.key in measured)


def _floor(rows: Sequence[Row], title: str, column: Column) -> str:
    """The metric where nothing is quantized: between engines, and by how the baseline is stored."""
    scored = [(row, row.tasks[title].figures) for row in rows if column.floor in row.tasks[title].figures]
    if not scored:
        return ""
    whole = [
        (f"{row.recipe} on {row.engine}", figures[column.key].median)
        for row, figures in scored
        if row.whole and ROUNDED_CACHE not in row.tasks[title].words
    ]
    parts = [f"{number(scored[0][1][column.floor].median, 2)} stored", *(f"{n} {number(v, 2)}" for n, v in whole)]
    return f"noise floor of {column.word} {task_name(title)}, {column.text_unit} per token: {'; '.join(parts)}"


def _quality(rows: Sequence[Row], tasks: Sequence[str], notes: Notes) -> Section:
    """A kind's only task is named above the columns, several are named in them."""
    kinds = [measured_columns(rows, t) for t in tasks]
    alone = [t for t, its in zip(tasks, kinds, strict=True) if its[0].key and kinds.count(its) == 1]
    shown = {t: with_seeds(its, [row.tasks[t] for row in rows]) for t, its in zip(tasks, kinds, strict=True)}
    sizes = [
        *columns.SIZE,
        *(
            c
            for c in columns.MORE_SIZE
            if any((row.size(c.key) or row.at_most(c.key) or 0) > _least(c) for row in rows)
        ),
    ]
    heads = [c.heading() for c in sizes]
    rankings = [highlight.of_size(c, rows) for c in sizes]
    notes.add(_PREDICTED if any(row.predicted_kl is not None for row in rows) else "")
    notes.add(_BESIDE if any(row.at_most(c.key) for c in sizes for row in rows) else "")
    for title, its in shown.items():
        name = "" if title in alone else task_name(title)
        heads += [c.heading(name if c.key else title) for c in its]
        cells = [row.tasks[title] for row in rows]
        rankings += [highlight.of_task(c, rows, cells) for c in its]
    above = ", ".join(f"{shown[t][0].word} over {task_name(t)}" for t in alone)
    lines = [[size(row, c) for c in sizes] for row in rows]
    for line, row in zip(lines, rows, strict=True):
        line += [text for t, its in shown.items() for text in _texts(its, row, row.tasks[t], notes)]
    title = f"size and quality{f': {above}' if above else ''}" if tasks else "size"
    return _section(title, heads, rows, lines, [[row.tasks[t] for t in tasks] for row in rows], notes, rankings)


def _accuracy(rows: Sequence[Row], title: str, notes: Notes) -> Section:
    """A score on items, and its change against the baseline paired over the same items."""
    rows = [row for row in rows if row.tasks[title].status != "unplanned"]
    column = measured_columns(rows, title)[0]
    cells = [row.tasks[title] for row in rows]
    metric = next((cell.metric for cell in cells if cell.metric), "")
    items = next((c.figures["scored_items"].median for c in cells if "scored_items" in c.figures), 0.0)
    scores = with_seeds((column,), cells)
    heads = [*(c.heading(metric) for c in scores), SCORE_CHANGE.heading(), RECOVERY.heading(), "lost / won items", "p"]
    heads += served.heads(cells)
    lines = [_score(row, cell, scores, notes, cells) for row, cell in zip(rows, cells, strict=True)]
    notes.add(*served.notes(cells), _too_few_right(title, cells, items))
    notes.add(_PAIRED if any(cell.change for cell in cells) else "")
    notes.add(_NOISE if any("noise" in text for line in lines for text in line) else "")
    rankings = [highlight.of_task(c, rows, cells) for c in (*scores, SCORE_CHANGE)]
    title = f"{task_name(title)}: {items:,.0f} items"
    return _section(title, heads, rows, lines, [[cell] for cell in cells], notes, rankings)


def _too_few_right(title: str, cells: Sequence[CellSummary], items: float) -> str:
    """That a task tells nothing apart where hardly an item is right anywhere; "" where more are."""
    shares = [c.figures["accuracy_fraction"].median for c in cells if "accuracy_fraction" in c.figures]
    right = max(shares, default=1.0) * items
    if right >= served.FEW:
        return ""
    return (
        f"{task_name(title)}: at most {right:.0f} of {items:,.0f} items are right anywhere: uninformative, and scores "
        "so near zero that do not differ are no tie"
    )


def _score(
    row: Row, cell: CellSummary, scores: Sequence[Column], notes: Notes, cells: Sequence[CellSummary]
) -> list[str]:
    others = served.texts(cell, cells)
    if cell.status != "ok":
        return [void(cell, notes, first=not i) for i in range(4 + len(scores) + len(others))]
    texts = [format_cell(c, row, cell, notes) for c in (*scores, SCORE_CHANGE)]
    texts.append(format_value(RECOVERY, cell.change.get(RECOVERY.key)))
    if TESTED not in cell.change:
        return [*texts, DASH, DASH, *others]
    flips = "{flips_worse:.0f} / {flips_better:.0f}".format_map(cell.change)
    return [*texts, flips, number(cell.change[ADJUSTED], 2), *others]


def _serving(rows: Sequence[Row], title: str, notes: Notes) -> Section:
    cells = [row.workloads[title] for row in rows]
    shown = load_columns(cells)
    lines = [_texts(shown, row, cell, notes) for row, cell in zip(rows, cells, strict=True)]
    rankings = [highlight.of_load(c, cells) for c in shown]
    return _section(title, [c.heading() for c in shown], rows, lines, [[cell] for cell in cells], notes, rankings)


def _more(rows: Sequence[Row], title: str, notes: Notes) -> list[Section]:
    """What else is measured of a workload's rows: memory, the roofline, energy."""
    sections = []
    for name, its in columns.MORE.items():
        measured = [row for row in rows if any(c.key in row.workloads[title].figures for c in group(its))]
        cells = [row.workloads[title] for row in measured]
        texts = [[format_cell(c, row, row.workloads[title], notes) for row in measured] for c in group(its)]
        if shown := {c: column for c, column in zip(group(its), texts, strict=True) if {*column} - {DASH}}:
            heads = ("recipe", "engine", *(c.heading() for c in shown))
            lines = list(zip(*shown.values(), strict=True))
            best = highlight.best_cells([highlight.of_load(c, cells) for c in shown], lines, NAMES)
            body = tuple((row.recipe, row.engine, *line) for row, line in zip(measured, lines, strict=True))
            sections.append(Section(f"{title}: {name}", heads, body, below=True, best=best))
        notes.add(*(_CEILINGS.format(cell.words[columns.CEILING]) for cell in cells if columns.CEILING in cell.words))
    return sections


def format_cell(column: Column, row: Row, cell: CellSummary | None, notes: Notes, *, first: bool = True) -> str:
    """A metric, a text, a change against the baseline, or the status of a cell that has none; without one, a size.

    A change has a star where the baseline ran on another engine; the status is in the `first` of a cell's columns.
    """
    is_change = Group.CHANGE in column.groups
    if is_change and row.baseline and (cell is None or cell.status == "ok"):
        return "baseline"
    if cell is None:
        return size(row, column)
    if cell.status != "ok":
        return void(cell, notes, first=first)
    over_seeds = Group.SEEDS in column.groups
    notes.add(_SEEDS if over_seeds and column.key in cell.seeds else "")
    if over_seeds or column.key not in cell.change or column.key in cell.words:
        text = cell.words.get(column.key) or price.text(column, cell.figures, cell)
        return columns.format_seeds(column, cell) if over_seeds else text
    text = columns.format_change(column, cell) if is_change else format_value(column, cell.change[column.key])
    if OTHER_ENGINE not in cell.marks:
        return text
    notes.marks.setdefault(OTHER_ENGINE)
    return f"{text} {STAR}"


def _by_category(rows: Sequence[Row], title: str) -> list[Section]:
    """A load of real text, a line for each category of its prompts on each engine."""
    categories = [(row, category) for row in rows for category in row.workloads[title].categories]
    measured = {key for _, category in categories for key in category.figures}
    shown = [c for c in columns.BY_CATEGORY if c.key in measured]
    heads = ("recipe", "engine", "category", *(c.heading() for c in shown))
    lines = [
        (row.recipe, row.engine, category.name, *(format_interval(c, category.figures) for c in shown))
        for row, category in categories
    ]
    return [Section(f"{title}: by category", heads, tuple(lines), below=True)] if lines else []


def _curves(title: str, curves: Sequence[tuple[Row, Sequence[Point]]]) -> Section:
    """Throughput against latency, a line for each level that an engine was tried at."""
    measured = {key for _, curve in curves for point in curve for key in point.figures}
    shown = [c for c in columns.CURVE if c.key in measured]
    lines = [
        (row.recipe, row.engine, f"{point.level:.4g}", *(format_interval(c, point.figures) for c in shown))
        for row, curve in curves
        for point in curve
    ]
    return Section(f"{title}: the curve", ("recipe", "engine", "at", *(c.heading() for c in shown)), tuple(lines))


def _section(
    title: str,
    heads: Sequence[str],
    rows: Sequence[Row],
    lines: Sequence[Sequence[str]],
    cells: Sequence[Sequence[CellSummary]],
    notes: Notes,
    rankings: Sequence[highlight.Ranking],
) -> Section:
    """Adds the names in front, the marks behind if any; n in the title, or in a column where lines differ."""
    counts = [list(dict.fromkeys(str(c.rounds) for c in its if c.rounds)) for its in cells]
    marks = [marked(its, notes) for its in cells]
    different = {n for line in counts for n in line}
    extra: dict[str, list[str]] = {}
    if len(different) == 1:
        title = f"{title} (n={different.pop()})"
    elif different:
        extra["n"] = ["/".join(line) or DASH for line in counts]
    if any(marks):
        extra["marks"] = marks
    body: list[tuple[str, ...]] = [(row.recipe, row.engine, *line) for row, line in zip(rows, lines, strict=True)]
    body = [(*line, *ends) for line, *ends in zip(body, *extra.values(), strict=True)]
    best = highlight.best_cells(rankings, lines, NAMES)
    return Section(title, ("recipe", "engine", *heads, *extra), tuple(body), best=best)


def size(row: Row, column: Column) -> str:
    """A figure of the artifact; the few zeros of a model that nobody pruned count as none."""
    value = row.size(column.key)
    if (bound := row.at_most(column.key)) is not None:
        return f"≤{format_value(column, bound)}"
    is_few = value is not None and column in columns.MORE_SIZE and value < _least(column)
    return format_value(column, 0.0 if is_few else value)


def _least(column: Column) -> float:
    """Of a column that is shown where there is something, below which there is nothing."""
    return 0.0 if Group.LOG_AXIS in column.groups else _SHOWN


def _texts(shown: Sequence[Column], row: Row, cell: CellSummary, notes: Notes) -> list[str]:
    return [format_cell(c, row, cell, notes, first=not i) for i, c in enumerate(shown)]


def void(cell: CellSummary, notes: Notes, *, first: bool) -> str:
    """In place of a figure: the status in the first cell, its footnote in the others. Never a blank."""
    if cell.status == "unplanned":
        return DASH
    if cell.status == "missing":
        return "not run yet" if first else "·"
    return f"{cell.status if first else ''}{notes.number(cell.reason)}"


def marked(cells: Sequence[CellSummary], notes: Notes) -> str:
    """Marks by name, without the metric, which the spread shows and JSON names."""
    names = dict.fromkeys(mark.partition(":")[0] for cell in cells for mark in cell.marks)
    marks = [name for name in names if name != OTHER_ENGINE]  # which a star stands for
    for mark in marks:
        notes.marks.setdefault(mark)
    return ", ".join(marks)
