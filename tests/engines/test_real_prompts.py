"""Prompts of a file on a real engine, in process and behind its server: the same lengths, counted by each."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.progress.progress import Progress
from bench.run import plan, records, runner
from bench.store import Store
from bench.suite import config

_LIMIT = 96


@pytest.mark.engine
@pytest.mark.slow
@pytest.mark.needs("llamacpp", "llamacpp-tools")
def test_answers_end_at_the_same_token_in_process_and_behind_the_server(tmp_path: Path) -> None:
    """Prompt by prompt, by the model's end token; the server counts the prompts' tokens as the tokenizer does."""
    file = tmp_path / "code.jsonl"
    words = ("import os", "class A:", "def f(x):\n    return", '"""Print the', "for i in range(3):", "# Copyright")
    file.write_text("".join(json.dumps({"id": n, "category": "code", "prompt": w}) + "\n" for n, w in enumerate(words)))
    load = {"prompts": str(file), "answers": "natural", "new_tokens": _LIMIT}
    suite = config.suite(
        {
            "name": "prompts",
            "model": "models/demo",
            "recipes": ["gguf-f16"],
            "engines": ["llamacpp"],
            "workloads": [{**load, "repeats": 6}, {**load, "kind": "closed", "requests": 6}],
            "devices": ["cpu"],
            "rounds": 1,
            "settle_s": 0,
        }
    )
    store, planned = Store(tmp_path / "results"), plan.plan(suite, fetch=False)
    with Progress() as progress:
        runner.run(planned, store, progress)
    lengths = {}
    for result in records.current(planned, store):
        assert result.status == "ok", result.reason
        traces = [trace for trace in store.traces(store.path(result)) if trace.window >= 0]
        lengths[result.cell.measurement] = {t.prompt_id: (t.prompt_tokens, sum(t.event_tokens)) for t in traces}

    offline, closed = lengths["offline-b1-code-natural96"], lengths["closed-c1-code-natural96"]
    assert set(offline) == {str(n) for n in range(6)}
    assert offline == closed
