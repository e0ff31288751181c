"""What a document's commands write: a number with its unit, a name, a table, a list of reasons.

value NUMBER (see query.value)          figure PATH KEY: with its range over rounds, or its interval,
                                        and over seeds where its recipe has replicates
table SUITE/RECIPE/ENGINE KEY[@WORKLOAD-OR-TASK]... [by=KEY[@...]]
parts SUITE/RECIPE/ENGINE KEY@TASK      of parts of a task's items: by position, by length and depth
reasons SUITE                           pick SUITE WORKLOAD [objective=] [min-recovery=] [ttft-p95=] [memory=]
suites                                  machines                versions

Imported records are in none of these unless a path names their device, as foreign-NAME:SUITE/RECIPE/ENGINE.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence

from bench.contract import outside, plugins
from bench.contract.columns import Group
from bench.contract.errors import UserError
from bench.publish import machines, recommend
from bench.publish.document import query, table
from bench.publish.records import Records
from bench.publish.tables import parts, render, sections
from bench.publish.tables.columns import format_mean, format_percent, in_currency, number, quotable
from bench.publish.tables.model import Section


def write(command: str, records: Records) -> str:
    """The text of a command; UserError for an invalid one."""
    try:
        verb, *args = shlex.split(command)
    except ValueError as error:
        raise UserError(f"{error}: check its quotes") from None
    if verb not in _VERBS:
        raise UserError(plugins.unknown("command", verb, (*_VERBS, "holds")))
    return _VERBS[verb](records, args)


def _value(records: Records, args: Sequence[str]) -> str:
    """A number of query.value, in its unit."""
    value = query.value(records, args)
    if args[0] in ("ratio", "rank"):
        return number(value, 3)
    if args[0] in ("count", "pairs"):
        return f"{value:,.0f}"
    column = quotable(args[-1])
    relative = Group.RELATIVE in column.groups
    text = format_percent(value) if relative else number(value * column.scale, column.digits)
    text = text.removeprefix("+") if args[0] == "seeds" else text
    if Group.MONEY in column.groups:
        text = in_currency(column, text, query.currency(records, args))
    return f"{text} {column.unit}".strip()


def _figure(records: Records, args: Sequence[str]) -> str:
    """A metric as tables show it, with its range over rounds or its interval."""
    if len(args) != 2:
        raise UserError("expected: figure PATH KEY")
    match, column = query.only(records, args[0]), quotable(args[1])
    match.require(column.key)
    text = sections.format_cell(column, match.row, match.entry, sections.Notes()).removesuffix(f" {sections.STAR}")
    over = match.entry.seeds.get(column.key) if match.entry is not None and Group.CHANGE not in column.groups else None
    seeds = f" (over {over.n} seeds {format_mean(column, over)})" if over else ""
    return f"{outside.markdown_prose(text)} {column.unit}".strip() + seeds


def _table(records: Records, args: Sequence[str]) -> str:
    """Rows of SUITE/RECIPE/ENGINE, a column for each KEY[@TITLE], in the order of by=KEY[@TITLE]."""
    order = next((arg.removeprefix("by=") for arg in args if arg.startswith("by=")), "")
    path, *keys = [arg for arg in args if not arg.startswith("by=")] or [""]
    if not keys:
        raise UserError("expected: table SUITE/RECIPE/ENGINE KEY@WORKLOAD-OR-TASK ...")
    return table.table(query.rows(records, path), keys, order)


def _parts(records: Records, args: Sequence[str]) -> str:
    """A metric over parts of a task's items, a line for each row of SUITE/RECIPE/ENGINE."""
    if len(args) != 2 or "@" not in args[1]:
        raise UserError("expected: parts SUITE/RECIPE/ENGINE KEY@TASK")
    key, _, pattern = args[1].partition("@")
    rows = query.rows(records, args[0])
    titles = dict.fromkeys(title for row in rows for title, entry in query.entries(row, pattern) if entry.parts)
    if len(titles) != 1:
        raise UserError(f"{pattern} matches {len(titles)} tasks with parts: name one of {', '.join(titles) or 'those'}")
    (title,) = titles
    rows = [row for row in rows if title in row.tasks]
    tables = {column.key: table for column, table in parts.by_column(rows, title)}
    if key not in tables:
        raise UserError(plugins.unknown("figure of parts", key, tuple(tables)))
    return "\n".join(render.piped(tables[key]))


def _reasons(records: Records, args: Sequence[str]) -> str:
    """What could not run or failed in a suite, a line for each reason."""
    reasons: dict[str, dict[str, None]] = {}
    for row in query.rows(records, f"{' '.join(args)}/*/*"):
        for _, entry in query.entries(row, "*"):
            if entry.status in ("unsupported", "failed"):
                reasons.setdefault(f"{entry.status}: {entry.reason}", {})[f"{row.recipe} on {row.engine}"] = None
    lines = (
        f"- {outside.markdown_prose(', '.join(who))}: {outside.markdown_text(why)}" for why, who in reasons.items()
    )
    return "\n".join(lines) or "- none"


def _pick(records: Records, args: Sequence[str]) -> str:
    """What `bench recommend` says of a suite, a workload and limits."""
    names, limits = [arg for arg in args if "=" not in arg], dict(arg.split("=", 1) for arg in args if "=" in arg)
    if len(names) != 2 or not limits.keys() <= _LIMITS:
        raise UserError(f"expected: pick SUITE WORKLOAD, then any of {'=... '.join(sorted(_LIMITS))}=...")
    recovery, ttft = (_limit(limits, key) for key in ("min-recovery", "ttft-p95"))
    memory = recommend.size_bytes(limits["memory"]) if "memory" in limits else None
    wish = recommend.Wish(recommend.objective(limits.get("objective", "tok_per_s")), recovery, ttft, memory)
    rows = query.rows(records, f"{names[0]}/*/*")
    candidates = recommend.recommend(rows, recommend.workload_of(rows, names[1], wish), wish)
    return "\n".join(render.piped(recommend.section(candidates, names[1])))


def _limit(limits: Mapping[str, str], key: str) -> float | None:
    try:
        return float(limits[key]) if key in limits else None
    except ValueError:
        raise UserError(f"invalid {key}={limits[key]}: expected a number") from None


def _suites(records: Records, _: Sequence[str]) -> str:
    """The command that runs each suite, how many rounds its records are of, what they took."""
    heads = ("device", "suite", "made by", "rounds ok", "unsupported", "failed", "minutes measured")
    lines = [f"| {' | '.join(heads)} |", "| --- | --- | --- | ---: | ---: | ---: | ---: |"]
    for (device, suite), results in records.own().results.items():
        rounds = [r for r in results if r.cell.workload is not None or r.cell.task is not None]
        counts = [sum(r.status == status for r in rounds) for status in ("ok", "unsupported", "failed")]
        minutes = sum(r.duration_s for r in rounds) / 60
        names = map(outside.markdown_text, (device, suite))
        command = f"`python -m bench run configs/{outside.code(suite)}.yaml`"
        cells = (*names, command, *map(str, counts), f"{minutes:.0f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _machines(records: Records, _: Sequence[str]) -> str:
    """The machines that the records come from, and the suites that each ran."""
    return "\n".join(line for device in records.own().devices for line in machines.lines(records.results_of(device)))


def _versions(records: Records, _: Sequence[str]) -> str:
    """The libraries that each engine's rounds ran on."""
    pairs = tuple(machines.versions(records.own().all_results()))
    return "\n".join(render.piped(Section("", ("engine", "libraries"), pairs)))


_LIMITS = {"objective", "min-recovery", "ttft-p95", "memory"}
_VERBS: Mapping[str, Callable[[Records, Sequence[str]], str]] = {
    "value": _value,
    "figure": _figure,
    "table": _table,
    "parts": _parts,
    "reasons": _reasons,
    "pick": _pick,
    "suites": _suites,
    "machines": _machines,
    "versions": _versions,
}
