"""The charts of the committed records, built once."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.publish import report
from bench.publish.figures.specs import Spec
from bench.publish.records import gather
from bench.store import Store

RESULTS = Path(__file__).resolve().parents[3] / "results"


@pytest.fixture(scope="session")
def figures() -> dict[Path, Spec]:
    store = Store(RESULTS)
    return report.figures(gather(store.all()).committed(), store)
