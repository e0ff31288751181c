"""Which recipe and engine to deploy, of those that were measured: what is feasible, what is best, and why.

The recovery of a row is its worst over the tasks: a score over the baseline's, or for perplexity the
baseline's over its own. Nothing is assumed of what was not measured: a limit on it is not kept.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal

from bench.contract import plugins, wire
from bench.contract.columns import RECOVERY, Group
from bench.contract.errors import UserError
from bench.measure.frontier import dominates
from bench.measure.sanity import DUMMY
from bench.publish.tables.columns import DASH, RECOMMENDED_BY, number, task_columns
from bench.publish.tables.model import CellSummary, Row, Section

Objective = Literal["tok_per_s", "energy", "memory"]
LEGEND = "frontier: dominated by nothing; dominated: in no figure better than that other, in one or more worse"


@dataclass(frozen=True)
class Wish:
    """Limits, None being no limit, and what is to be best among what keeps them."""

    objective: Objective = "tok_per_s"
    min_recovery: float | None = None
    ttft_p95_s: float | None = None
    memory_bytes: float | None = None


@dataclass(frozen=True)
class Candidate:
    """A recipe on an engine. `reason` says why it is not the pick, or why it is."""

    recipe: str
    engine: str
    figures: Mapping[str, float]
    feasible: bool = False
    frontier: bool = False
    picked: bool = False
    reason: str = ""


def recommend(rows: Sequence[Row], workload: str, wish: Wish) -> list[Candidate]:
    """Every row that has figures of the workload: the pick, then the frontier, then the rest, the best first.

    Of equals in the objective the one with more recovery is taken, then the one in less memory, then the
    first by name.
    """
    found = [Candidate(r.recipe, r.engine, _figures(r, workload)) for r in rows if _ran(r, workload)]
    judged = [replace(candidate, reason=_against(candidate, wish)) for candidate in found]
    able = [candidate for candidate in judged if not candidate.reason]
    pick = min(able, key=_order(wish.objective), default=None)
    done = [candidate for candidate in judged if candidate.reason]
    if pick is not None:
        done += [_placed(candidate, pick, able, wish.objective) for candidate in able]
    order = _order(wish.objective)
    return sorted(done, key=lambda c: (not c.picked, not c.frontier, not c.feasible, order(c)))


def _placed(one: Candidate, pick: Candidate, able: Sequence[Candidate], objective: Objective) -> Candidate:
    """A feasible candidate with its place among the feasible ones."""
    known = [key for key in RECOMMENDED_BY if all(key in c.figures for c in able)]
    over = [other for other in able if _dominates(other, one, known)]
    placed = replace(one, feasible=True, frontier=not over, picked=one is pick)
    if one is pick:
        return replace(placed, reason=_why(pick, able, objective))
    if over:
        by = _name(min(over, key=_order(objective)), able)
        return replace(placed, reason=f"dominated by {by}")
    return replace(placed, reason=_beats(one, pick, known))


def objective(word: str) -> Objective:
    """The word as an objective; UserError for another."""
    known: dict[str, Objective] = {"tok_per_s": "tok_per_s", "energy": "energy", "memory": "memory"}
    if word not in known:
        raise UserError(plugins.unknown("objective", word, tuple(known)))
    return known[word]


def of_device(rows: Sequence[Row], suite: str, device: str) -> list[Row]:
    """The rows of one device; UserError where none was measured, or several and none is named."""
    there = dict.fromkeys(row.device for row in rows)
    if not there:
        raise UserError(f"no records of the suite {suite}; run it first: python -m bench run {suite}")
    if device and device not in there:
        raise UserError(f"no records of the device {device}; there are: {', '.join(there)}")
    if len(there) > 1 and not device:
        raise UserError(f"the suite was run on several devices; say --device: {', '.join(there)}")
    return [row for row in rows if row.device == (device or next(iter(there)))]


def size_bytes(text: str) -> float:
    """16GiB, 500 MiB or 8e9 as bytes; UserError for what is no size."""
    found = re.fullmatch(r"\s*([0-9.e+]+)\s*([KMGT]i?B|B)?\s*", text)
    try:
        count = float(found[1]) if found else -1.0
    except ValueError:
        count = -1.0
    if found is None or count <= 0:
        raise UserError(f"'{text}' is no size: write 16GiB or 500MiB")
    unit = found[2] or "B"
    return float(count * (1024 if "i" in unit else 1000) ** " KMGT".index(unit[0].replace("B", " ")))


def workload_of(rows: Sequence[Row], asked: str, wish: Wish) -> str:
    """The workload to judge by: the one asked for, else the only one that tells what is wished for.

    UserError where there is none or are several.
    """
    titles = dict.fromkeys(t for row in rows for t in row.workloads if _ran(row, t))
    if asked and asked not in titles:
        raise UserError(f"no record of the workload {asked}; there are: {', '.join(titles) or 'none'}")
    needed = [wish.objective, *(["ttft_p95_s"] if wish.ttft_p95_s else [])]
    words = " and ".join(RECOMMENDED_BY[key].named for key in needed)
    fit = [t for t in titles if any(all(k in _figures(r, t) for k in needed) for r in rows if _ran(r, t))]
    if asked and asked not in fit:
        other = f"choose of {', '.join(sorted(fit))}" if fit else "none of the suite's has: run one that does"
        raise UserError(f"the workload {asked} does not tell {words}; {other}")
    if not fit:
        raise UserError(f"no workload tells {words}; run one that does")
    if len(fit) > 1 and not asked:
        raise UserError(f"{len(fit)} workloads tell {words}; say which with --workload: {', '.join(sorted(fit))}")
    return asked or fit[0]


def without_quality(rows: Sequence[Row], suite: str, wish: Wish) -> str:
    """Why no row has a recovery, or nothing where one has; UserError where it was to be judged by."""
    if any(recovery(row) is not None for row in rows if not row.baseline):
        return ""
    loads = (entry for row in rows for entry in row.workloads.values())
    if any(DUMMY in entry.marks for entry in loads):
        why = f"{suite} runs dummy weights, whose predictions mean nothing"
        what = "judge a suite of the real model"
    else:
        why, what = (f"no task of {suite} was measured on a compressed model", f"give {suite} a task and run it")
    if wish.min_recovery is not None:
        raise UserError(f"there is no recovery to judge by: {why}; leave out --min-recovery, or {what}")
    return f"quality is not judged: {why}"


def section(found: Sequence[Candidate], workload: str) -> Section:
    """For a person: a line per candidate, the reasons last."""
    keys = [key for key in RECOMMENDED_BY if any(key in c.figures for c in found)]
    lines = tuple(
        (
            c.recipe,
            c.engine,
            *(_shown(k, c.figures[k]) if k in c.figures else DASH for k in keys),
            _verdict(c),
            c.reason,
        )
        for c in found
    )
    return Section(workload, ("recipe", "engine", *(RECOMMENDED_BY[k].named for k in keys), "verdict", "why"), lines)


def _verdict(c: Candidate) -> str:
    known = {"pick": c.picked, "frontier": c.frontier, "feasible": c.feasible}
    return next((word for word, it_is in known.items() if it_is), "no")


def as_json(found: Sequence[Candidate], workload: str, wish: Wish) -> str:
    """Everything, for a program; `pick` is null where nothing is feasible."""
    pick = next((c for c in found if c.picked), None)
    named = {"recipe": pick.recipe, "engine": pick.engine} if pick else None
    plain = {"pick": named, "workload": workload, "wish": asdict(wish), "candidates": [asdict(c) for c in found]}
    return wire.dumps(plain, indent=1) + "\n"


def _ran(row: Row, workload: str) -> bool:
    return workload in row.workloads and row.workloads[workload].status == "ok"


def _figures(row: Row, workload: str) -> dict[str, float]:
    medians = {key: found.median for key, found in row.workloads[workload].figures.items()}
    figures = {name: medians.get(column.key) for name, column in RECOMMENDED_BY.items()}
    figures["recovery"] = recovery(row)
    if not medians.get("energy_valid"):
        figures["energy"] = None
    return {name: value for name, value in figures.items() if value is not None}


def recovery(row: Row) -> float | None:
    """The worst over the tasks; None where no task tells."""
    known = [found for entry in row.tasks.values() if (found := _recovered(row, entry)) is not None]
    return min(known, default=None)


def _recovered(row: Row, entry: CellSummary) -> float | None:
    if entry.status != "ok":
        return None
    if RECOVERY.key in entry.change:
        return entry.change[RECOVERY.key]
    for column in task_columns(entry.kind):
        if Group.RELATIVE in column.groups and column.key in entry.change:
            ratio = 1 + entry.change[column.key]
            return 1 / ratio if column.better == "lower" else ratio
    return 1.0 if row.baseline else None


def _against(candidate: Candidate, wish: Wish) -> str:
    """The limits that it does not keep, in words; nothing where it keeps all."""
    figures, said = candidate.figures, []
    if wish.objective not in figures:
        said.append(f"{RECOMMENDED_BY[wish.objective].named} was not measured")
    limits = {"recovery": wish.min_recovery, "ttft_p95_s": wish.ttft_p95_s, "memory": wish.memory_bytes}
    for key, limit in limits.items():
        if limit is None:
            continue
        title, more = RECOMMENDED_BY[key].named, RECOMMENDED_BY[key].better == "higher"
        if key not in figures:
            said.append(f"{title} was not measured")
        elif (figures[key] < limit) if more else (figures[key] > limit):
            mine, asked = (_shown(key, value, digits=4) for value in (figures[key], limit))
            told = f"{RECOMMENDED_BY[key].header} {mine} {'<' if more else '>'} {asked} {RECOMMENDED_BY[key].unit}"
            said.append(told.strip())
    return "; ".join(said)


def _dominates(one: Candidate, other: Candidate, keys: Sequence[str]) -> bool:
    return dominates([_gain(key, one.figures[key], other.figures[key]) for key in keys])


def _gain(key: str, mine: float, other: float) -> float:
    return mine - other if RECOMMENDED_BY[key].better == "higher" else other - mine


def _order(objective: Objective) -> Callable[[Candidate], tuple[float, float, float, str, str]]:
    def key(c: Candidate) -> tuple[float, float, float, str, str]:
        best, more = c.figures.get(objective), RECOMMENDED_BY[objective].better == "higher"
        return (
            float("inf") if best is None else -best if more else best,
            -c.figures.get("recovery", 0.0),
            c.figures.get("memory", float("inf")),
            c.recipe,
            c.engine,
        )

    return key


def _why(pick: Candidate, able: Sequence[Candidate], objective: Objective) -> str:
    equal = [c for c in able if c is not pick and c.figures[objective] == pick.figures[objective]]
    said = f"best {RECOMMENDED_BY[objective].named} of {len(able)} that keep the limits"
    return f"{said}; as good: {', '.join(_name(c, able) for c in equal)}" if equal else said


def _beats(candidate: Candidate, pick: Candidate, keys: Sequence[str]) -> str:
    """What is on the frontier is better than the pick in something."""
    found = [key for key in keys if _gain(key, candidate.figures[key], pick.figures[key]) > 0]
    words = [RECOMMENDED_BY[key].header for key in found]
    return f"better than the pick in {', '.join(words)}" if words else "as good as the pick"


def _shown(key: str, value: float, *, digits: int = 3) -> str:
    return number(value * RECOMMENDED_BY[key].scale, digits)


def _name(candidate: Candidate, among: Sequence[Candidate]) -> str:
    """The recipe, with its engine where it ran on several."""
    alone = [c.recipe for c in among].count(candidate.recipe) == 1
    return candidate.recipe if alone else f"{candidate.recipe} on {candidate.engine}"
