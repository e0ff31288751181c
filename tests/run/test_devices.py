"""Several devices in one run, on recorded drivers and the fake engine: each with its lock, records, rows."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bench.envs import environment
from bench.machine import hardware as machine
from bench.machine import nvml
from bench.process import supervisor
from bench.progress.progress import Progress
from bench.publish.tables import build
from bench.run import plan, planned, records, runner
from bench.store import Store
from tests.machine.driver import Driver
from tests.machine.test_visible import ALIKE, H100, SPLIT, T4
from tests.run import fake_runs

_PLAIN = "nvidia-h100-80gb-hbm3-80gib-x1"


@pytest.fixture(autouse=True)
def _fresh(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No GPU is hidden; files of environments, which differ by machine, are read anew after each test."""
    del cache
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    environment.spec.cache_clear()
    yield
    environment.spec.cache_clear()


def _plan(*devices: str, engine: str = "fake") -> planned.Plan:
    load = {"batch": 1, "prompt_tokens": 4, "new_tokens": 4, "repeats": 1}
    suite = fake_runs.suite(recipes=["as-is"], engines=[engine], workloads=[load], devices=list(devices), rounds=1)
    return plan.plan(suite, fetch=False)


def test_two_alike_gpus_in_one_run(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records of each in its folder, a lock for each, a row for each; `auto` finds the first one's again."""
    monkeypatch.setattr(nvml, "pynvml", Driver((H100, ALIKE)))
    suite_plan, store = _plan("all"), Store(tmp_path / "results")
    with Progress() as progress:
        tally = runner.run(suite_plan, store, progress)
    rows = build.build(records.current(suite_plan, store), [records.public_cell(c) for c in suite_plan.cells]).rows

    assert tally.done == {"ok": 2}
    assert sorted(f.name for f in (tmp_path / "results").iterdir()) == [_PLAIN, f"{_PLAIN}-gpu1"]
    locks = sorted(f.stem.rpartition("-")[0] for f in (cache / "locks").glob("nvidia*"))  # the last part: this machine
    assert locks == [f"nvidia-h100-80gb-hbm3-gpu-{n}" for n in range(2)]
    assert [(row.device, next(iter(row.workloads.values())).status) for row in rows] == [
        (_PLAIN, "ok"),
        (f"{_PLAIN}-gpu1", "ok"),
    ]
    assert records.pending(_plan("auto"), store) == []


def test_two_kinds_of_gpu_are_two_devices_of_a_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each computes in its own type."""
    monkeypatch.setattr(nvml, "pynvml", Driver((T4, replace(H100, index=1))))
    suite_plan = _plan("auto", engine="hf")

    assert [(c.device, c.engine.options["dtype"]) for c in suite_plan.cells] == [
        ("cuda:0", "float16"),
        ("cuda:1", "bfloat16"),
    ]
    assert {i.reason for i in suite_plan.items} == {""}


def test_an_old_gpu_is_told_in_the_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch has no kernels for it, in one sentence and before anything is built."""
    monkeypatch.setattr(nvml, "pynvml", Driver((replace(T4, name="Tesla P100", capability=(6, 0)),)))
    (item,) = _plan("cuda", engine="hf").items

    assert item.reason.startswith(
        "environment hf needs a GPU of compute capability 7.5 or newer, and Tesla P100 has 6.0"
    )


def test_a_worker_sees_one_gpu_or_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    """By its index or its MIG UUID, also where the caller chose among them."""
    monkeypatch.setattr(nvml, "pynvml", Driver((SPLIT, replace(T4, index=1))))
    env = environment.Environment("x", sys.executable, "id")

    def seen(device: str) -> str:
        return supervisor.variables(env, device)["CUDA_VISIBLE_DEVICES"]

    assert [seen(d) for d in ("cpu", "cuda:1", "cuda:3")] == ["", "MIG-22", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,MIG-31")
    assert [seen(d) for d in ("cuda:0", "cuda:1", "cuda:2")] == ["1", "MIG-31", ""]
    assert [one.device for one in machine.devices(("all",))] == ["cuda:0", "cuda:1"]
