"""Speculation on the demo model: the output is the same, and what was accepted is what the engines count."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench.contract.record import RequestTrace, Result
from bench.envs import environment
from bench.progress.progress import Progress
from bench.run import artifacts, plan, records, runner
from bench.store import Store
from bench.suite import config
from tests.conftest import ROOT, json_of
from tests.engines.code_prompts import PROMPTS

pytestmark = pytest.mark.engine
_NEW, _TOKENS = 48, 4
_DEMO = ROOT / "models" / "demo"
_DRAFTS = {"llamacpp": "gguf-q4_0", "hf": "baseline", "vllm": "baseline"}  # of the same model, in another type


@pytest.fixture(scope="module", params=[pytest.param(n, marks=pytest.mark.needs(n)) for n in ("hf", "llamacpp")])
def generated(request: pytest.FixtureRequest) -> dict[str, Any]:
    """By method, what the engine generates in process."""
    engine: str = request.param
    python = environment.ensure(engine, lambda _: None).python
    folders = [_DEMO, _DEMO]
    if engine == "llamacpp":
        folders = [_artifact(recipe) for recipe in ("gguf-f16", "gguf-q4_0")]
    target, draft = folders
    words = (engine, target, _DEMO / "tokenizer.json", draft, "off", "ngram", "draft")
    result: dict[str, Any] = json_of(python, "engines/speculation_checks.py", *words)
    return result


def _artifact(recipe: str) -> Path:
    suite = config.suite(
        {
            "name": "s",
            "model": "models/demo",
            "recipes": [recipe],
            "engines": ["llamacpp"],
            "workloads": [{"batch": 1}],
            "devices": ["cpu"],
        }
    )
    (planned,) = plan.plan(suite, fetch=False).artifacts
    built = artifacts.make(planned.steps, planned.resolved, planned.hardware, lambda _: None)
    (file,) = built.folder.glob("*.gguf")
    return file


@pytest.mark.parametrize("method", ["ngram", "draft"])
def test_greedy_output_is_the_output_without(generated: dict[str, Any], method: str) -> None:
    """Token for token, and again after other prompts."""
    plain, mine = ([run["tokens"] for run in generated[how]["runs"]] for how in ("off", method))

    assert mine == plain
    assert mine[0] == mine[-1]


@pytest.mark.parametrize("method", ["ngram", "draft"])
def test_each_pass_adds_one_token_to_those_it_accepts(generated: dict[str, Any], method: str) -> None:
    """The engine's own counts of drafts explain every token: passes and accepted ones."""
    for run in generated[method]["runs"]:
        accepted = sum(count for _, count in run["drafts"])
        assert sum(run["passes"]) == _NEW
        assert len(run["passes"]) + accepted == _NEW
        assert all(0 <= count <= proposed <= _TOKENS for proposed, count in run["drafts"])
    assert generated[method]["runs"][0]["drafts"] == generated[method]["runs"][-1]["drafts"]
    assert any(count for run in generated[method]["runs"] for _, count in run["drafts"])
    assert all(not run["drafts"] and len(run["passes"]) == _NEW for run in generated["off"]["runs"])


def test_what_speculates_says_so(generated: dict[str, Any]) -> None:
    """By receipts, the draft's bytes apart from the model's; a batch has no speculation."""
    assert "speculation" not in generated["off"]["receipts"]
    assert "n-grams of 3" in generated["ngram"]["receipts"]["speculation"]
    assert "4 tokens ahead" in generated["draft"]["receipts"]["speculation"]
    assert generated["draft"]["memory"]["draft_bytes"] > 1e6
    assert generated["draft"]["memory"]["weights_bytes"] == generated["off"]["memory"]["weights_bytes"]
    for method in ("ngram", "draft"):
        assert generated[method]["refused"].startswith("speculation takes one sequence at a time, not a batch of 2")


@pytest.mark.slow
@pytest.mark.needs("hf", "vllm")
def test_vllm_accepts_n_grams_and_makes_the_same_tokens() -> None:
    """As Transformers makes without speculation; an accepted token beyond the answer's length is cut off."""
    words = (_DEMO, _DEMO / "tokenizer.json", _DEMO)
    hf, vllm = (
        json_of(environment.ensure(engine, lambda _: None).python, "engines/speculation_checks.py", engine, *words, how)
        for engine, how in (("hf", "off"), ("vllm", "ngram"))
    )

    for plain, mine in zip(hf["off"]["runs"], vllm["ngram"]["runs"], strict=True):
        accepted = sum(count for _, count in mine["drafts"])
        assert mine["tokens"] == plain["tokens"]
        assert 0 <= len(mine["passes"]) + accepted - _NEW < _TOKENS + 1
        assert len(mine["passes"]) < _NEW
    assert vllm["ngram"]["receipts"]["speculation"] == "ngram"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Result, tuple[RequestTrace, ...]]]:
    """Records and traces of llama-server without speculation, with n-grams and with a draft, by the engine's label."""
    home = tmp_path_factory.mktemp("served")
    lines = [
        {"id": str(n), "category": name, "prompt": text}
        for n, (name, text) in enumerate(zip(("class", "test"), PROMPTS, strict=True))
    ]
    (home / "code.jsonl").write_text("\n".join(map(json.dumps, lines)))
    engine = {"name": "llamacpp", "threads": 1}
    draft = {"method": "draft", "draft": "gguf-q4_0", "tokens": _TOKENS}
    load = {"kind": "closed", "prompts": str(home / "code.jsonl"), "new_tokens": _NEW, "requests": 4}
    suite = config.suite(
        {
            "name": "s",
            "model": "models/demo",
            "recipes": ["gguf-f16", "gguf-q4_0"],
            "engines": [
                {**engine, "label": "plain"},
                {**engine, "label": "ngram", "speculative": {"method": "ngram", "tokens": _TOKENS}},
                {**engine, "label": "draft", "speculative": draft},
            ],
            "workloads": [load],
            "devices": ["cpu"],
            "rounds": 1,
            "settle_s": 0,
        }
    )
    store, planned = Store(home / "results"), plan.plan(suite, fetch=False, only="gguf-f16")
    with Progress() as progress:
        runner.run(planned, store, progress)
    results = records.current(planned, store)
    return {r.cell.engine.label: (r, store.traces(store.path(r))) for r in results}


@pytest.mark.needs("llamacpp", "llamacpp-tools")
def test_a_servers_counters_are_those_of_its_answers(
    served: dict[str, tuple[Result, tuple[RequestTrace, ...]]],
) -> None:
    """Accepted tokens by Prometheus are the sum of what each answer's timings say; greedy answers are the same."""
    plain, _ = served["plain"]
    assert plain.status == "ok", plain.reason
    assert "speculation" not in plain.facts
    for label in ("ngram", "draft"):
        record, traces = served[label]
        assert record.status == "ok", record.reason
        counts = record.facts["speculation"]
        assert counts["accepted_tokens"] == sum(trace.accepted_tokens for trace in traces) > 0
        assert counts["generated_tokens"] == sum(sum(trace.event_tokens) for trace in traces)
        assert sum(n * count for n, count in enumerate(counts["accepted_histogram"])) == counts["accepted_tokens"]
        assert sum(counts["accepted_histogram"]) == counts["drafts"]
        assert record.metrics["acceptance_length"] == pytest.approx(1 + counts["accepted_tokens"] / counts["drafts"])
        assert 1 < record.metrics["tokens_per_pass"] <= 1 + _TOKENS
        assert record.facts["answers"] == plain.facts["answers"]
        assert set(record.facts["by_category"]) == {"class", "test"}
        assert all(1 <= its["tokens_per_pass"] <= 1 + _TOKENS for its in record.facts["by_category"].values())
        assert "--spec-type" in record.facts["server"]
        assert str(Path.home()) not in record.facts["server"]
    assert "DRAFT" in served["draft"][0].facts["server"]
