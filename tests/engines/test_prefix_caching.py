"""Servers that keep prefixes count the hit rate that a workload asks for, and none where they are told not to."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from bench.contract import plugins
from bench.contract.record import Result
from bench.contract.spec import Model
from bench.contract.workload import Closed
from bench.envs import environment
from bench.load import build
from bench.machine import hardware as machine
from bench.models import resolve
from bench.process import prefix_counts
from bench.process import server as serving
from bench.progress.progress import Progress
from bench.run import artifacts, online, plan, records, runner
from bench.store import Store
from bench.suite import config
from tests.conftest import ROOT

pytestmark = [pytest.mark.engine, pytest.mark.slow, pytest.mark.clock]
_HALF = {"prompt_tokens": 256, "shared_prefix": {"tokens": 512, "groups": 3, "turns": 4}}
_NINE_TENTHS = {"prompt_tokens": 32, "shared_prefix": {"tokens": 768, "groups": 2, "turns": 16}}
_NONE = {"prompt_tokens": 32, "shared_prefix": {"tokens": 512, "groups": 4, "turns": 1}}


def _run(
    folder: Any, recipe: str, engine: str, *loads: dict[str, Any], both: bool, **options: Any
) -> dict[tuple[str, float], Result]:
    """Results by engine label and rate asked for."""
    on = {"name": engine, "label": "on", "prefix_caching": True, **options}
    engines = [on, *([{"name": engine, "label": "off"}] * both)]
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


@pytest.mark.needs("llamacpp", "llamacpp-tools")
def test_llama_servers_counters_are_what_its_usage_says() -> None:
    """To the token, over all requests of a load, as where a proxy before it takes the usage away."""
    load = config.workload({"kind": "closed", "new_tokens": 4, **_HALF})
    assert isinstance(load, Closed)
    with _server("llamacpp", "gguf-q8_0", also=("--metrics",)) as target:
        before = prefix_counts.counters(target.endpoint)
        answer = online.apply(build.closed(load, target, "s"), timeout_s=300)
        after = prefix_counts.counters(target.endpoint)
    assert not answer.error
    silent = replace(answer, measured=tuple(replace(request, cached_tokens=None) for request in answer.measured))
    counted = prefix_counts.facts(silent, before, after, caching=True)["prefix"]

    assert prefix_counts.facts(answer, before, after, caching=True)["prefix"]["counted_by"] == "usage"
    assert counted["counted_by"] == "metrics"
    by_usage = [request.cached_tokens or 0 for request in (*answer.measured, *answer.warmup)]
    assert counted["cached_tokens"] == sum(by_usage) > 0.4 * counted["prompt_tokens"]


@pytest.mark.needs("vllm")
def test_an_endpoint_whose_usage_is_silent_is_held_to_its_counters(tmp_path: Any) -> None:
    """As vLLM's without --enable-prompt-tokens-details, of which a suite knows the address alone."""
    with _server("vllm", "baseline", without=("--enable-prompt-tokens-details",)) as target:
        endpoint = {"url": target.endpoint.url, "model": target.endpoint.model, "ids": True}
        results = _run(tmp_path, "baseline", "openai", _NINE_TENTHS, both=False, **endpoint)

    _check(results)
    (result,) = results.values()
    assert result.facts["prefix"]["counted_by"] == "metrics"
    assert result.facts["prefix"]["block_tokens"] > 1


@contextmanager
def _server(name: str, recipe: str, also: Sequence[str] = (), without: Sequence[str] = ()) -> Iterator[build.Target]:
    """The engine's own server with prefix caching, with or without some of its flags."""
    engine, hardware = plugins.load(plugins.ENGINES, name), machine.detect("cpu")
    resolved = resolve.resolve(Model(str(ROOT / "models/demo")), fetch=False)
    steps = artifacts.steps_for(config.recipe_named(recipe), hardware, resolved.format)
    built = artifacts.make(steps, resolved, hardware, _report)
    env, port = environment.ensure(engine.ENV, _report), serving.free_port()
    options = engine.Options(prefix_caching=True, threads=1)
    server = engine.serve(built.folder, built.artifact, options, env.python, port, "cpu")
    server = replace(server, argv=(*(word for word in server.argv if word not in without), *also))
    with serving.running(server, port, env, "cpu", model=built.folder) as live:
        endpoint = serving.endpoint(server, live.url)
        yield build.Target(endpoint, built.artifact.audit.vocab_size, context=1024, reuse=server.reuse)


def _report(text: str) -> None:
    sys.stderr.write(f"{text}\n")
