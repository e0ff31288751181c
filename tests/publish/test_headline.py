"""A round in one figure, from committed records."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bench.contract.record import Result
from bench.contract.slo import Slo
from bench.contract.workload import Search
from bench.publish.headline import figure
from bench.store import Store

ROOT = Path(__file__).resolve().parents[2]


def _first(pattern: str, kind: str) -> Result:
    """The first committed record of that kind of load or task that is ok; of a closed load as a search."""
    if kind == "search":
        closed = _first(pattern, "closed")
        return replace(closed, cell=replace(closed.cell, workload=Search(rate_per_s=1, slo=Slo(ttft_s=0.5))))
    for result in Store(ROOT / "results").all(pattern):
        load, task = result.cell.workload, result.cell.task
        if result.status == "ok" and kind in (load and load.kind, task and task.kind):
            return result
    pytest.fail(f"no record of {kind} in results/")


@pytest.mark.parametrize(
    ("kind", "metrics", "headline"),
    [
        ("offline", {"output_tok_per_s": 63.14, "ttft_s": 0.1}, "63.1 tok/s"),
        ("closed", {"output_tok_per_s": 2142.4, "ttft_s": 0.1}, "2142 tok/s"),
        ("open", {"output_tok_per_s": 63.14, "ttft_s": 0.02, "ttft_p95_s": 0.0824}, "TTFT p95 82.4 ms"),
        ("open", {"output_tok_per_s": 63.14, "ttft_s": 0.02}, "TTFT 20.0 ms"),
        ("search", {"slo_rate_per_s": 36.4, "output_tok_per_s": 9.0}, "within SLO 36.4 /s"),
        ("perplexity", {"perplexity": 12.3456}, "ppl 12.35"),
        ("divergence", {"kl_mean": 0.01234}, "KL 0.012 nats"),
        ("offline", {}, ""),
    ],
)
def test_each_kind_of_round_has_its_figure(kind: str, metrics: dict[str, float], headline: str) -> None:
    """The unit is the column's; of a load at a given rate the throughput says nothing."""
    assert figure(replace(_first("*/*/*", kind), metrics=metrics)) == headline


def test_a_score_is_named_by_its_own_metric() -> None:
    """As the task calls it: acc, exact_match."""
    result = _first("*/*/quality/*", "lm_eval")

    assert figure(replace(result, metrics={"accuracy_fraction": 0.873}, facts={"metric": "acc"})) == "acc 87.3 %"
