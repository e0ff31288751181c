"""The charts of the committed records, built once."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.publish import report
from bench.publish.figures import chart_data, distributions
from bench.publish.figures.specs import Spec
from bench.publish.records import gather
from bench.store import Store

RESULTS = Path(__file__).resolve().parents[3] / "results"


@pytest.fixture(scope="session")
def figures() -> dict[Path, Spec]:
    store = Store(RESULTS)
    records = gather(store.all())
    points, latencies = chart_data.build(records), distributions.build(records.all_results(), store)
    return report.figures(records, points, latencies)
