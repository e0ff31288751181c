"""Metrics after a changed definition: computed from what was recorded, and nothing else is touched."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from bench.contract.record import Hardware, RequestTrace, Result
from bench.contract.spec import Cell, EngineSpec, Model, Recipe
from bench.contract.workload import Closed
from bench.run import recompute
from bench.run.metrics import metrics
from bench.store import Store
from tests.conftest import Command

_HARDWARE = Hardware("cpu", "cpu-x-2c-8gib", "X", 2**33, "X", 2, 2**33, ("avx2",), "float32", "Linux")
_LOAD = Closed(concurrency=1, prompt_tokens=4, new_tokens=3, requests=2)
_TRACES = tuple(RequestTrace(i, 0, 4, float(i), float(i), (i + 0.25, i + 0.5, i + 0.75), (1, 1, 1)) for i in range(2))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """One closed load, of which two metrics were recorded by other definitions."""
    cell = Cell(Model("demo"), Recipe("as-is"), EngineSpec("fake"), "cpu", _LOAD)
    result = Result("d", "s", cell, 0, "ok", hardware=_HARDWARE, facts={"window_s": 2.0})
    figures = metrics(result, _TRACES, None)
    store = Store(tmp_path / "results")
    store.put(replace(result, metrics={**figures, "request_per_s": 0.5, "ttft_s": 0.125}), _TRACES)
    return store


def _record(store: Store) -> Result:
    (result,) = store.all()
    return result


def test_what_is_named_is_computed_anew_and_the_rest_stays(store: Store) -> None:
    """Both differ from what the traces give, one is named."""
    path = store.path(_record(store))
    before = json.loads(path.read_text())
    (changes,) = recompute.recompute(store, ["request_*"])

    assert changes == {"request_per_s": (0.5, 1.0)}
    assert _record(store).metrics["ttft_s"] == 0.125
    assert json.loads(path.read_text()) == {**before, "metrics": {**before["metrics"], "request_per_s": 1.0}}
    assert store.traces(path) == _TRACES


def test_a_second_time_nothing_differs(store: Store) -> None:
    """No record is written whose metrics say what its traces do."""
    assert list(recompute.recompute(store, ["*"])) == [{"request_per_s": (0.5, 1.0), "ttft_s": (0.125, 0.25)}]
    written_ns = store.path(_record(store)).stat().st_mtime_ns

    assert list(recompute.recompute(store, ["*"])) == []
    assert store.path(_record(store)).stat().st_mtime_ns == written_ns


def test_the_command_says_what_moved(store: Store, command: Command) -> None:
    """By metric, in how many records and by how much."""
    done = command("bench", "recompute", "*_per_s", "--results", str(store.root))

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "request_per_s: 1 of 1 records, by 100.00% at the most\nrecords written: 1\n"
