"""What was measured and committed, held to what its device can do."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.measure.roofline import FRACTIONS
from bench.store import Store

pytestmark = pytest.mark.records
RESULTS = Path(__file__).resolve().parents[2] / "results"


def test_no_committed_cell_is_above_its_ceiling() -> None:
    """MBU, MFU and the share of the roofline, of every record that has them; on this CPU some forty."""
    store = Store(RESULTS)
    results = [r for r in store.all() if any(key in r.metrics for key in FRACTIONS)]

    assert store.problems == []
    assert len([r for r in results if r.hardware.device == "cpu"]) >= 20
    assert [r.cell.title for r in results if not 0 < max(r.metrics.get(k, 0.0) for k in FRACTIONS) <= 1] == []


def test_dummy_weights_are_marked_in_every_record_and_have_no_quality() -> None:
    """The shape's records: timed and marked; none of a task is ok."""
    results = [r for r in Store(RESULTS).all("*/shape/*") if r.cell.workload or r.cell.task]

    assert results
    assert {r.cell.model.source for r in results} == {"shape:smollm2-135m"}
    assert all("dummy" in r.marks for r in results if r.status == "ok")
    assert all(r.status != "ok" for r in results if r.cell.task)
