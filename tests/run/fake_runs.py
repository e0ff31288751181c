"""Suites of the demo model on the fake engine, and the records that they leave."""

from __future__ import annotations

from pathlib import Path

from bench.contract.record import Result
from bench.contract.spec import Suite
from bench.machine import counters
from bench.progress.progress import Progress
from bench.run import plan, records, runner
from bench.store import Store
from bench.suite import config

_SUITE = """
model: {model}
recipes: [as-is]
engines: {engines}
workloads: [{{batch: 1, prompt_tokens: 4, new_tokens: 4, repeats: 2}}]
devices: [cpu]
rounds: {rounds}
settle_s: 0
"""


def suite_file(tmp_path: Path, engines: str = "[fake]", rounds: int = 2, model: str = "models/demo") -> str:
    """The path of a suite with one offline cell per engine."""
    file = tmp_path / "mine.yaml"
    file.write_text(_SUITE.format(model=model, engines=engines, rounds=rounds))
    return str(file)


def suite(**fields: object) -> Suite:
    """A suite of the demo model in float32 on the fake engine and the CPU; `fields` as in a suite's file."""
    base = {"name": "s", "model": "models/demo", "recipes": ["fp32"], "engines": ["fake"]}
    return config.suite({**base, "devices": ["cpu"], "settle_s": 0, **fields})


def run(
    suite: Suite, store: Store, open_reader: counters.OpenReader = counters.reader, *, fetch: bool = False
) -> list[Result]:
    """Run what the store lacks of the suite, failed rounds included."""
    planned = plan.plan(suite, fetch=fetch)
    with Progress() as progress:
        runner.run(planned, store, progress, retry_failed=True, open_reader=open_reader)
    return records.current(planned, store)
