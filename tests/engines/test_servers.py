"""Every engine's own server, started, loaded and ended by the suite, on the demo model."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.contract import plugins
from bench.contract.record import Result
from bench.process import server
from bench.progress.progress import Progress
from bench.run import plan, records, runner
from bench.store import Store
from bench.suite import config

_RECIPES = {"hf": "baseline", "llamacpp": "gguf-q4_k_m", "vllm": "baseline"}
_ENVS = {"hf": ("hf",), "llamacpp": ("llamacpp", "llamacpp-tools"), "vllm": ("vllm",)}
_SIZES = {"prompt_tokens": 48, "new_tokens": 16}
pytestmark = [pytest.mark.engine, pytest.mark.clock]


@pytest.mark.needs
def test_every_engine_with_a_server_is_here() -> None:
    """One without an entry would pass by not being asked. TensorRT-LLM's installs on NVIDIA GPUs alone."""
    names = [n for n in plugins.names(plugins.ENGINES) if "online" in plugins.load(plugins.ENGINES, n).MODES]
    assert set(_RECIPES) == set(_ENVS) == set(names) - {"fake", "openai", "tensorrt_llm"}


@pytest.fixture(scope="module", params=[pytest.param(n, marks=pytest.mark.needs(*e)) for n, e in _ENVS.items()])
def rounds(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Result]:
    """A closed and an open load on one engine, by workload."""
    engine: str = request.param
    suite = config.suite(
        {
            "name": "servers",
            "model": "models/demo",
            "recipes": [_RECIPES[engine]],
            "engines": [engine],
            "workloads": [
                {"kind": "closed", "concurrency": 4, "requests": 24, "slo": {"ttft_s": 10}, **_SIZES},
                {"kind": "open", "rate_per_s": 4, "requests": 12, "lengths": "uniform", "spread": 0.5, **_SIZES},
            ],
            "devices": ["cpu"],
            "rounds": 1,
            "settle_s": 0,
        }
    )
    store, planned = Store(tmp_path_factory.mktemp(engine)), plan.plan(suite, fetch=False)
    with Progress() as progress:
        runner.run(planned, store, progress)
    return {result.cell.workload.kind: result for result in records.current(planned, store) if result.cell.workload}


def test_a_server_serves_what_was_asked(rounds: dict[str, Result]) -> None:
    """Every request complete and of its length by the server's count, prompts included; nothing is left."""
    for result in rounds.values():
        assert result.status == "ok", result.reason
        assert result.facts["failures"] == {}
        assert result.facts["counted_by"] == "usage"
        assert result.facts["cached_tokens"] == 0
        assert result.metrics["ttft_s"] < result.metrics["e2el_s"]
        assert result.metrics["peak_memory_bytes"] > 10e6
    assert rounds["closed"].facts["in_flight_high"] == 4
    assert rounds["closed"].metrics["concurrency"] > 2  # short answers: a server that hangs up takes its time
    assert 0 < rounds["closed"].metrics["goodput_per_s"] <= rounds["closed"].metrics["request_per_s"]
    assert server.orphans() == []


def test_a_server_says_what_it_runs(rounds: dict[str, Result]) -> None:
    """Receipts from its log; the command line without a folder of this machine."""
    for result in rounds.values():
        assert result.receipts
        assert "ARTIFACT" in result.facts["server"]
        assert str(Path.home()) not in result.facts["server"]
