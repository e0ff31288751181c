"""`bench envs build`: environments built beside each other, as many as cores and memory allow."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial

from bench.contract.errors import UserError
from bench.contract.job import Report
from bench.envs import environment
from bench.progress.progress import Progress
from bench.run.stages import Stage, run_all
from bench.suite import environments

_MOST = 4  # at a time: beyond it they wait for the disk and the network
_GIB = 2**30


def of_suites() -> list[str]:
    """The environments that suites need, those that most of them need first."""
    suites = environments.needed()
    return sorted(suites, key=lambda name: (-len(suites[name]), name))


def build(names: Sequence[str], progress: Progress, *, tools: bool = False) -> None:
    """Build these, and their tools where asked; UserError in the end where one could not be, the others being built."""
    chosen = list(dict.fromkeys(names))
    for name in chosen:
        environment.spec(name)  # an unknown name is an error before anything is built
    if tools and not any(map(environment.has_tools, chosen)):
        raise UserError(f"none of {', '.join(chosen)} has tools to build: leave --tools out")
    failures: dict[str, UserError] = {}
    stages = [_stage(name, failures, progress, tools=tools) for name in chosen]
    run_all(stages, min(_MOST, max(2, os.cpu_count() or 1)), progress)
    if len(failures) == 1 == len(chosen):
        raise next(iter(failures.values()))
    if failures:
        for error in failures.values():
            progress.warn(f"failed: {error}")
        raise UserError(f"{len(failures)} of {len(chosen)} environments could not be built: {', '.join(failures)}")


def _stage(name: str, failures: dict[str, UserError], progress: Progress, *, tools: bool) -> Stage:
    """Of one environment, whose failure hinders no other."""

    def run(report: Report, _is_alone: Callable[[], bool]) -> list[str] | UserError:
        try:
            lines = [f"{name}: {environment.ensure(name, report).python}"]
            if tools and environment.has_tools(name):
                lines.append(f"{name}: tools in {environment.tools(name, report)}")
        except UserError as error:
            return error
        return lines

    return Stage(("env", name), run, partial(_end, name, failures, progress), needs_bytes=_GIB)


def _end(name: str, failures: dict[str, UserError], progress: Progress, result: list[str] | UserError) -> None:
    if isinstance(result, UserError):
        failures[name] = result
        return
    for line in result:
        progress.line(line)
