"""One run at a time on each kind of device of a cluster: a named actor, which Ray ends with the run that made it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType

from bench.contract.errors import UserError

_POLL_S, _LIMIT_S = 1.0, 24 * 3600.0


class Lock:
    """Its name is what is locked; it does nothing."""

    def is_locked(self) -> bool:
        return True


@contextmanager
def locked(library: ModuleType, kinds: Sequence[str], report: Callable[[str], None]) -> Iterator[None]:
    """Hold the locks of these kinds; `report` hears of a wait. In one order, two runs never block each other."""
    held: list[object] = []
    try:
        held.extend(_acquire(library, kind, report) for kind in sorted(kinds))
        yield
    finally:
        for lock in held:
            library.kill(lock)


def _acquire(library: ModuleType, kind: str, report: Callable[[str], None]) -> object:
    options = {"name": f"device-{kind}", "num_cpus": 0, "max_restarts": -1, "lifetime": None}
    began = time.monotonic()
    while True:
        try:
            lock = library.remote(Lock).options(**options).remote()
        except ValueError:  # the name is taken
            if time.monotonic() - began > _LIMIT_S:
                hours = f"{_LIMIT_S / 3600:g} h"
                raise UserError(
                    f"another run still has {kind} in this cluster after {hours}: end it, or run this again later"
                ) from None
            report(f"another run measures on {kind} in this cluster; waiting for it to end (Ctrl-C to give up)")
            time.sleep(_POLL_S)
        else:
            library.get(lock.is_locked.remote())
            return lock
