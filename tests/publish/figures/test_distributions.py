"""Latency distributions say what the traces say."""

from __future__ import annotations

import pytest

from bench.publish.figures import distributions
from bench.store import Store

from .conftest import RESULTS


def test_a_distribution_is_of_the_traces_and_agrees_with_the_metrics() -> None:
    """Its median is the recorded one, over rounds; without traces the recorded percentiles stand in."""
    rounds = [
        r
        for r in Store(RESULTS).all("*/serving/*")
        if r.cell.measurement == "closed-c4-p128-n64" and r.cell.engine.title == "vllm"
    ]
    (distribution,) = distributions.build(rounds, Store(RESULTS))
    shares, values = zip(*distribution.curves["ttft_s"], strict=True)
    assert distribution.traced
    assert len(shares) <= 100
    assert list(values) == sorted(values)
    middle = sorted(r.metrics["ttft_s"] for r in rounds)[1]
    assert values[shares.index(0.5)] == pytest.approx(middle, rel=1e-3)
    (bare,) = distributions.build(rounds, Store(RESULTS / "nowhere"))
    assert not bare.traced
    assert dict(bare.curves["ttft_s"])[0.5] == pytest.approx(middle)
