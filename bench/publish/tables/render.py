"""One table in four forms: for a terminal, for a page in Markdown, for a spreadsheet, for a program."""

from __future__ import annotations

import csv
import io
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from rich import box
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from bench.contract import outside, plugins, wire
from bench.contract.columns import Group
from bench.contract.errors import UserError
from bench.publish.tables.columns import CEILING, MORE, SIZE, group, task_columns
from bench.publish.tables.model import LEGEND, CellSummary, Row, Section, Table
from bench.publish.tables.sections import NAMES, Notes, load_columns, measured_columns, pages, summary

Format = Literal["terminal", "md", "csv", "json"]
# A task's metrics with their spread over rounds, its single values, whether it has several metrics.
_TaskKeys = tuple[Sequence[str], Sequence[str], bool]
# Heads of columns that hold no figures.
_WORDS = frozenset(
    {"marks", "faster?", "decoding bound by", "fits?", "by", "verdict", "why", "machine", "task", "changed", ""}
)
_BOLD, _PLAIN = "\x1b[1m", "\x1b[0m"
_HEAD = 12  # columns of a head that had to be broken
_CUT = "(min\N{EN DASH}max) is left out where the terminal is too narrow: --format md, csv and json have it"


def render(
    table: Table,
    format: Format,  # noqa: A002  (the command line's word)
    width: int = 120,
    *,
    bold: bool = False,
) -> str:
    """The table as text. `width` and `bold` only apply to the terminal form; csv and json hold stored values."""
    forms: dict[str, Callable[[], str]] = {
        "terminal": lambda: terminal(table, width, bold=bold),
        "md": lambda: markdown(table),
        "csv": lambda: csv_text(table),
        "json": lambda: "".join(json_parts(table)),
    }
    if format not in forms:
        raise UserError(plugins.unknown("format", format, tuple(forms)))
    return forms[format]()


def json_parts(table: Table, level: int = 0) -> Iterator[str]:
    """The JSON of a table `level` levels deep in another object, a row at a time: a large one has gigabytes."""
    ends = "\n" + " " * level
    for key, value in sorted({"legend": LEGEND, "notes": table.notes, "tasks": table.tasks}.items()):
        yield f'{"{" if key == "legend" else ","}{ends} "{key}": {_nested(value, level + 1)}'
        if key == "notes":
            yield f',{ends} "rows": ['
            for i, row in enumerate(table.rows):
                yield f"{',' if i else ''}{ends}  {_nested(row, level + 2)}"
            yield f"{ends} ]" if table.rows else "]"
    yield f',{ends} "workloads": {_nested(table.workloads, level + 1)}{ends}}}'
    yield "" if level else "\n"


def _nested(value: Any, level: int) -> str:
    return wire.dumps(value, indent=1).replace("\n", "\n" + " " * level)


def terminal(table: Table, width: int, *, bold: bool = False) -> str:
    """Plain text of at most `width` columns; wide cells break at spaces. `bold` sets the best cells in bold."""
    notes, cut = Notes(), False
    parts: list[str] = []
    for title, sections in pages(table, notes):
        joined = _joined(sections, width)
        fitted = [fitting(section, width) for section in joined]
        cut = cut or fitted != joined
        parts += [wrapped([title], width), "\n", text(fitted, width, bold=bold)]
    return "".join([*parts, wrapped([summary(table), *notes.lines(bold=bold), *([_CUT] if cut else [])], width)])


def text(sections: Sequence[Section], width: int, *, bold: bool = False) -> str:
    """The sections one below the other, each under its title; `bold` sets the best cells in bold."""
    out = io.StringIO()
    console = _console(out, width, bold=bold)
    for number, section in enumerate(map(_printable, sections)):
        console.print(Text(("\n" if number else "") + section.title))
        if _needed(section) <= width:
            out.writelines(f"{line}\n" for line in _unbroken(section, bold=bold))
        else:
            console.print(_grid(section))
    return "".join(f"{line.rstrip()}\n" for line in out.getvalue().splitlines())


def markdown(table: Table) -> str:
    """A heading for each device and model, a pipe table for each section; outside text is escaped."""
    notes = Notes()
    lines: list[str] = []
    for title, sections in pages(table, notes):
        lines += [f"### {outside.markdown_text(title)}", ""]
        for section in sections:
            lines += [f"**{outside.markdown_text(section.title)}**", "", *piped(section), ""]
    ends = [outside.markdown_text(line) for line in (summary(table), *notes.lines(bold=True))]
    return "\n".join(lines) + "\n" + "  \n".join(ends) + "\n"


def csv_text(*tables: Table) -> str:
    """A line per row, as stored: SI units named in the header; median, min, max, n in separate columns.

    Of several tables one sheet: a row is blank where its table has no such column.
    """
    out = io.StringIO()
    lines = []
    for table in tables:
        tasks = {title: _task_keys(table.rows, title) for title in table.tasks}
        lines += [_flat(row, tasks) for row in table.rows]
    heads = dict.fromkeys(key for line in lines for key in line)
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(map(outside.csv_cell, heads))
    writer.writerows([outside.csv_cell(line.get(key, "")) for key in heads] for line in lines)
    return out.getvalue()


def wrapped(lines: Sequence[str], width: int) -> str:
    """Sentences, each on lines of its own of at most `width` columns."""
    out = io.StringIO()
    for line in lines:
        _console(out, width).print(Text(outside.printable(line)))
    return "".join(f"{line.rstrip()}\n" for line in out.getvalue().splitlines())


def _console(out: io.StringIO, width: int, *, bold: bool = False) -> Console:
    """`color_system` None writes no style at all, whatever the terminal."""
    kind: Literal["standard"] | None = "standard" if bold else None
    return Console(file=out, width=width, color_system=kind, force_terminal=bold, legacy_windows=False)


def _printable(section: Section) -> Section:
    """The section, with nothing in its names and reasons that steers a terminal."""
    lines = tuple(tuple(map(outside.printable, line)) for line in section.lines)
    return replace(
        section, title=outside.printable(section.title), heads=tuple(map(outside.printable, section.heads)), lines=lines
    )


def fitting(section: Section, width: int) -> Section:
    """The section, without the ranges over rounds where its lines would have to be broken inside figures."""
    if _needed(section, broken=True) <= width:
        return section
    lines = tuple((*line[:NAMES], *(cell.partition(" (")[0] for cell in line[NAMES:])) for line in section.lines)
    return replace(section, lines=lines)


def _unbroken(section: Section, *, bold: bool) -> list[str]:
    """The lines that rich makes of `_grid` if nothing has to be broken, in a fiftieth of its time."""
    widths = [max(map(len, column)) for column in zip(section.heads, *section.lines, strict=True)]
    formats = [f"{'<' if _is_text(i, head) else '>'}{widths[i]}" for i, head in enumerate(section.heads)]
    lines = (section.heads, *section.lines)
    rows = [[format(cell, spec) for cell, spec in zip(line, formats, strict=True)] for line in lines]
    for line, i in section.best if bold else ():
        cell = section.lines[line][i]
        rows[line + 1][i] = rows[line + 1][i].replace(cell, f"{_BOLD}{cell}{_PLAIN}")
    heads, *body = ("   ".join(row) for row in rows)
    return [heads, "─" * len(heads), *body]


def _grid(section: Section) -> Grid:
    """For lines that would not fit: long heads are broken at spaces and hyphens, cells at spaces."""
    grid = Grid(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="")
    for i, head in enumerate(section.heads):
        justify: Literal["left", "right"] = "left" if _is_text(i, head) else "right"
        words = [word for line in section.lines for word in line[i].split()] if head in _WORDS else []
        least = min(max(map(len, words), default=1), _HEAD)
        grid.add_column(Text(_broken(head)), justify=justify, overflow="fold", no_wrap=i < NAMES, min_width=least)
    for number, line in enumerate(section.lines):
        grid.add_row(*(Text(cell, style="bold" if (number, i) in section.best else "") for i, cell in enumerate(line)))
    return grid


def _is_text(column: int, head: str) -> bool:
    return column < NAMES or head in _WORDS


def _joined(sections: list[Section], width: int) -> list[Section]:
    """Quality and the only workload next to each other if the terminal is wide enough."""
    first = [section for section in sections if not section.below]
    if len(first) != 2 or len(first[0].lines) != len(first[1].lines):
        return sections
    one, two = first
    lines = tuple((*a, *b[NAMES:]) for a, b in zip(one.lines, two.lines, strict=True))
    best = one.best | {(line, len(one.heads) + column - NAMES) for line, column in two.best}
    both = Section(f"{one.title}; {two.title}", (*one.heads, *two.heads[NAMES:]), lines, best=best)
    return [both, *(section for section in sections if section.below)] if _needed(both) <= width else sections


def _needed(section: Section, *, broken: bool = False) -> int:
    """The width of the section when nothing in it is broken, or nothing but the heads and the marks."""
    width = 0
    for head, *cells in zip(section.heads, *section.lines, strict=True):
        parts = _broken(head).split("\n") if broken else [head]
        width += 3 + (_HEAD if broken and head == "marks" else max(map(len, (*parts, *cells))))
    return width


def _broken(head: str) -> str:
    return textwrap.fill(head, _HEAD, break_long_words=False)


def piped(section: Section) -> list[str]:
    """The lines of a pipe table."""
    rule = ["---" if _is_text(i, head) else "---:" for i, head in enumerate(section.heads)]
    rows = [[*map(outside.markdown_text, line)] for line in (section.heads, rule, *section.lines)]
    for line, column in section.best:
        rows[line + 2][column] = f"**{rows[line + 2][column]}**"
    return [f"| {' | '.join(row)} |" for row in rows]


def _flat(row: Row, tasks: Mapping[str, _TaskKeys]) -> dict[str, object]:
    flat: dict[str, object] = {name: getattr(row, name) for name in ("device", "suite", "model", "recipe", "engine")}
    sizes = {c.key: row.size(c.key) for c in (*SIZE, *group(Group.MORE_SIZE, csv=True))}
    predicted = sizes.pop("predicted_kl")
    flat |= {key: "" if value is None else value for key, value in sizes.items()}
    flat |= {} if predicted is None else {"predicted_kl": predicted}
    for title, cell in row.tasks.items():
        metrics, single, names_metric = tasks[title]
        flat |= _spreads(title, cell, metrics)
        flat |= {f"{title}/metric": cell.metric} if names_metric else {}
        values = {key: figure.median for key, figure in cell.figures.items()} | {**cell.change}
        flat |= {f"{title}/{key}": values.get(key, "") for key in single}
        for key in (*metrics, *single):
            if (seeds := cell.seeds.get(key)) is not None:
                flat |= {f"{title}/{key}_seeds_{name}": value for name, value in vars(seeds).items()}
    more = [c.key for g in (*MORE.values(), Group.CONTENT) for c in group(g, csv=True)]
    for title, cell in row.workloads.items():
        tails = group(Group.TAIL, csv=True) if "concurrency" in cell.figures else ()
        flat |= _spreads(title, cell, list(dict.fromkeys(c.key for c in (*load_columns([cell]), *tails))))
        flat |= {key: value for key, value in _spreads(title, cell, more).items() if value != ""}
        texts = {**cell.words, **cell.change}
        flat |= {f"{title}/{key}": texts[key] for key in (*more, CEILING) if key in texts}
        for answer in cell.answers:
            flat |= {f"{title}/{answer.name}/{key}": figure.median for key, figure in answer.figures.items()}
    return flat


def _task_keys(rows: Sequence[Row], title: str) -> _TaskKeys:
    cells, shown = [row.tasks[title] for row in rows], measured_columns(rows, title)
    metrics = [c.key for c in shown if c.key and Group.CHANGE not in c.groups]
    changes = [key for c in shown if Group.CHANGE in c.groups for key in (c.key, *(c.interval or ()))]
    kind = next((cell.kind for cell in cells if cell.kind), "")
    more = [c.key for c in task_columns(kind) if Group.CSV_ONLY in c.groups] if metrics else []
    return metrics, [*changes, *more], any(cell.metric for cell in cells)


def _spreads(title: str, cell: CellSummary, keys: Sequence[str]) -> dict[str, object]:
    flat: dict[str, object] = {f"{title}/status": cell.status}
    for key in keys:
        figure = cell.figures.get(key)
        values = ("", "", "", "") if figure is None else (figure.median, figure.low, figure.high, figure.n)
        flat |= {f"{title}/{key}{end}": v for end, v in zip(("", "_min", "_max", "_n"), values, strict=True)}
    return {**flat, f"{title}/reason": cell.reason, f"{title}/marks": " ".join(cell.marks)}
