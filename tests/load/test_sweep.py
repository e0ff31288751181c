"""Sweeps, searches and what a run keeps when it goes wrong, on servers whose capacity is known."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from bench.contract.record import RequestTrace, Result
from bench.contract.slo import Slo
from bench.contract.workload import Open, Search, SingleLoad, Sweep
from bench.load import arrivals, sweep
from bench.load.job import LoadAnswer, RequestResult
from bench.measure.online_load import load_metrics
from bench.process import server
from bench.progress.progress import Progress
from bench.publish.tables import build, render
from bench.run import online, plan, records, runner
from bench.store import Store
from bench.suite import config

_SIZES = {"prompt_tokens": 16, "new_tokens": 4}
_CLOSED = {"kind": "closed", "concurrency": 4, "requests": 40, **_SIZES}


def _run(store: Store, engine: dict[str, Any], load: dict[str, Any], **suite: Any) -> Result:
    full = config.suite(
        {
            "name": "s",
            "model": "models/demo",
            "recipes": ["fp32"],
            "engines": [engine],
            "workloads": [load],
            "devices": ["cpu"],
            "rounds": 1,
            "settle_s": 0,
            **suite,
        }
    )
    planned = plan.plan(full, fetch=False)
    with Progress() as progress:
        runner.run(planned, store, progress, retry_failed=True)
    (result,) = records.current(planned, store)
    return result


def _fake(**options: Any) -> dict[str, Any]:
    return {"name": "fake", "ttft_s": 0.02, "itl_s": 0.01, **options}


@pytest.mark.slow
@pytest.mark.usefixtures("cache")
@pytest.mark.clock
def test_a_sweep_finds_where_the_server_is_full(tmp_path: Path) -> None:
    """Four slots of 30 ms: 133 requests a second are all there is, and four in flight reach them."""
    store = Store(tmp_path / "results")
    engine = _fake(ttft_s=0.012, itl_s=0.006, slots=4)
    result = _run(store, engine, {"kind": "sweep", "requests": 40, **_SIZES})
    levels = [stage["level"] for stage in result.facts["stages"]]
    outputs = {stage["level"]: stage["metrics"]["output_tok_per_s"] for stage in result.facts["stages"]}

    assert result.status == "ok", result.reason
    assert result.facts["saturated"] is True
    assert levels == [1, 2, 4, 8, 16]
    assert outputs[4] / outputs[1] == pytest.approx(4, rel=0.15)
    assert outputs[16] / outputs[4] == pytest.approx(1, rel=0.1)
    assert result.metrics["concurrency"] == pytest.approx(4, abs=0.3)  # the first level that reaches the most
    assert result.metrics["output_tok_per_s"] == pytest.approx(outputs[4], rel=1e-5)
    page = render.render(build.build([result]), "md")
    assert "sweep-concurrency-p16-n4: the curve" in page
    assert page.count("| fp32 | fake | ") == 1 + 1 + len(levels)


def test_a_search_brackets_the_highest_rate_that_keeps_the_limit() -> None:
    """Two slots of 25 ms take 80 requests a second at the most; a third of that they take without waiting."""

    def apply(load: SingleLoad, k: int) -> tuple[LoadAnswer, dict[str, Any]]:
        assert isinstance(load, Open)
        due = arrivals.poisson(load.requests, load.rate_per_s, f"search/{k}")
        return _queue(due, slots=2, ttft_s=0.01, service_s=0.025), {"window_s": due[-1]}

    load = Search(requests=100, rate_per_s=20, slo=Slo(ttft_s=0.05), prompt_tokens=16, new_tokens=4)
    stages, facts = sweep.run(load, apply)
    metrics = load_metrics([trace for stage in stages for trace in stage.traces], facts, load)

    low, high = metrics["slo_rate_per_s"], metrics["slo_rate_high_per_s"]
    assert 25 < low < high < 80
    assert high / low <= 1.06
    assert metrics["ttft_p95_s"] <= 0.05
    assert facts["confidence"] == 0.95


def test_a_limit_that_no_rate_keeps_is_the_reason() -> None:
    """The first token takes 20 ms, whatever the rate: 1 ms is tried down to a 64th of the first rate."""

    def apply(load: SingleLoad, k: int) -> tuple[LoadAnswer, dict[str, Any]]:
        assert isinstance(load, Open)
        due = arrivals.poisson(load.requests, load.rate_per_s, f"search/{k}")
        return _queue(due, slots=load.requests, ttft_s=0.02, service_s=0.05), {"window_s": due[-1]}

    load = Search(requests=60, rate_per_s=640, slo=Slo(ttft_s=0.001))
    stages, facts = sweep.run(load, apply)

    rates = [stage.load.rate_per_s for stage in stages if isinstance(stage.load, Open)]
    assert rates == [640, 320, 160, 80, 40, 20, 10]
    assert online.without_figures(load, stages, facts) == "no rate down to 10/s was shown to keep ttft 0.001 s"


def _queue(due: Sequence[float], *, slots: int, ttft_s: float, service_s: float) -> LoadAnswer:
    """What a server of so many slots, first come first served, does with these arrivals."""
    free_s = [0.0] * slots
    traces = []
    for i, at in enumerate(due):
        start = max(at, heapq.heappop(free_s))
        heapq.heappush(free_s, start + service_s)
        traces.append(RequestTrace(i, 0, 16, at, at, (start + ttft_s, start + service_s), (1, 3)))
    return _answer(traces)


@pytest.mark.slow
@pytest.mark.usefixtures("cache")
@pytest.mark.clock
def test_a_search_of_a_real_server_brackets_its_rate(tmp_path: Path) -> None:
    """Two slots of 25 ms take 80 requests a second at the most; a third of that they take without waiting."""
    slo = {"kind": "search", "requests": 100, "rate_per_s": 20, "slo": {"ttft_s": 0.05}, **_SIZES}
    result = _run(Store(tmp_path / "results"), _fake(ttft_s=0.01, itl_s=0.005, slots=2), slo)

    assert result.status == "ok", result.reason
    low, high = result.metrics["slo_rate_per_s"], result.metrics["slo_rate_high_per_s"]
    assert 25 < low < high < 80
    assert high / low <= 1.06
    assert result.metrics["ttft_p95_s"] <= 0.05
    assert result.facts["confidence"] == 0.95


@pytest.mark.slow
@pytest.mark.usefixtures("cache")
@pytest.mark.clock
def test_a_limit_that_no_rate_keeps_is_said(tmp_path: Path) -> None:
    """The first token takes 20 ms, whatever the rate: no rate keeps 1 ms, and the reason says so."""
    load = {"kind": "search", "requests": 60, "rate_per_s": 640, "slo": {"ttft_s": 0.001}, **_SIZES}
    result = _run(Store(tmp_path / "results"), _fake(), load)

    assert result.status == "failed"
    assert result.reason == "no rate down to 10/s was shown to keep ttft 0.001 s"


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize(
    ("engine", "suite", "words"),
    [
        ({"fail": "exit", "fail_after": 30}, {}, "the server ended (code 7) while it was used; "),
        ({"ttft_s": 0.2}, {"timeout_s": 3.0}, "the load was not over within "),
    ],
)
def test_what_was_finished_is_kept(tmp_path: Path, engine: dict[str, Any], suite: dict[str, Any], words: str) -> None:
    """A server that dies in the middle, a load that takes too long: a failed round with its requests."""
    store = Store(tmp_path / "results")
    result = _run(store, _fake(**engine), {**_CLOSED, "requests": 100}, **suite)
    finished = [t for t in store.traces(store.path(result)) if not t.error]

    assert result.status == "failed"
    assert result.reason.startswith(words)
    assert result.metrics == {}
    assert 10 < len(finished) < 100
    assert all(len(t.token_s) == 4 for t in finished)
    assert server.orphans() == []


@pytest.mark.usefixtures("cache")
def test_a_search_ends_with_its_server(tmp_path: Path) -> None:
    """Dead at the second rate: no lower rate is tried on a port where nobody listens."""
    load = {"kind": "search", "requests": 60, "rate_per_s": 80, "slo": {"ttft_s": 0.5}, **_SIZES}
    result = _run(Store(tmp_path / "results"), _fake(fail="exit", fail_after=250), load)

    assert result.status == "failed"
    assert result.reason.startswith("the server ended (code 7) while it was used; ")
    assert len(result.facts["stages"]) <= 3


def _answer(traces: Sequence[RequestTrace]) -> LoadAnswer:
    results = (RequestResult(t, None, t.due_s, t.token_s[0], t.token_s[-1]) for t in traces)
    return LoadAnswer(measured=tuple(results))


def _constant(rate: float, slow: int) -> LoadAnswer:
    """A hundred requests of a constant rate, `slow` of them with a first token after a second."""
    return _answer(
        [
            RequestTrace(i, 0, 16, i / rate, i / rate, (i / rate + (1.0 if i < slow else 0.1), i / rate + 1.2), (1, 1))
            for i in range(100)
        ]
    )


def test_a_search_asks_again_where_it_is_not_clear() -> None:
    """One of a hundred late is not clear at first and is after two batches; six of a hundred never is."""
    rates: list[float] = []

    def apply(load: SingleLoad, k: int) -> tuple[LoadAnswer, dict[str, Any]]:
        del k
        assert isinstance(load, Open)
        rates.append(load.rate_per_s)
        slow = 1 if load.rate_per_s <= 8 else 6 if load.rate_per_s < 16 else 50
        return _constant(load.rate_per_s, slow), {"window_s": 100 / load.rate_per_s}

    load = Search(rate_per_s=8.0, slo=Slo(ttft_s=0.5))
    stages, facts = sweep.run(load, apply)

    assert rates.count(8.0) == 2
    assert rates.count(16.0) == 1
    assert facts["slo_rate_per_s"] == 8.0
    assert facts["slo_rate_high_per_s"] / 8.0 <= 1.05
    assert all(rates.count(rate) == 4 for rate in set(rates) - {8.0, 16.0})
    assert stages[facts["chosen"]].load == load.at(8.0)


def test_a_sweep_over_concurrency_is_measured_as_one_whatever_its_arrivals() -> None:
    """They are of rates: a closed load has no ramp, and its window is steady."""

    def metrics(load: Sweep) -> dict[str, float]:
        stages, _ = sweep.run(load, lambda _, k: (_constant(10.0, k), {"window_s": 10.0}))
        return stages[0].metrics

    ramp = Sweep(most=1, rate_per_s=10.0, arrivals="ramp")

    assert metrics(ramp) == metrics(Sweep(most=1))
    assert Sweep(over="rate", rate_per_s=10.0, arrivals="ramp").ramps


def test_any_endpoint_is_an_engine(cache: Path, tmp_path: Path, endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By URL and name; it is left running, its figures are marked, and the key is in no file."""
    monkeypatch.setenv("SECRET_KEY", "sk-not-for-records")
    store = Store(tmp_path / "results")
    engine = {"name": "openai", "url": endpoint, "model": "fake", "ids": True, "key_variable": "SECRET_KEY"}

    one, two = _run(store, engine, _CLOSED), _run(store, engine, {**_CLOSED, "concurrency": 2})

    assert one.status == two.status == "ok", one.reason
    assert one.metrics["ttft_s"] == pytest.approx(0.02, abs=0.015)
    assert "peak_memory_bytes" not in one.metrics
    marks = build.build([one]).rows[0].workloads["closed-c4-p16-n4"].marks
    assert set(marks) - {"client", "busy"} == {"remote", "short"}  # those two are of a busy machine
    files = [f for root in (cache, tmp_path) for f in root.rglob("*") if f.is_file()]
    assert not [f for f in files if b"sk-not-for-records" in f.read_bytes()]


@pytest.mark.usefixtures("cache")
def test_an_endpoint_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    """The round fails with what to do; one without a URL is refused beforehand."""
    url = f"http://127.0.0.1:{server.free_port()}"
    gone = _run(Store(tmp_path / "results"), {"name": "openai", "url": url, "model": "m"}, _CLOSED)
    unsaid = _run(Store(tmp_path / "results"), {"name": "openai"}, _CLOSED)

    assert gone.status == "failed"
    cause = f"no connection: Connection refused, asked {url}/v1/models"
    assert gone.reason.startswith(f"no server answers at {url} ({cause})")
    assert gone.reason.endswith("start it there, or correct the engine's url")
    assert (unsaid.status, unsaid.reason.partition(",")[0]) == ("unsupported", "the openai engine needs a url")
