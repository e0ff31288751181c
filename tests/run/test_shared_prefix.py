"""Prompts that share prefixes, from suite to record, on the fake engine's server, which keeps prefixes in blocks."""

from __future__ import annotations

from typing import Any

import pytest

from bench.contract.errors import UserError
from bench.contract.load_fields import SharedPrefix
from bench.contract.record import Result
from bench.contract.workload import KINDS, Closed
from bench.load import build
from bench.load.job import Endpoint
from bench.publish.tables import build as table_build
from bench.publish.tables import render
from bench.run import plan
from bench.store import Store
from bench.suite import config
from tests.conftest import ROOT
from tests.run import fake_runs

_TOKENIZER = ROOT / "models" / "demo" / "tokenizer.json"
_NINE_TENTHS = {"tokens": 96, "groups": 3, "turns": 16}  # 15/16 x 96/100 of the tokens
_LOAD = {"kind": "closed", "prompt_tokens": 4, "new_tokens": 4}


def _run(store: Store, load: dict[str, Any], **engine: Any) -> Result:
    suite = fake_runs.suite(engines=[{"name": "fake", **engine}], workloads=[{**_LOAD, **load}], rounds=1)
    (result,) = fake_runs.run(suite, store)
    return result


@pytest.mark.usefixtures("cache")
def test_the_counted_rate_is_the_one_asked_for(tmp_path: Any) -> None:
    """Nine tenths of the tokens; what is warm is faster by what is cached; each trace says which it is."""
    store = Store(tmp_path / "results")
    load = {"shared_prefix": _NINE_TENTHS, "concurrency": 2}
    result = _run(store, load, prefix_caching=True, ttft_s=0.08, itl_s=0.004)
    measured = [t for t in store.traces(store.path(result)) if t.window >= 0]

    assert result.status == "ok", result.reason
    assert result.cell.measurement == "closed-c2-prefix96x3x16-p4-n4"
    assert result.metrics["prefix_asked_fraction"] == pytest.approx(0.9)
    assert result.metrics["prefix_hit_fraction"] == pytest.approx(0.9)
    assert result.metrics["ttft_cold_s"] == pytest.approx(0.08, abs=0.03)
    assert result.metrics["ttft_warm_s"] == pytest.approx(0.08 * 0.04, abs=0.02)
    assert len(measured) == 3 * 16
    assert [t.category for t in measured].count("cold") == 3
    assert len({t.prompt_id for t in measured}) == 3
    table = render.render(table_build.build([result]), "md")
    assert "TTFT cold ms" in table
    assert "prefix hits %" in table


@pytest.mark.usefixtures("cache")
def test_with_caching_off_the_counted_rate_may_not_be_another(tmp_path: Any) -> None:
    """Off is the default; a server that counts nothing cached is what was asked of it."""
    result = _run(Store(tmp_path / "results"), {"shared_prefix": _NINE_TENTHS}, ttft_s=0.004, itl_s=0.004)

    assert result.status == "ok", result.reason
    assert result.facts["prefix"]["caching"] is False
    assert result.metrics["prefix_asked_fraction"] == pytest.approx(0.9)


@pytest.mark.usefixtures("cache")
def test_a_cache_that_keeps_less_fails_the_cell_with_both_numbers(tmp_path: Any) -> None:
    """Blocks longer than the prefix keep none of it."""
    load = {"shared_prefix": _NINE_TENTHS}
    result = _run(Store(tmp_path / "results"), load, prefix_caching=True, block_tokens=128, ttft_s=0.004, itl_s=0.004)

    assert result.status == "failed"
    assert "the server counted a prefix hit rate of 0.0% where 90.0% was asked for" in result.reason


@pytest.mark.parametrize(
    ("tokens", "turns", "own", "asked"), [(512, 4, 256, 0.5), (768, 16, 32, 0.9), (512, 1, 9, 0.0)]
)
def test_a_rate_follows_from_the_workload(tokens: int, turns: int, own: int, asked: float) -> None:
    """(turns - 1) / turns x tokens / (tokens + prompt_tokens); prompts of a group are the same up to there alone."""
    load = config.workload(
        {"kind": "closed", "prompt_tokens": own, "shared_prefix": {"tokens": tokens, "groups": 2, "turns": turns}}
    )
    assert isinstance(load, Closed)
    target = build.Target(Endpoint("http://localhost:1", "m"), vocab_size=4096, tokenizer=_TOKENIZER, context=1024)
    job = build.closed(load, target, "s")
    assert job.closed is not None
    measured = job.requests[job.closed.warmups : len(job.requests) - job.closed.after]
    first, later = list(measured[0].ids), [list(request.ids) for request in measured[1:turns]]

    assert len(measured) == load.requests == 2 * turns
    assert sum(r.shared_tokens for r in measured) / sum(len(r.ids) for r in measured) == pytest.approx(asked)
    assert all(ids[:tokens] == first[:tokens] and ids[tokens] != first[tokens] for ids in later)
    assert len({tuple(r.ids[:8]) for r in job.requests}) == len(job.requests) // turns
    assert job.closed.turns == turns


def test_a_server_that_takes_text_gets_the_prefix_as_text() -> None:
    """A chat API as the system's words."""
    load = Closed(prompt_tokens=8, shared_prefix=SharedPrefix(**_NINE_TENTHS))
    text = build.closed(load, build.Target(Endpoint("http://localhost:1", "m"), tokenizer=_TOKENIZER), "s").requests
    chat = build.closed(load, build.Target(Endpoint("http://x:1", "m", api="chat"), tokenizer=_TOKENIZER), "s").requests

    assert text[1].text.split(" ")[:40] == text[2].text.split(" ")[:40]
    assert text[1].text != text[2].text
    assert [role for role, _ in chat[1].messages] == ["system", "user"]
    assert chat[1].messages[0] == chat[2].messages[0]


def test_an_engine_without_the_option_is_unsupported() -> None:
    """Before anything is made."""
    suite = fake_runs.suite(engines=["hf"], workloads=[{**_LOAD, "shared_prefix": _NINE_TENTHS}], rounds=1)
    (item,) = plan.plan(suite, fetch=False).items
    assert item.reason.startswith("engine hf has no option prefix_caching")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"shared_prefix": {"tokens": 0}}, "tokens of a shared prefix starts at 1, got 0"),
        ({"shared_prefix": {"groups": -1}}, "groups of a shared prefix starts at 1, got -1"),
        ({"shared_prefix": {"token": 8}}, "token"),
        ({"shared_prefix": {}, "requests": 9}, "requests: a shared_prefix has groups x turns requests; leave it out"),
        ({"shared_prefix": {}, "turns": 2}, "leave turns out"),
        ({"shared_prefix": {}, "lengths": "uniform", "spread": 0.5}, "leave lengths out"),
        ({"shared_prefix": {}, "kind": "open", "rate_per_s": 1}, "means nothing to kind: open; set kind: closed"),
    ],
)
def test_a_shared_prefix_that_cannot_be_is_one_sentence(change: dict[str, Any], words: str) -> None:
    """When the suite is read."""
    with pytest.raises(UserError, match=words):
        config.workload({**_LOAD, **change})


def test_digests_of_loads_without_a_prefix_stay() -> None:
    """The field is left out where it is not used; so is the engines' option."""

    def digests(engine: Any, **load: Any) -> set[str]:
        suite = fake_runs.suite(engines=[engine], workloads=[{**_LOAD, **load}], rounds=1)
        return {item.digest for item in plan.plan(suite, fetch=False).items}

    off, on = {"name": "fake", "prefix_caching": False}, {"name": "fake", "prefix_caching": True}
    assert digests("fake") == digests(off)
    assert digests("fake") != digests(on)
    assert digests("fake") != digests("fake", shared_prefix=_NINE_TENTHS)
    assert set(KINDS) == {"offline", "closed", "open", "trace", "sweep", "search"}
