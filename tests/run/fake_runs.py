"""Suites of the demo model on the fake engine, and the records that they leave."""

from __future__ import annotations

from bench.contract.record import Result
from bench.contract.spec import Suite
from bench.machine import counters
from bench.progress.progress import Progress
from bench.run import plan, records, runner
from bench.store import Store
from bench.suite import config


def suite(**fields: object) -> Suite:
    """A suite of the demo model in float32 on the fake engine and the CPU; `fields` as in a suite's file."""
    base = {"name": "s", "model": "models/demo", "recipes": ["fp32"], "engines": ["fake"]}
    return config.suite({**base, "devices": ["cpu"], "settle_s": 0, **fields})


def run(suite: Suite, store: Store, open_reader: counters.OpenReader = counters.reader) -> list[Result]:
    """Run what the store lacks of the suite, failed rounds included."""
    planned = plan.plan(suite, fetch=False)
    with Progress() as progress:
        runner.run(planned, store, progress, retry_failed=True, open_reader=open_reader)
    return records.current(planned, store)
