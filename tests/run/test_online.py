"""Online rounds from suite to record, on the fake engine's server; `bench load` against one that runs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from bench.contract.errors import UserError
from bench.contract.record import Result
from bench.contract.workload import Workload
from bench.process import server
from bench.run import plan
from bench.store import Store
from bench.suite import config
from tests.conftest import ROOT, Command
from tests.instrument import scripted_server
from tests.run import fake_runs

_WORKLOAD: TypeAdapter[Workload] = TypeAdapter(Workload)
_CLOSED = {"kind": "closed", "concurrency": 4, "prompt_tokens": 16, "new_tokens": 8, "requests": 20}
_OPEN = {"kind": "open", "rate_per_s": 40, "prompt_tokens": 16, "new_tokens": 8, "requests": 20}


def _run(store: Store, engine: dict[str, Any], *loads: dict[str, Any]) -> list[Result]:
    suite = fake_runs.suite(engines=[{"name": "fake", **engine}], workloads=list(loads), rounds=1)
    return fake_runs.run(suite, store)


@pytest.mark.usefixtures("cache")
def test_a_server_is_started_loaded_and_recorded(tmp_path: Path) -> None:
    """TTFT and TPOT are the server's schedule; the load asked for is the load in flight; nothing is left."""
    store = Store(tmp_path / "results")
    closed, opened = sorted(
        _run(store, {"ttft_s": 0.03, "itl_s": 0.005}, _CLOSED, _OPEN), key=lambda r: r.cell.measurement
    )

    for result in (closed, opened):
        assert result.status == "ok", result.reason
        assert result.metrics["ttft_s"] == pytest.approx(0.03, abs=0.02)
        assert result.metrics["tpot_s"] == pytest.approx(0.005, abs=0.003)
        assert result.metrics["failed_requests"] == 0
        assert result.facts["counted_by"] == "usage"
        assert {"in_flight_mean", "client_cpu_fraction", "client_lag_p99_s", "ready_s"} <= set(result.facts)
        assert str(tmp_path) not in json.dumps(result.facts["server"])
    assert closed.metrics["concurrency"] == pytest.approx(4, abs=0.3)
    assert closed.facts["in_flight_high"] == 4
    assert closed.metrics["output_tok_per_s"] == pytest.approx(4 * 8 / 0.065, rel=0.4)
    assert server.orphans() == []


@pytest.mark.usefixtures("cache")
def test_a_server_that_cannot_serve_is_a_failed_round(tmp_path: Path) -> None:
    """A server that dies on its first request: the reason says what the client saw; the run goes on."""
    (result,) = _run(Store(tmp_path / "results"), {"fail": "exit"}, _CLOSED)

    assert result.status == "failed"
    assert result.reason == "the server ended (code 7) while it was used; 0 requests were finished before"


@pytest.mark.usefixtures("cache")
def test_a_depth_is_loaded_before_the_clock_and_counted_by_the_server(tmp_path: Path) -> None:
    """The record's prompts are what came after it; a server that forgets some fails the cell, with both numbers."""
    deep = {**_CLOSED, "concurrency": 2, "depth_tokens": 200}
    (kept,) = _run(Store(tmp_path / "kept"), {"ttft_s": 0.01, "itl_s": 0.002}, deep)
    (forgot,) = _run(Store(tmp_path / "forgot"), {"ttft_s": 0.01, "itl_s": 0.002, "forgets": 3}, deep)

    assert kept.status == "ok", kept.reason
    assert (kept.facts["depth_tokens"], kept.facts["cached_tokens"]) == (200, 20 * 200)
    assert kept.metrics["ttft_s"] == pytest.approx(0.01, abs=0.01)
    assert forgot.status == "failed"
    assert "the server had 197 tokens of a prompt in its cache, and depth_tokens is 200" in forgot.reason


@pytest.mark.usefixtures("cache")
def test_a_depth_in_process_comes_before_the_clock(tmp_path: Path) -> None:
    """A second to fill the cache is in no TTFT; the prompts have their own tokens alone."""
    deep = {"batch": 2, "depth_tokens": 200, "prompt_tokens": 4, "new_tokens": 4, "repeats": 2}
    (result,) = _run(Store(tmp_path / "results"), {"fill_s": 0.2, "ttft_s": 0.01, "itl_s": 0.001}, deep)

    assert result.status == "ok", result.reason
    assert result.facts["depth_tokens"] == 200
    assert result.metrics["ttft_s"] < 0.1
    assert result.duration_s > 0.2 * 3


def test_a_kinds_own_fields_alone_make_its_digest(cache: Path) -> None:
    """An offline record stays current whatever the fields of online loads are, and the other way round."""
    del cache

    def digests(load: dict[str, Any]) -> set[str]:
        load_spec = _WORKLOAD.validate_python(load)
        suite = replace(fake_runs.suite(workloads=[_CLOSED]), workloads=(load_spec,))  # as old records have them
        return {item.digest for item in plan.plan(suite, fetch=False).items}

    offline = {"kind": "offline", "batch": 1, "prompt_tokens": 16, "new_tokens": 8}
    assert digests(offline) == digests({**offline, "requests": 7, "rate_per_s": 3.0})
    assert digests(_CLOSED) == digests({**_CLOSED, "batch": 9, "burstiness": 2.0})
    assert digests(_CLOSED) != digests({**_CLOSED, "requests": 21})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kind": "open"}, "needs a rate_per_s above zero"),
        ({"kind": "open", "rate_per_s": 1, "burstiness": 0}, "burstiness must be above zero"),
        ({"kind": "closed", "concurrency": 0}, "concurrency starts at 1, got 0"),
        ({"kind": "clsoed"}, "workloads"),
        ({"kind": "search", "rate_per_s": 1}, "a search needs a limit to keep"),
        ({"kind": "search", "rate_per_s": 1, "slo": {"ttft": 1}}, "ttft"),
        ({"kind": "search", "rate_per_s": 1, "slo": {"ttft_s": 1}, "requests": 50}, "needs 59 requests"),
        ({"kind": "sweep", "over": "rate"}, "begins at a rate_per_s above zero"),
        ({"kind": "sweep", "over": "depth"}, "goes from depth_tokens above zero to most"),
        ({"kind": "open", "rate_per_s": 1, "depth_tokens": 8}, "means nothing to kind: open; set kind: "),
        ({"kind": "trace"}, "a trace needs the path of its file"),
        ({"kind": "trace", "path": "no/such.csv"}, "no/such.csv does not exist"),
        ({"kind": "trace", "path": "x", "prompt_tokens": 9}, "means nothing to kind: trace"),
        ({"kind": "open", "rate_per_s": 1, "lengths": "uniform", "spread": 2}, "needs a spread above 0"),
        ({"kind": "closed", "turns": 2, "lengths": "uniform", "spread": 0.5}, "fixed lengths"),
        ({"concurrency": 4}, "means nothing to kind: offline; set kind: closed"),
        ({"kind": "closed", "batch": 2}, "means nothing to kind: closed; set kind: offline"),
        ({"kind": "open", "rate_per_s": 1, "concurrency": 2}, "means nothing to kind: open"),
    ],
)
def test_a_load_that_cannot_be_is_refused(change: dict[str, Any], words: str) -> None:
    """In one sentence, before anything is run."""
    with pytest.raises(UserError, match=words):
        config.suite({"name": "s", "model": "m", "recipes": ["fp32"], "engines": ["fake"], "workloads": [change]})


def test_a_running_server_can_be_loaded(command: Command, endpoint: str) -> None:
    """`bench load URL`: figures in the terminal, and all of it as JSON."""
    words = [endpoint, "--model", "fake", "--requests", "20", "--prompt-tokens", "8", "--new-tokens", "8"]
    outcome = command("bench", "load", *words, "--concurrency", "4")
    data = json.loads(command("bench", "load", *words, "--rate", "50", "--json").stdout)

    assert outcome.returncode == 0, outcome.stderr
    assert "output_tok_per_s" in outcome.stdout
    assert data["metrics"]["ttft_s"] == pytest.approx(0.02, abs=0.02)
    assert data["facts"]["failures"] == {}


def test_a_server_that_is_not_there_is_one_sentence(command: Command) -> None:
    """Exit code 2, and what the client was told."""
    done = command("bench", "load", f"http://127.0.0.1:{server.free_port()}", "--model", "m", "--requests", "3")

    assert done.returncode == 2
    assert done.stderr.startswith("error: http://127.0.0.1:")
    assert "none of 3 requests was completed; the first: no connection: Connection refused" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.slow
def test_events_that_are_counted_as_tokens_are_marked(command: Command) -> None:
    """No usage, four tokens a chunk: the terminal says what was counted, and what speaks against it.

    With a tokenizer the answers' own tokens are counted, and nothing is marked. The text is four words that are a
    token each.
    """
    with scripted_server.running(usage="none", per_event=4, text=" self", itl_s=0.01) as scripted:
        words = [scripted.url, "--model", "m", "--requests", "5", "--prompt-tokens", "8", "--new-tokens", "32"]
        events = command("bench", "load", *words)
        counted = command("bench", "load", *words, "--tokenizer", str(ROOT / "models" / "demo" / "tokenizer.json"))
        rates = [
            json.loads(command("bench", "load", *words, "--json", *more).stdout)
            for more in ([], ["--tokenizer", str(ROOT / "models" / "demo" / "tokenizer.json")])
        ]

    assert events.returncode == counted.returncode == 0, events.stderr + counted.stderr
    assert "  events: the server counts no tokens and there is no tokenizer to" in events.stdout
    assert "5 answers ended with finish_reason length at the 32 tokens that were asked for" in events.stdout
    assert "but in 8 events: these are not tokens; give --tokenizer FILE to count them" in events.stdout
    assert "events" not in counted.stdout
    assert [rate["facts"]["counted_by"] for rate in rates] == ["events", "tokenizer"]
    ratio = rates[1]["metrics"]["output_tok_per_s"] / rates[0]["metrics"]["output_tok_per_s"]
    assert ratio == pytest.approx(4.0, rel=0.2)
    assert rates[0]["metrics"]["tpot_s"] == pytest.approx(0.010, rel=0.2)
    assert rates[1]["metrics"]["tpot_s"] == pytest.approx(0.070 / 31, rel=0.2)
