"""Which of the measured recipes and engines to deploy: what is feasible, what is best, and why.

The recovery of a row is its worst over the tasks: a score over the baseline's, or for perplexity the
baseline's over its own. A figure that was not measured is within no limit.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal, cast, get_args

from bench.contract import plugins
from bench.contract.columns import RECOVERY, Group
from bench.contract.errors import UserError
from bench.contract.wire import OMITTED_AT_DEFAULT
from bench.foreign import is_foreign, is_selected
from bench.measure.frontier import dominates
from bench.measure.sanity import DUMMY
from bench.publish.tables import price
from bench.publish.tables.columns import CURRENCY, RECOMMENDED_BY, format_value, in_currency, task_columns
from bench.publish.tables.model import CellSummary, Row, Section
from bench.suite.price import HOUR_FORM

Objective = Literal["tok_per_s", "energy", "memory", "price"]
LEGEND = "frontier: dominated by nothing; dominated: in no figure better than that other, in one or more worse"


@dataclass(frozen=True)
class Wish:
    """Limits (None: no limit), and the objective among the candidates that keep them."""

    objective: Objective = "tok_per_s"
    min_recovery: float | None = None
    ttft_p95_s: float | None = None
    memory_bytes: float | None = None


@dataclass(frozen=True)
class Candidate:
    """A recipe on an engine; on a `machine` where those of several are compared, priced in `currency`.

    `reason` says why it is not the pick, or why it is.
    """

    recipe: str
    engine: str
    figures: Mapping[str, float]
    feasible: bool = False
    frontier: bool = False
    picked: bool = False
    reason: str = ""
    machine: str = field(default="", metadata=OMITTED_AT_DEFAULT)
    currency: str = field(default="", metadata=OMITTED_AT_DEFAULT)


def recommend(rows: Sequence[Row], workload: str, wish: Wish) -> list[Candidate]:
    """Every row that ran the workload: the pick, the frontier, the rest, best first; ties by recovery, memory, name."""
    order = partial(_order, wish.objective)
    candidates = _candidates([row for row in rows if _ran(row, workload)], workload)
    candidates = [replace(candidate, reason=_violated_limits(candidate, wish)) for candidate in candidates]
    feasible = [candidate for candidate in candidates if not candidate.reason]
    pick = min(feasible, key=order, default=None)
    if pick is not None:
        candidates = [c if c.reason else _ranked(c, pick, feasible, wish.objective) for c in candidates]
    return sorted(candidates, key=lambda c: (not c.picked, not c.frontier, not c.feasible, order(c)))


def _candidates(rows: Sequence[Row], workload: str) -> list[Candidate]:
    """A candidate for each row, its machine named where they ran on several."""
    several = len({row.device for row in rows}) > 1
    return [
        Candidate(
            row.recipe,
            row.engine,
            _figures(row, workload),
            machine=row.device if several else "",
            currency=row.workloads[workload].words.get(CURRENCY, ""),
        )
        for row in rows
    ]


def _ranked(one: Candidate, pick: Candidate, feasible: Sequence[Candidate], objective: Objective) -> Candidate:
    """A feasible candidate with its rank among the feasible ones."""
    measured = [key for key in RECOMMENDED_BY if all(key in c.figures for c in feasible)]
    dominating = [other for other in feasible if dominates([_gain(key, other, one) for key in measured])]
    ranked = replace(one, feasible=True, frontier=not dominating, picked=one is pick)
    better = [RECOMMENDED_BY[key].header for key in measured if _gain(key, one, pick) > 0]
    if one is pick:
        equal = [_name(c, feasible) for c in feasible if c is not pick and not _gain(objective, c, pick)]
        reason = f"best {RECOMMENDED_BY[objective].named} of {len(feasible)} that keep the limits"
        reason += f"; as good: {', '.join(equal)}" if equal else ""
    elif dominating:
        reason = f"dominated by {_name(min(dominating, key=partial(_order, objective)), feasible)}"
    else:
        reason = f"better than the pick in {', '.join(better)}" if better else "as good as the pick"
    return replace(ranked, reason=reason)


def objective(name: str) -> Objective:
    """The objective of that name; UserError for another."""
    if name not in get_args(Objective):
        raise UserError(plugins.unknown("objective", name, get_args(Objective)))
    return cast("Objective", name)


def of_device(rows: Sequence[Row], suite: str, device: str, objective: Objective = "tok_per_s") -> list[Row]:
    """The rows of one device; UserError where none was measured here, or several were, and none is named.

    By price machines are compared: of all that were measured here where none is named.
    """
    devices = dict.fromkeys(row.device for row in rows if is_selected(row.device, device if is_foreign(device) else ""))
    imported = ", ".join(dict.fromkeys(row.device for row in rows if is_foreign(row.device)))
    if not devices and imported:
        raise UserError(f"no records of the suite {suite} but imported ones: name them with --device, of {imported}")
    if not devices:
        raise UserError(f"no records of the suite {suite}: run it first, with python -m bench run {suite}")
    if device and device not in devices:
        raise UserError(f"no records of the device {device}: choose of {', '.join(devices)}")
    if objective == "price" and not device:
        return [row for row in rows if row.device in devices]
    if len(devices) > 1 and not device:
        raise UserError(f"the suite was run on several devices: choose one with --device, of {', '.join(devices)}")
    return [row for row in rows if row.device == (device or next(iter(devices)))]


def size_bytes(text: str) -> float:
    """16GiB, 500 MiB or 8e9 as bytes; UserError for anything else."""
    match = re.fullmatch(r"\s*(\d*\.?\d+(?:e\+?\d+)?)\s*(?:([KMGT])(i?)B|B)?\s*", text)
    if match is None or float(match[1]) <= 0:
        raise UserError(f"invalid size '{text}': expected e.g. 16GiB or 500MiB")
    unit: int = (1024 if match[3] else 1000) ** " KMGT".index(match[2] or " ")
    return float(match[1]) * unit


def workload_of(rows: Sequence[Row], name: str, wish: Wish) -> str:
    """The workload of that name, else the only one that measures what the wish needs; UserError for none or several."""
    titles = dict.fromkeys(t for row in rows for t in row.workloads if _ran(row, t))
    if name and name not in titles:
        raise UserError(f"no records of the workload {name}: choose of {', '.join(titles) or 'none'}")
    needed = [wish.objective, *(["ttft_p95_s"] if wish.ttft_p95_s else [])]
    metrics = " and ".join(RECOMMENDED_BY[key].named for key in needed)
    fit = [t for t in titles if any(all(k in _figures(r, t) for k in needed) for r in rows if _ran(r, t))]
    choices = ", ".join(sorted(fit))
    if name and name not in fit:
        advice = f"choose of {choices}" if fit else "no workload of the suite does, run one that does"
        raise UserError(f"the workload {name} does not measure {metrics}: {advice}")
    if not fit:
        raise UserError(f"no workload measures {metrics}: run one that does")
    if len(fit) > 1 and not name:
        raise UserError(f"{len(fit)} workloads measure {metrics}: choose one with --workload, of {choices}")
    return name or fit[0]


def require_prices(rows: Sequence[Row], results: str) -> None:
    """UserError where no machine has a price, or two have theirs in two currencies."""
    currencies = {cell.words[CURRENCY] for row in rows for cell in row.workloads.values() if CURRENCY in cell.words}
    if not currencies:
        raise UserError(
            f"no price of a machine is given: give --price {HOUR_FORM}, name its device in {results}/prices.yaml, or "
            "give the suite a price_per_hour"
        )
    if len(currencies) > 1:
        raise UserError(f"the machines are priced in {' and '.join(sorted(currencies))}: give all in one currency")


def without_quality(rows: Sequence[Row], suite: str, wish: Wish) -> str:
    """Why no row has a recovery, or nothing where one has; UserError where the wish limits it."""
    if any(recovery(row) is not None for row in rows if not row.baseline):
        return ""
    if any(DUMMY in cell.marks for row in rows for cell in row.workloads.values()):
        why, advice = f"{suite} runs dummy weights, whose predictions mean nothing", "judge a suite of the real model"
    else:
        why = f"no task of {suite} was measured on a compressed model"
        advice = f"give {suite} a task and run it"
    if wish.min_recovery is not None:
        raise UserError(f"there is no recovery to judge by, as {why}: leave out --min-recovery, or {advice}")
    return f"quality is not judged: {why}"


def section(candidates: Sequence[Candidate], workload: str) -> Section:
    """A line per candidate, with its reason in the last column."""
    keys = [key for key in RECOMMENDED_BY if any(key in c.figures for c in candidates)]
    lines = []
    several = any(c.machine for c in candidates)
    for c in candidates:
        figures = (_shown(key, c) for key in keys)
        verdict = "pick" if c.picked else "frontier" if c.frontier else "feasible" if c.feasible else "no"
        lines.append((c.recipe, c.engine, *([c.machine] if several else []), *figures, verdict, c.reason))
    machine = ["machine"] if several else []
    heads = ("recipe", "engine", *machine, *(RECOMMENDED_BY[k].named for k in keys), "verdict", "why")
    return Section(workload, heads, tuple(lines))


def _shown(key: str, candidate: Candidate) -> str:
    column = RECOMMENDED_BY[key]
    return in_currency(column, format_value(column, candidate.figures.get(key), 3), candidate.currency)


def as_json(candidates: Sequence[Candidate], workload: str, wish: Wish) -> dict[str, Any]:
    """`pick` is None if none is feasible."""
    picked = next((c for c in candidates if c.picked), None)
    machine = {"machine": picked.machine} if picked and picked.machine else {}
    pick = {"recipe": picked.recipe, "engine": picked.engine, **machine} if picked else None
    return {"pick": pick, "workload": workload, "wish": wish, "candidates": candidates}


def _ran(row: Row, workload: str) -> bool:
    return workload in row.workloads and row.workloads[workload].status == "ok"


def _figures(row: Row, workload: str) -> dict[str, float]:
    cell = row.workloads[workload]
    medians = {key: figure.median for key, figure in cell.figures.items()}
    figures = {name: medians.get(column.key) for name, column in RECOMMENDED_BY.items()}
    figures["recovery"] = recovery(row)
    if not medians.get("energy_valid"):
        figures["energy"] = None
    if price.has_slo(cell):  # what would be deployed is the best point that keeps it
        figures["price"] = medians.get(f"slo_{RECOMMENDED_BY['price'].key}")
    return {name: value for name, value in figures.items() if value is not None}


def recovery(row: Row) -> float | None:
    """The worst over the tasks; None where no task has one."""
    return min((value for cell in row.tasks.values() if (value := _recovery(row, cell)) is not None), default=None)


def _recovery(row: Row, cell: CellSummary) -> float | None:
    if cell.status != "ok":
        return None
    if RECOVERY.key in cell.change:
        return cell.change[RECOVERY.key]
    for column in task_columns(cell.kind):
        if Group.RELATIVE in column.groups and column.key in cell.change:
            ratio = 1 + cell.change[column.key]
            return 1 / ratio if column.better == "lower" else ratio
    return 1.0 if row.baseline else None


def _violated_limits(candidate: Candidate, wish: Wish) -> str:
    """The limits that the candidate violates, as text; empty if it keeps all."""
    figures, violated = candidate.figures, []
    if wish.objective == "price" and "price" not in figures:
        violated.append("no level of the sweep keeps the SLO" if candidate.currency else "its machine has no price")
    elif wish.objective not in figures:
        violated.append(f"{RECOMMENDED_BY[wish.objective].named} was not measured")
    limits = {"recovery": wish.min_recovery, "ttft_p95_s": wish.ttft_p95_s, "memory": wish.memory_bytes}
    for key, limit in limits.items():
        column = RECOMMENDED_BY[key]
        if limit is None:
            continue
        if key not in figures:
            violated.append(f"{column.named} was not measured")
        elif figures[key] != limit and (figures[key] < limit) == (column.better == "higher"):
            figure, bound = (format_value(column, value, 4) for value in (figures[key], limit))
            sign = "<" if column.better == "higher" else ">"
            violated.append(f"{column.header} {figure} {sign} {bound} {column.unit}".strip())
    return "; ".join(violated)


def _gain(key: str, one: Candidate, other: Candidate) -> float:
    return _goodness(key, one) - _goodness(key, other)


def _goodness(key: str, candidate: Candidate) -> float:
    """The figure, negative where less of it is better."""
    return candidate.figures[key] if RECOMMENDED_BY[key].better == "higher" else -candidate.figures[key]


def _order(objective: Objective, c: Candidate) -> tuple[float, float, float, str, str, str]:
    best = -_goodness(objective, c) if objective in c.figures else math.inf
    memory = c.figures.get("memory", math.inf)
    return (best, -c.figures.get("recovery", 0.0), memory, c.recipe, c.engine, c.machine)


def _name(candidate: Candidate, among: Sequence[Candidate]) -> str:
    """The recipe, with its engine and its machine where it ran on several."""
    its = [c for c in among if c.recipe == candidate.recipe]
    name = candidate.recipe if len({c.engine for c in its}) == 1 else f"{candidate.recipe} on {candidate.engine}"
    return name if len({c.machine for c in its}) == 1 else f"{name} on {candidate.machine}"
