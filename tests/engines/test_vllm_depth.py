"""The vllm engine at a depth: what its server can keep, and loads in process and behind it on the demo model."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.contract.record import Hardware
from bench.contract.spec import Cell, EngineSpec, Model, Recipe
from bench.contract.workload import Closed, Offline, Sweep, Workload
from bench.engines import vllm
from bench.store import Store
from tests.run import fake_runs

_HARDWARE = Hardware("cpu", "s", "n", 1, "c", 2, 1, ("avx2", "fma", "avx512f"), "float32", "Linux")


@pytest.mark.parametrize(
    ("load", "options", "reason"),
    [
        (Offline(depth_tokens=100), {}, None),
        (Closed(depth_tokens=256), {"prefix_caching": True}, None),
        (Closed(depth_tokens=256), {}, "keeps a context by prefix caching alone: give the engine prefix_caching: true"),
        (
            Closed(depth_tokens=300),
            {"prefix_caching": True},
            "in blocks of 128 tokens: ask for a multiple, not for 300",
        ),
        (Sweep(over="depth", depth_tokens=64, most=512), {"prefix_caching": True}, "not for 64"),
        (Sweep(over="depth", depth_tokens=128, most=500), {"prefix_caching": True}, "not for 500"),
        (Sweep(over="depth", depth_tokens=128, most=512), {"prefix_caching": True}, None),
        (Closed(), {}, None),
    ],
)
def test_depths_that_the_server_can_keep(load: Workload, options: dict[str, bool], reason: str | None) -> None:
    """Whole blocks of its prefix cache; in process there is no cache of prefixes, and any depth is one."""
    cell = Cell(Model("m"), Recipe("r"), EngineSpec("vllm", options), "cpu", workload=load)
    refusal = vllm.unsupported(cell, "hf", _HARDWARE)

    assert (refusal is None) if reason is None else (reason in (refusal or ""))


@pytest.mark.engine
@pytest.mark.needs("vllm")
@pytest.mark.slow
def test_a_load_at_a_depth_reads_its_prompt_alone(tmp_path: Path) -> None:
    """In process by the scheduler's count, behind the server by its usage; the default cache's type is told by both."""
    deep = {"depth_tokens": 512, "prompt_tokens": 4, "new_tokens": 8}
    plain = {"prompt_tokens": 516, "new_tokens": 8}
    suite = fake_runs.suite(
        recipes=["fp32"],
        engines=[{"name": "vllm", "threads": 1, "prefix_caching": True}],
        workloads=[
            {"batch": 2, "repeats": 3, **deep},
            {"batch": 2, "repeats": 3, **plain},
            {"kind": "closed", "concurrency": 2, "requests": 6, **deep},
        ],
        rounds=1,
    )
    results = {r.cell.measurement: r for r in fake_runs.run(suite, Store(tmp_path))}
    for result in results.values():
        assert result.status == "ok", result.reason
        assert result.receipts["kv_dtype"] == "float32"
        assert result.metrics["kv_token_bytes"] == pytest.approx(5 * 2 * 2 * 64 * 4, rel=0.005)
    offline, whole, closed = (
        results[name] for name in ("offline-b2-d512-p4-n8", "offline-b2-p516-n8", "closed-c2-d512-p4-n8")
    )

    assert offline.receipts["context_in_cache"] == "512 tokens x 2"
    assert offline.metrics["ttft_s"] < 0.5 * whole.metrics["ttft_s"]
    assert closed.facts["depth_tokens"] == 512
    assert closed.facts["cached_tokens"] == 512 * 6
