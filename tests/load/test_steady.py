"""Loads on real servers of known latency and capacity: what is read is what was offered, or the capacity."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from bench.contract.slo import Slo
from bench.contract.workload import Closed, Online, Open, Sweep, Trace
from bench.load import build
from bench.load.job import Endpoint
from bench.measure.online_load import load_metrics
from bench.process import server as serving
from bench.run import online
from tests.conftest import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.clock]
_SIZES: dict[str, Any] = {"prompt_tokens": 8, "new_tokens": 20}


@contextmanager
def _server(**options: Any) -> Iterator[str]:
    """The fake engine's server: every answer on its schedule, `slots` of them at a time."""
    port = serving.free_port()
    words = [sys.executable, "-m", "bench.engines.fake", json.dumps({"port": port, **options})]
    with subprocess.Popen(words, cwd=ROOT) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            _await(url)
            yield url
        finally:
            process.kill()


def _await(url: str) -> None:
    for _ in range(200):
        try:
            urlopen(f"{url}/v1/models", timeout=5).close()  # noqa: S310  (our own, on loopback)
        except OSError:
            time.sleep(0.05)
        else:
            return
    pytest.fail("the server never answered")


def _metrics(url: str, load: Online) -> dict[str, float]:
    target = build.Target(Endpoint(url, "fake"), vocab_size=4096)
    stages, facts = online.loaded(load, target, "seed", 0, time.monotonic() + 120)
    assert not stages[-1].answer.error
    assert facts["failures"] == {}
    return load_metrics([trace for stage in stages for trace in stage.traces], facts, load)


@pytest.mark.parametrize("arrivals", ["poisson", "constant"])
@pytest.mark.parametrize("ttft_s", [0.05, 0.4, 1.2])
def test_a_server_that_keeps_up_reads_what_was_offered(ttft_s: float, arrivals: Any) -> None:
    """Within 1 %, however long an answer takes: 20 requests a second of 20 tokens, all within the limit.

    The longest takes 1.6 s, the window 2: a window that begins in an empty server would read less than half.
    """
    load = Open(rate_per_s=20.0, requests=40, arrivals=arrivals, slo=Slo(ttft_s=ttft_s + 0.2), **_SIZES)
    with _server(ttft_s=ttft_s, itl_s=0.02) as url:
        metrics = _metrics(url, load)

    assert metrics["output_tok_per_s"] == pytest.approx(20.0 * 20, rel=0.01)
    assert metrics["request_per_s"] == pytest.approx(20.0, rel=0.01)
    assert metrics["goodput_per_s"] == pytest.approx(20.0, rel=1e-9)
    assert metrics["concurrency"] == pytest.approx(20.0 * (ttft_s + 19 * 0.02), rel=0.03)
    assert metrics["e2el_s"] == pytest.approx(ttft_s + 19 * 0.02, rel=0.1)


def test_lengths_that_are_drawn_are_offered_exactly_too() -> None:
    """The tokens of the window are those of the requests due in it, although answers straddle its ends."""
    load = Open(rate_per_s=20.0, requests=40, lengths="lognormal", spread=0.8, **_SIZES)
    target = build.Target(Endpoint("http://localhost:1", "fake"), vocab_size=4096)
    offered = sum(size.new_tokens for size in build.opened(load, target, "seed", "0/0")[0].sizes) / 2.0
    with _server(ttft_s=0.4, itl_s=0.02) as url:
        metrics = _metrics(url, load)

    assert metrics["output_tok_per_s"] == pytest.approx(offered, rel=0.01)


def test_a_trace_reads_what_its_file_offers(tmp_path: Path) -> None:
    """Bursts of four every fifth of a second, at their own times: two seconds of 20 requests a second."""
    file = tmp_path / "trace.csv"
    rows = [f"2023-11-16 18:15:{i // 20:02d}.{2 * (i // 4 % 5)}000000,8,20" for i in range(40)]
    file.write_text("\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *rows]))
    load = Trace(path=str(file), requests=40, slo=Slo(ttft_s=0.6))
    with _server(ttft_s=0.4, itl_s=0.02) as url:
        metrics = _metrics(url, load)

    window_s = 1.8 * 40 / 39  # the mean gap once more
    assert metrics["output_tok_per_s"] == pytest.approx(800 / window_s, rel=0.01)
    assert metrics["goodput_per_s"] == pytest.approx(40 / window_s, rel=1e-6)


def test_a_sweep_over_rates_reads_each_rate_until_the_server_is_full() -> None:
    """Two slots of 0.1 s are 20 answers a second: 5 and 10 are kept up with, 40 is not."""
    load = Sweep(
        over="rate", rate_per_s=5.0, most=40.0, requests=20, arrivals="constant", prompt_tokens=8, new_tokens=10
    )
    with _server(ttft_s=0.01, itl_s=0.01, slots=2) as url:
        target = build.Target(Endpoint(url, "fake"), vocab_size=4096)
        stages, _ = online.loaded(load, target, "seed", 0, time.monotonic() + 120)
    rates = {stage.load.rate_per_s: stage.metrics["request_per_s"] for stage in stages if isinstance(stage.load, Open)}

    assert rates[5.0] == pytest.approx(5.0, rel=0.02)
    assert rates[10.0] == pytest.approx(10.0, rel=0.02)
    assert rates[40.0] == pytest.approx(2 / 0.1, rel=0.1)


def test_a_server_that_does_not_keep_up_reads_its_capacity() -> None:
    """Four slots of 0.2 s are 20 answers a second, of the 30 that are due. Those are late, and no goodput."""
    load = Open(rate_per_s=30.0, requests=60, arrivals="constant", slo=Slo(ttft_s=0.3), **_SIZES)
    with _server(ttft_s=0.01, itl_s=0.01, slots=4) as url:
        metrics = _metrics(url, load)

    assert metrics["output_tok_per_s"] == pytest.approx(20.0 * 20, rel=0.05)
    assert metrics["request_per_s"] == pytest.approx(20.0, rel=0.05)
    assert metrics["goodput_per_s"] == 0.0


@pytest.mark.parametrize("requests", [21, 24])
def test_a_closed_loop_reads_its_concurrency_over_an_answers_time(requests: int) -> None:
    """Four in step, whether the last generation is a whole one or not: tokens and requests alike."""
    load = Closed(concurrency=4, requests=requests, slo=Slo(ttft_s=0.5), **_SIZES)
    with _server(ttft_s=0.1, itl_s=0.01) as url:
        metrics = _metrics(url, load)

    assert metrics["output_tok_per_s"] == pytest.approx(4 * 20 / 0.29, rel=0.08)
    assert metrics["request_per_s"] == pytest.approx(metrics["output_tok_per_s"] / 20, rel=0.01)
    assert metrics["goodput_per_s"] == metrics["request_per_s"]
