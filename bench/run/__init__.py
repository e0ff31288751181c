"""A plan, its rounds, and the record that each leaves.

`bench.run(suite)` runs a suite from Python: this package can be called, so that the room and the verb share their
name, as `python -m bench run` has it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.rows import Rows


class _Callable(ModuleType):
    def __call__(
        self,
        suite: str | Path,
        *,
        results: str | Path = "results",
        overrides: Sequence[str] = (),
        only: str = "",
        engine: str = "",
        retry_failed: bool = False,
        at_once: int = 2,
        quiet: bool = False,
    ) -> Rows:
        """Run what a suite still lacks, and return the records of its cells as rows.

        `suite`: a YAML file, here or one that ships (configs/smoke.yaml). `overrides`: "key=value" with dotted keys
        and YAML values. `only`: a glob over cell titles, recipes or workloads. `engine`: only this one. `at_once`:
        things built or scored at a time. Progress goes to stderr unless `quiet`. UserError says what to mend first;
        failed rounds are rows of that status.
        """
        from bench import rows
        from bench.progress.progress import Progress
        from bench.run import plan, records, runner
        from bench.store import Store
        from bench.suite import config

        with Progress(quiet=quiet) as progress:
            loaded = config.load_suite(Path(suite), overrides)
            planned = plan.plan(loaded, fetch=True, only=only, engine=engine, report=progress.doing)
            store = Store(Path(results))
            runner.run(planned, store, progress, retry_failed=retry_failed, at_once=at_once)
        return rows.of_records(records.current(planned, store))


sys.modules[__name__].__class__ = _Callable
