"""A results folder with records of this machine, and a bundle of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bench.contract.record import Ceiling, Result
from bench.contract.spec import Task
from bench.share import bundle
from bench.store import Store
from tests.test_store import HARDWARE, TRACES, served


def timed(round_: int = 0) -> Result:
    """A round of a load, of a suite whose records are committed."""
    return replace(served(round_), suite="mine")


SCORED = replace(timed(), cell=replace(timed().cell, workload=None, task=Task("perplexity")), metrics={}, marks=())


@pytest.fixture
def store(tmp_path: Path, cache: Path) -> Store:
    """Two rounds of a load, one with its requests, a task with its items, and the device's ceiling."""
    assert cache.is_dir()
    records = Store(tmp_path / "results")
    records.put(timed(), TRACES)
    records.put(timed(1))
    records.put(SCORED, items=[("task", "item"), ("a", 1)])
    records.put_ceiling(HARDWARE, Ceiling("measured here", {"0": 1e9}, {"float32": 1e9}))
    return records


@pytest.fixture
def bundled(store: Store, tmp_path: Path) -> Path:
    """All of it in a bundle."""
    file = tmp_path / "b.zip"
    bundle.write(store, file)
    return file
