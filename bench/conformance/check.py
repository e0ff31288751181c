"""Run the conformance suite on each architecture, and judge its records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from bench import formats, paths
from bench.conformance import models, verdict
from bench.conformance.verdict import Verdict
from bench.contract import plugins
from bench.contract.errors import UserError
from bench.contract.record import Hardware
from bench.contract.spec import Model, Suite
from bench.run import plan as planner
from bench.run import records, runner
from bench.run.planned import Plan, PlannedRound
from bench.store import Store
from bench.suite import config

if TYPE_CHECKING:
    from bench.progress.progress import Progress

_FIRST = "hf"
SUITE = paths.CONFIGS / "conformance.yaml"


@dataclass(frozen=True)
class Checked:
    """The verdicts, in the order of the architectures and of the suite, on one machine, by these environments."""

    verdicts: tuple[Verdict, ...]
    hardware: Hardware
    environments: dict[str, dict[str, str]]


def check(
    names: Sequence[str], progress: Progress, *, only: str = "", engine: str = "", at_once: int = 2, run: bool = True
) -> Checked:
    """The verdicts on these architectures; cells without a record, and those that failed, run first unless not `run`.

    Records stay in the cache: what is interrupted goes on where it was.
    """
    store = Store(paths.cache_folder("architectures", "records"))
    verdicts: list[Verdict] = []
    environments: dict[str, dict[str, str]] = {}
    plans = [_plan(name, progress, only, engine) for name in names]
    for name, planned in zip(names, plans, strict=True):
        if run and planned.items:
            progress.line(f"{name}: {len(planned.items)} cells")
            runner.run(planned, store, progress, retry_failed=True, at_once=at_once)
        for item, record in sorted(records.stored(planned, store), key=lambda pair: pair[0].order):
            current = record if record is not None and record.digest == item.digest else None
            verdicts.append(verdict.of(name, item, current))
            if current and current.environment:
                environments[item.env] = dict(current.environment)
    if not verdicts:
        raise UserError(
            f"no cell of the conformance suite matches --only {only or '*'} --engine {engine or '*'}: "
            f"its recipes and engines are in {SUITE.name}"
        )
    hardware = next(item for planned in plans for item in planned.items).artifact.hardware
    return Checked(tuple(verdicts), hardware, dict(sorted(environments.items())))


def suite_of(name: str, folder: str) -> Suite:
    """The conformance suite on the model of an architecture."""
    suite = config.load_suite(SUITE)
    return replace(suite, name=f"conformance-{name}", model=Model(folder, name=name))


def _plan(name: str, progress: Progress, only: str, engine: str) -> Plan:
    folder = models.build(name, progress.doing)
    suite = suite_of(name, str(folder))
    planned = planner.plan(suite, fetch=True, only=only, engine=engine, report=progress.doing)
    return replace(planned, items=tuple(filter(_is_needed, planned.items)))


def _is_needed(item: PlannedRound) -> bool:
    """Pruned weights are plain floats: what loads the baseline loads them, and one engine shows that they are right."""
    is_pruned = formats.holds_floats(item.artifact.format) and any(
        not method.is_lossless(options) for method, options in map(plugins.method_of, item.artifact.steps)
    )
    return not is_pruned or item.cell.engine.title == _FIRST
