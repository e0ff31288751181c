"""A metric of one cell over the commits that changed its records, and the versions that each of these ran on.

A record does not name a commit: git knows which one it came with. Commits are those of the branch itself, its merges
as one; records that are not committed yet come last.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from bench.contract import outside, plugins
from bench.contract.columns import Column
from bench.contract.errors import UserError
from bench.contract.outside import each_text, printable
from bench.contract.record import Result
from bench.foreign import is_foreign
from bench.measure.ratio import Ratio, ratio
from bench.measure.stats import Spread, spread
from bench.publish.compare import git
from bench.publish.compare.compare import values_of
from bench.publish.figures import specs
from bench.publish.figures.specs import Spec
from bench.publish.tables.columns import DASH, LEVEL, format_figure, number, quotable
from bench.publish.tables.model import Section
from bench.store import Store, is_record, parsed, safe_name

UNCOMMITTED = "not committed"
_HEAD = "HEAD"
_DEPTH = 8  # parts of a record's path: device, suite, kind, model, recipe, engine, load or task, file
_PARTS = (0, 1, 3, 4, 5, 6)  # those that name a cell
_BAR = 24
_SHORT = 10  # digits of a commit that are shown
_LISTED = 4
_WIDTHS = (320, 46, 900)  # pixels of a chart: at the least, for each point, at the most
_FRACTION = "_fraction"


@dataclass(frozen=True)
class Version:
    """The finished rounds of a cell as they were at a commit; `commit` is "" of those that are not committed."""

    commit: str
    date: str
    rounds: tuple[Result, ...]


@dataclass(frozen=True)
class Point:
    """A metric at a version: its spread over rounds, its ratio to the point before, what else is new since then."""

    commit: str
    date: str
    figure: Spread
    ratio: Ratio | None
    changes: tuple[str, ...]


@dataclass(frozen=True)
class History:
    """`cell` is device/suite/model/recipe/engine/load-or-task; `points` from the oldest on."""

    cell: str
    column: Column
    points: tuple[Point, ...]
    problems: tuple[str, ...]


def history(results: Path, path: str, metric: str, *, device: str = "", since: str = "") -> History:
    """Of the cell that SUITE/RECIPE/ENGINE/LOAD-OR-TASK names, each a glob; `since`: only of commits after that one.

    UserError for a path that names no cell or several, a metric that the cell never had, and a folder without git.
    """
    parts = path.split("/", 3)
    if len(parts) != 4 or not all(parts):
        raise UserError(f"invalid cell '{path}': expected SUITE/RECIPE/ENGINE/LOAD-OR-TASK, each a name or a glob")
    commits = git.changes(results, since)
    present = [str(file.relative_to(results)) for file in results.rglob("r*.json")] if results.is_dir() else []
    names = list(dict.fromkeys([name for change in commits for name in change.names] + sorted(present)))
    cell = _only(names, [device or "*", *parts])
    own = sorted(name for name in names if _cell_of(name) == cell)
    versions, problems = _versions(results, commits, own)
    if since and not versions:
        raise UserError(f"no commit after {since} has other records of {'/'.join(cell)}: choose an earlier --since")
    column, points = _points(versions, metric)
    return History("/".join(cell), column, tuple(points), tuple(problems))


def section(its: History) -> Section:
    """A line for each version, its bar, how it compares with the one before, and what changed beside it."""
    most = max(abs(point.figure.median) for point in its.points)
    heads = ("commit", "date", "n", its.column.heading().strip() or its.column.key, "", "vs before", "p", "changed")
    lines = []
    for point in its.points:
        bar = "█" * max(1, round(_BAR * abs(point.figure.median) / most)) if most else ""
        lines.append(
            (
                point.commit[:_SHORT] or UNCOMMITTED,
                point.date[:10],
                str(point.figure.n),
                format_figure(its.column, point.figure),
                bar,
                *_against(point.ratio),
                "; ".join(point.changes) or DASH,
            )
        )
    return Section(its.cell, heads, tuple(lines))


def as_json(its: History) -> dict[str, Any]:
    """Values as stored."""
    return {"cell": its.cell, "metric": its.column.key, "points": its.points, "problems": its.problems}


def as_csv(its: History) -> str:
    """A line for each point, values as stored."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("commit", "date", "n", "median", "min", "max", "ratio", "ratio_low", "ratio_high", "p", "changed"))
    for point in its.points:
        figure, compared = point.figure, point.ratio or Ratio(None, None, None, None, "")
        tests = (compared.value, compared.low, compared.high, compared.p)
        cells = (figure.n, figure.median, figure.low, figure.high, *tests, "; ".join(point.changes))
        writer.writerow(map(outside.csv_cell, (point.commit or UNCOMMITTED, point.date, *cells)))
    return out.getvalue()


def chart(its: History) -> Spec:
    """Medians joined by a line, with their ranges over rounds."""
    column = its.column
    rows = [
        {
            "label": f"{point.commit[:_SHORT] or UNCOMMITTED} {point.date[:10]}",
            **{end: getattr(point.figure, end) * column.scale for end in ("low", "median", "high")},
        }
        for point in its.points
    ]
    least, each, most = _WIDTHS
    spec = specs.template(
        "history",
        width=min(max(least, each * len(rows)), most),
        title=column.heading().strip() or column.key,
        subtitle=its.cell,
        axis=column.named or column.key,
        rows=rows,
        colour=specs.LIGHT[1],
    )
    return {**each_text(spec, printable), "config": specs.config(dark=False), "padding": 12}


def _against(compared: Ratio | None) -> tuple[str, str]:
    """B/A with its interval and p; where the rounds cannot tell, that."""
    if compared is None or compared.value is None:
        return DASH, DASH
    text = f"{number(compared.value, 4)} x"
    if compared.low is None or compared.high is None or compared.p is None:
        return text, "cannot tell" if compared.value != 1 else DASH
    low, high = (number(end, 4, like=compared.value) for end in (compared.low, compared.high))
    p = number(compared.p, 2)
    return f"{text} ({low}{DASH}{high})", p if compared.p < LEVEL else f"{p}, noise"


def _cell_of(name: str) -> tuple[str, ...] | None:
    """What a record's path says of its cell; None for other files, and artifacts."""
    parts = name.split("/")
    if len(parts) != _DEPTH or not is_record(Path(name)) or parts[2] not in ("serving", "quality"):
        return None
    return tuple(parts[i] for i in _PARTS)


def _only(names: Sequence[str], patterns: Sequence[str]) -> tuple[str, ...]:
    """The one cell that device, suite, recipe, engine and load or task match; an imported one by its device alone."""
    present = dict.fromkeys(cell for name in names if (cell := _cell_of(name)) is not None)
    cells = [cell for cell in present if is_foreign(patterns[0]) or not is_foreign(cell[0])]
    keys = {cell: (cell[0], cell[1], cell[3], cell[4], cell[5]) for cell in cells}
    matched = [
        cell for cell, key in keys.items() if all(_is(part, its) for part, its in zip(key, patterns, strict=True))
    ]
    if len(matched) == 1:
        return matched[0]
    shown = "/".join(patterns[1:])
    if matched:
        listed = ", ".join("/".join(cell) for cell in matched[:_LISTED])
        more = f" and {len(matched) - _LISTED} more" if len(matched) > _LISTED else ""
        raise UserError(f"{shown} matches {len(matched)} cells, {listed}{more}: narrow it to one, or give --device")
    if not cells:
        instead = "name one with --device" if present else "give --results the folder that has them"
        raise UserError(f"no records {'but imported ones ' if present else ''}in the history of that folder: {instead}")
    for i, what in enumerate(("device", "suite", "recipe", "engine", "load or task")):
        known = tuple(sorted({key[i] for key in keys.values()}))
        if not any(_is(name, patterns[i]) for name in known):
            raise UserError(plugins.unknown(what, patterns[i], known))
    raise UserError(f"no cell {shown} in the history of that folder: these names are there, but not together")


def _is(part: str, pattern: str) -> bool:
    """Whether a part of a path is a name, or matches a glob of names."""
    return part == safe_name(pattern) or fnmatchcase(part, pattern)


def _versions(results: Path, commits: Sequence[git.Change], names: Sequence[str]) -> tuple[list[Version], list[str]]:
    """The cell at each commit that changed its records, and as it is now where that is another; unreadable ones."""
    changing = [change for change in commits if not set(names).isdisjoint(change.names)]
    dates = {**{change.commit: change.date for change in changing}, _HEAD: ""}
    wanted = [(commit, name) for commit in dates for name in names]
    problems: list[str] = []
    rounds: dict[str, list[Result]] = {commit: [] for commit in dates}
    for (commit, name), text in zip(wanted, git.files(results, wanted), strict=True):
        try:
            rounds[commit] += [parsed(Path(name), text)] if text is not None else []
        except UserError as error:
            problems += [f"{error} (at commit {commit[:_SHORT]})"] if commit != _HEAD else []
    versions = [Version(commit, date, _finished(rounds[commit])) for commit, date in dates.items() if commit != _HEAD]
    store, now = Store(results), []
    for name in names:
        try:
            now += [record] if (record := store.get(results / name)) is not None else []
        except UserError as error:
            problems.append(str(error))
    if now and _finished(now) != _finished(rounds[_HEAD]):
        versions.append(Version("", max(result.started for result in now), _finished(now)))
    return [version for version in versions if version.rounds], problems


def _finished(rounds: Sequence[Result]) -> tuple[Result, ...]:
    return tuple(sorted((r for r in rounds if r.status == "ok"), key=lambda r: r.round))


def _points(versions: Sequence[Version], metric: str) -> tuple[Column, list[Point]]:
    known = tuple(dict.fromkeys(key for version in versions for r in version.rounds for key in r.metrics))
    key = next((key for key in (metric, f"{metric}{_FRACTION}") if key in known), "")
    if not key:
        raise UserError(
            plugins.unknown("metric of the cell", metric, known)
            if known
            else "no round of the cell ever ended well: it has no history to draw"
        )
    try:
        column = quotable(key)
    except UserError:  # of a task that is gone, or one that no table has
        column = Column(key, key)
    points: list[Point] = []
    before: tuple[Version, list[float]] | None = None
    for version in versions:
        if values := values_of(key, version.rounds):
            compared = ratio(before[1], values) if before else None
            changes = tuple(_changes(before[0], version)) if before else tuple(_libraries(version))
            points.append(Point(version.commit, version.date, spread(values), compared, changes))
            before = version, values
    if not points:
        raise UserError(f"no round of the cell has a valid {key}: choose another metric")
    return column, points


def _libraries(version: Version) -> Iterator[str]:
    environment: Mapping[str, str] = version.rounds[-1].environment
    return (f"{name} {its}" for name, its in sorted(environment.items()))


def _changes(one: Version, other: Version) -> Iterator[str]:
    """Versions of libraries that differ, the machine, and whether settings do that a digest is of."""
    a, b = one.rounds[-1], other.rounds[-1]
    for name in sorted({*a.environment, *b.environment}):
        before, after = (r.environment.get(name, "none") for r in (a, b))
        if before != after:
            yield f"{name} {before} to {after}"
    for what, before, after in (
        ("CPU", a.hardware.cpu, b.hardware.cpu),
        ("GPU and driver", _gpus(a), _gpus(b)),
        ("instruction sets", " ".join(a.hardware.isa), " ".join(b.hardware.isa)),
    ):
        if before != after:
            yield f"{what} {before or 'none'} to {after or 'none'}"
    if a.digest != b.digest:
        yield "digest: settings, artifact, plugin or environment"


def _gpus(result: Result) -> str:
    return ", ".join(f"{gpu.name} {gpu.driver}" for gpu in result.hardware.gpus)
