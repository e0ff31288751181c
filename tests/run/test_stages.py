"""Stages of work that no clock reads: at the same time where they may be, each after those that it needs."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import psutil
import pytest

from bench.contract.errors import CellError, UserError
from bench.contract.job import Report
from bench.process import child
from bench.progress.progress import Progress
from bench.run.stages import Stage, TooLittleMemoryError, run_all

_WAIT_S = 20.0


def _stage(
    name: str,
    run: Callable[[Report, Callable[[], bool]], Any],
    results: dict[str, Any],
    *after: str,
    needs_bytes: int = 0,
    on_device: bool = False,
) -> Stage:
    return Stage(
        name, run, lambda result: results.__setitem__(name, result), after, needs_bytes=needs_bytes, on_device=on_device
    )


def _run(stages: list[Stage], at_once: int) -> None:
    with Progress(quiet=True) as progress:
        run_all(stages, at_once, progress)


def test_two_run_at_the_same_time_and_know_it() -> None:
    """Each waits for the other to have begun, which one after the other would never be."""
    began = {name: threading.Event() for name in "ab"}
    results: dict[str, Any] = {}

    def meets(own: str, other: str) -> Callable[[Report, Callable[[], bool]], Any]:
        def run(_: Report, is_alone: Callable[[], bool]) -> Any:
            began[own].set()
            return began[other].wait(_WAIT_S), is_alone()

        return run

    _run([_stage("a", meets("a", "b"), results), _stage("b", meets("b", "a"), results)], 2)

    assert results == {"a": (True, False), "b": (True, False)}


@pytest.mark.parametrize(
    ("at_once", "needs_bytes", "on_device"), [(1, 0, False), (2, psutil.virtual_memory().total, False), (2, 0, True)]
)
def test_one_is_alone_where_no_other_may_run(at_once: int, needs_bytes: int, *, on_device: bool) -> None:
    """One at a time was chosen, memory would not do for two, or both compute on the same GPU."""
    results: dict[str, Any] = {}
    lock = threading.Lock()

    def run(_: Report, is_alone: Callable[[], bool]) -> Any:
        free = lock.acquire(blocking=False)
        time.sleep(0.05)
        lock.release()
        return free, is_alone()

    _run([_stage(n, run, results, needs_bytes=needs_bytes, on_device=on_device) for n in "abc"], at_once)

    assert results == dict.fromkeys("abc", (True, True))


def test_a_stage_begins_when_those_before_it_have_ended() -> None:
    """Whatever their order in the list; of those that may begin the first one does."""
    order: list[str] = []

    def add(name: str, _: Report, __: Callable[[], bool]) -> None:
        order.append(name)

    after = {"score": ("make", "input"), "input": ("make", "absent"), "late": (), "make": ()}
    _run([_stage(name, partial(add, name), {}, *its) for name, its in after.items()], 1)

    assert order == ["late", "make", "input", "score"]


def test_what_lacked_memory_beside_others_runs_again_alone() -> None:
    """Its own need was guessed too low: no failure is recorded that is another stage's doing."""
    began, results = threading.Event(), dict[str, Any]()

    def hungry(_: Report, is_alone: Callable[[], bool]) -> Any:
        if is_alone() and not began.wait(_WAIT_S):
            return "never met the other"
        if not is_alone():
            raise TooLittleMemoryError
        return "whole"

    def other(_: Report, __: Callable[[], bool]) -> Any:
        began.set()
        return "whole"

    _run([_stage("hungry", hungry, results), _stage("other", other, results), _stage("next", other, results)], 2)

    assert results == dict.fromkeys(("hungry", "other", "next"), "whole")


def test_an_error_ends_what_the_others_have_started() -> None:
    """The processes of other threads are gone, none of them is taken for failed, and nothing more begins."""
    pids: list[int] = []
    started, results = threading.Event(), dict[str, Any]()

    def endless(_: Report, __: Callable[[], bool]) -> Any:
        with child.running([sys.executable, "-c", "import time; time.sleep(600)"]) as process:
            pids.append(process.pid)
            started.set()
            return process.communicate()

    def fails(_: Report, __: Callable[[], bool]) -> Any:
        assert started.wait(_WAIT_S)
        raise UserError("no luck")

    began = time.monotonic()
    stages = [_stage("endless", endless, results), _stage("fails", fails, results), _stage("next", endless, results)]
    with pytest.raises(UserError, match="no luck"):
        _run(stages, 2)

    assert time.monotonic() - began < _WAIT_S
    assert results == {}
    assert len(pids) == 1
    assert not psutil.pid_exists(pids[0])


def test_nothing_is_started_while_all_is_ended() -> None:
    """A thread that was between two processes gets an error in place of the second."""
    with child.ending_all(), pytest.raises(CellError, match="stopped"), child.running([sys.executable, "-c", ""]):
        pytest.fail("it was started")
    with child.running([sys.executable, "-c", ""]) as process:
        process.communicate()
    assert process.returncode == 0
