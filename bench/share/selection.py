"""The records that `bench export` and `bench bundle` take out: by suite and device."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from bench.contract.errors import UserError
from bench.contract.record import Result
from bench.foreign import is_selected
from bench.store import Store


def selected(store: Store, suites: Sequence[str] = (), device: str = "") -> list[Result]:
    """The records of suites and devices that the globs name; imported ones where `device` names them.

    UserError where one cannot be read, and where there are none.
    """
    records = [
        record
        for record in store.all()
        if is_selected(record.hardware.slug, device)
        and (not suites or any(fnmatchcase(record.suite, suite) for suite in suites))
    ]
    if store.problems:
        raise UserError(store.problems[0])
    if not records:
        chosen = " ".join([*(f"--suite {suite}" for suite in suites), *([f"--device {device}"] if device else [])])
        raise UserError(f"no records {f'match {chosen} ' if chosen else ''}in {store.root}: run a suite first")
    return records
