"""Work that no clock reads, several stages of it at a time: each begins when those before it have ended."""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, replace
from graphlib import TopologicalSorter
from typing import Any

import psutil

from bench.contract.job import Report
from bench.process import child
from bench.progress.progress import Progress
from bench.progress.snapshot import RoundLabel

AT_ONCE = 2
_GIB = 2**30


class TooLittleMemoryError(Exception):
    """Raised by a stage that lacked memory beside others: it is run again, alone."""


class Company:
    """Whether a stage has been alone since it began."""

    def __init__(self) -> None:
        self._alone = True

    def is_alone(self) -> bool:
        return self._alone

    def end(self) -> None:
        self._alone = False


@dataclass(frozen=True)
class Stage:
    """`run` in a thread, then `end` with what it returned, in the thread that called `run_all`.

    `after`: keys of the stages before it; one that is not among the stages is not waited for. `label`: of a round.
    `needs_bytes`: memory it may take. `on_device`: it computes there, which holds one such stage at a time.
    """

    key: Hashable
    run: Callable[[Report, Callable[[], bool]], Any]  # given what reports for it, and whether it has been alone
    end: Callable[[Any], None]
    after: tuple[Hashable, ...] = ()
    label: RoundLabel | None = None
    needs_bytes: int = 0
    on_device: bool = False


def run_all(stages: Sequence[Stage], at_once: int, progress: Progress) -> None:
    """Run the stages, at most `at_once` at a time and as memory allows; of those that may begin the first ones first.

    One that lacked memory is run again, alone. What else one raises ends the others and is raised, as an interrupt is.
    """
    by_key = {stage.key: stage for stage in stages}
    order = TopologicalSorter({stage.key: [key for key in stage.after if key in by_key] for stage in stages})
    order.prepare()
    rank = {key: n for n, key in enumerate(by_key)}
    ready: list[Stage] = []
    running: dict[Future[Any], tuple[Stage, Company]] = {}
    with _threads(at_once) as threads:
        while order.is_active():
            ready += [by_key[key] for key in order.get_ready()]
            ready.sort(key=lambda stage: rank[stage.key])
            if not running:
                available = psutil.virtual_memory().available
            hindrances: list[str] = []
            for stage in tuple(ready):
                if len(running) == at_once:
                    break
                if hindrance := _hindrance(stage, [other for other, _ in running.values()], available):
                    hindrances.append(hindrance)
                    continue
                ready.remove(stage)
                company = Company()
                for its in (company, *(other for _, other in running.values())) if running else ():
                    its.end()
                running[threads.submit(_run, stage, company, progress)] = stage, company
            progress.doing(next(iter(hindrances), ""))  # the stages tell the rest
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                stage, _ = running.pop(future)
                try:
                    result = future.result()
                except TooLittleMemoryError:
                    ready.append(replace(stage, needs_bytes=sys.maxsize))
                    continue
                stage.end(result)
                order.done(stage.key)
    progress.doing("")


def _run(stage: Stage, company: Company, progress: Progress) -> Any:
    with progress.activity(stage.label) as shown:

        def report(text: str) -> None:
            child.check_not_ending()
            shown(text)

        return stage.run(report, company.is_alone)


def _hindrance(stage: Stage, others: Sequence[Stage], available: int) -> str:
    """What keeps a stage from beginning beside these, in a sentence, or nothing."""
    if not others:
        return ""
    if stage.on_device and any(other.on_device for other in others):
        return "waiting for the device: another stage computes on it"
    needs = [stage.needs_bytes, *(other.needs_bytes for other in others)]
    if sys.maxsize in needs:
        return "waiting for memory: a stage that lacked it runs alone"
    if sum(needs) > available:
        return (
            f"waiting for memory: with the next stage {sum(needs) / _GIB:.1f} GiB may be taken, and "
            f"{available / _GIB:.1f} GiB were free"
        )
    return ""


@contextmanager
def _threads(at_once: int) -> Iterator[ThreadPoolExecutor]:
    """Threads whose processes end with the block where that raises."""
    with ThreadPoolExecutor(at_once, "stage") as threads:
        try:
            yield threads
        except BaseException:
            with child.ending_all():
                threads.shutdown(cancel_futures=True)
            raise
