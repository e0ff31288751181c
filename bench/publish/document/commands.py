"""What a document's commands write: a number with its unit, a name, a table, a list of reasons.

value NUMBER (see selection.value)      figure PATH KEY: with its range over rounds, or its interval
who least|most PATH KEY                 the recipe, on its engine, that has it
table SUITE/RECIPE/ENGINE KEY[@WORKLOAD-OR-TASK]... [by=KEY[@...]]
reasons SUITE                           pick SUITE WORKLOAD [objective=] [min-recovery=] [ttft-p95=] [memory=]
suites                                  machines                versions
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence

from bench.contract import plugins
from bench.contract.columns import Group
from bench.contract.errors import UserError
from bench.publish import machines, recommend
from bench.publish.document import records as selection
from bench.publish.document import table
from bench.publish.document.records import Source
from bench.publish.tables import render, sections
from bench.publish.tables.columns import format_percent, number, quotable


def write(command: str, source: Source) -> str:
    """The text of a command; UserError for one that cannot be followed."""
    try:
        verb, *words = shlex.split(command)
    except ValueError as error:
        raise UserError(f"{error}: check its quotes") from None
    if verb not in _VERBS:
        raise UserError(plugins.unknown("command", verb, (*_VERBS, "holds")))
    return _VERBS[verb](source, words)


def _value(source: Source, words: Sequence[str]) -> str:
    """A number of selection.value, in its unit."""
    found = selection.value(source, words)
    if words[0] in ("ratio", "count"):
        return number(found, 3) if words[0] == "ratio" else f"{found:,.0f}"
    column = quotable(words[-1])
    relative = Group.RELATIVE in column.groups
    text = format_percent(found) if relative else number(found * column.scale, column.digits)
    return f"{text} {column.unit}".strip()


def _figure(source: Source, words: Sequence[str]) -> str:
    """As tables have it, with its range over rounds or its interval."""
    if len(words) != 2:
        raise UserError("write: figure PATH KEY")
    selection.one(source, *words)  # which says so where there is no such figure
    found, column = selection.only(source, words[0]), quotable(words[1])
    text = table.cell(found, column, sections.Notes()).removesuffix(f" {sections.STAR}")
    return f"{text} {column.unit}".strip()


def _who(source: Source, words: Sequence[str]) -> str:
    """The recipe, on its engine, that has the least or most of a figure."""
    if len(words) != 3 or words[0] not in ("least", "most"):
        raise UserError("write: who least PATH KEY, or: who most PATH KEY")
    best = min if words[0] == "least" else max
    row = best(selection.having(source, words[1], words[2]), key=lambda pair: pair[1])[0].row
    return f"{row.recipe} on {row.engine}"


def _table(source: Source, words: Sequence[str]) -> str:
    """Rows of SUITE/RECIPE/ENGINE, a column for each KEY[@TITLE], in the order of by=KEY[@TITLE]."""
    order = next((word.removeprefix("by=") for word in words if word.startswith("by=")), "")
    path, *keys = [word for word in words if not word.startswith("by=")] or [""]
    if not keys:
        raise UserError("write: table SUITE/RECIPE/ENGINE KEY@WORKLOAD-OR-TASK ...")
    return table.table(selection.rows(source, path), keys, order)


def _reasons(source: Source, words: Sequence[str]) -> str:
    """What could not run or failed in a suite, a line for each reason."""
    found: dict[str, dict[str, None]] = {}
    for row in selection.rows(source, f"{' '.join(words)}/*/*"):
        for _, entry in selection.entries(row, "*"):
            if entry.status in ("unsupported", "failed"):
                found.setdefault(f"{entry.status}: {entry.reason}", {})[f"{row.recipe} on {row.engine}"] = None
    return "\n".join(f"- {', '.join(who)}: {render.escaped(why)}" for why, who in found.items()) or "- none"


def _pick(source: Source, words: Sequence[str]) -> str:
    """What `bench recommend` says of a suite, a workload and limits in its words."""
    named_, asked = [w for w in words if "=" not in w], dict(w.split("=", 1) for w in words if "=" in w)
    if len(named_) != 2 or not asked.keys() <= _LIMITS:
        raise UserError(f"write: pick SUITE WORKLOAD, then any of {'=... '.join(sorted(_LIMITS))}=...")
    recovery, ttft = (_limit(asked, key) for key in ("min-recovery", "ttft-p95"))
    memory = recommend.size_bytes(asked["memory"]) if "memory" in asked else None
    wish = recommend.Wish(recommend.objective(asked.get("objective", "tok_per_s")), recovery, ttft, memory)
    rows = selection.rows(source, f"{named_[0]}/*/*")
    found = recommend.recommend(rows, recommend.workload_of(rows, named_[1], wish), wish)
    return "\n".join(render.piped(recommend.section(found, named_[1])))


def _limit(asked: Mapping[str, str], key: str) -> float | None:
    try:
        return float(asked[key]) if key in asked else None
    except ValueError:
        raise UserError(f"{key}={asked[key]} is no number") from None


def _suites(source: Source, words: Sequence[str]) -> str:
    """The command that makes each suite's records again, how many they are, what they took."""
    del words
    heads = ("device", "suite", "made by", "rounds ok", "unsupported", "failed", "minutes measured")
    lines = [f"| {' | '.join(heads)} |", "| --- | --- | --- | ---: | ---: | ---: | ---: |"]
    for (device, suite), records in source.records.items():
        rounds = [r for r in records if r.cell.workload is not None or r.cell.task is not None]
        counts = [sum(r.status == status for r in rounds) for status in ("ok", "unsupported", "failed")]
        minutes = sum(r.duration_s for r in rounds) / 60
        names = map(render.escaped, (device, suite))
        cells = (*names, f"`python -m bench run configs/{suite}.yaml`", *map(str, counts), f"{minutes:.0f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _machines(source: Source, words: Sequence[str]) -> str:
    """What the records come from, and the suites that each ran."""
    del words
    return "\n".join(line for slug in source.devices for line in machines.lines(source.records_of(slug)))


def _versions(source: Source, words: Sequence[str]) -> str:
    """The libraries that each engine's rounds ran on."""
    del words
    found = machines.versions(result for records in source.records.values() for result in records)
    lines = [f"| {' | '.join(map(render.escaped, pair))} |" for pair in found]
    return "\n".join(["| engine | libraries |", "| --- | --- |", *lines])


_LIMITS = {"objective", "min-recovery", "ttft-p95", "memory"}
_VERBS: Mapping[str, Callable[[Source, Sequence[str]], str]] = {
    "value": _value,
    "figure": _figure,
    "who": _who,
    "table": _table,
    "reasons": _reasons,
    "pick": _pick,
    "suites": _suites,
    "machines": _machines,
    "versions": _versions,
}
