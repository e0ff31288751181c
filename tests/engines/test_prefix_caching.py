"""Servers that keep prefixes count the hit rate that a workload asks for, and none where they are told not to."""

from __future__ import annotations

from typing import Any

import pytest

from bench.contract.record import Result
from bench.progress.progress import Progress
from bench.run import plan, records, runner
from bench.store import Store
from bench.suite import config

pytestmark = [pytest.mark.engine, pytest.mark.slow, pytest.mark.clock]
_HALF = {"prompt_tokens": 256, "shared_prefix": {"tokens": 512, "groups": 3, "turns": 4}}
_NINE_TENTHS = {"prompt_tokens": 32, "shared_prefix": {"tokens": 768, "groups": 2, "turns": 16}}
_NONE = {"prompt_tokens": 32, "shared_prefix": {"tokens": 512, "groups": 4, "turns": 1}}


def _run(folder: Any, recipe: str, engine: str, *loads: dict[str, Any], both: bool) -> dict[tuple[str, float], Result]:
    """Results by engine label and rate asked for."""
    engines = [{"name": engine, "label": "on", "prefix_caching": True}, *([{"name": engine, "label": "off"}] * both)]
    suite = config.suite(
        {
            "name": "prefix",
            "model": "models/demo",
            "recipes": [recipe],
            "engines": engines,
            "workloads": [{"kind": "closed", "new_tokens": 8, **load} for load in loads],
            "devices": ["cpu"],
            "rounds": 1,
            "settle_s": 0,
        }
    )
    store, planned = Store(folder), plan.plan(suite, fetch=False)
    with Progress() as progress:
        runner.run(planned, store, progress)
    results = records.current(planned, store)
    for result in results:
        assert result.status == "ok", result.reason
    return {(r.cell.engine.title, round(r.metrics["prefix_asked_fraction"], 3)): r for r in results}


def _check(results: dict[tuple[str, float], Result]) -> None:
    for (label, asked), result in results.items():
        expected = asked if label == "on" else 0.0
        assert result.metrics["prefix_hit_fraction"] == pytest.approx(expected, abs=0.02)
        if expected > 0.4:
            assert result.metrics["ttft_warm_s"] < 0.9 * result.metrics["ttft_cold_s"]


@pytest.mark.needs("llamacpp", "llamacpp-tools")
def test_llama_server_counts_what_is_asked(tmp_path: Any) -> None:
    """At rates of 0, 0.5 and 0.9, and none of them with caching off."""
    results = _run(tmp_path, "gguf-q8_0", "llamacpp", _NONE, _HALF, _NINE_TENTHS, both=True)

    assert set(results) == {(label, asked) for label in ("on", "off") for asked in (0.0, 0.5, 0.9)}
    _check(results)


@pytest.mark.needs("vllm")
def test_vllm_counts_what_is_asked(tmp_path: Any) -> None:
    """In whole blocks, whose size its counters tell."""
    results = _run(tmp_path, "baseline", "vllm", _NINE_TENTHS, both=False)

    assert set(results) == {("on", 0.9)}
    _check(results)
    (result,) = results.values()
    assert result.facts["prefix"]["block_tokens"] > 1
    assert result.receipts["prefix_caching"] == "True"
