"""Workloads with a file of real prompts, from suite to record: which prompts, their lengths, ids and categories."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from bench.contract.errors import UserError
from bench.contract.record import Result
from bench.contract.workload import Closed, Offline
from bench.publish.tables import build as table_build
from bench.publish.tables import render
from bench.run import plan, text_prompts
from bench.store import Store
from bench.suite import config
from tests.conftest import ROOT, Command
from tests.instrument import scripted_server
from tests.run import fake_runs

DEMO = ROOT / "models" / "demo"
_ENCODE = Tokenizer.from_file(str(DEMO / "tokenizer.json")).encode
_CLOSED = {"kind": "closed", "concurrency": 2, "requests": 8, "new_tokens": 8}


@pytest.fixture
def prompts(tmp_path: Path) -> str:
    """Twelve prompts of two categories, each longer than the one before."""
    lines = [
        {"question_id": n, "category": ("code", "text")[n % 2], "turns": ["def f(x): return x " * (n + 1), "And then?"]}
        for n in range(12)
    ]
    file = tmp_path / "asked.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(file)


def _text(number: int) -> str:
    return "def f(x): return x " * (number + 1)


def _run(store: Store, *loads: dict[str, Any], **engine: Any) -> list[Result]:
    suite = fake_runs.suite(engines=[{"name": "fake", **engine}], workloads=list(loads), rounds=1)
    return fake_runs.run(suite, store)


@pytest.mark.usefixtures("cache")
def test_a_round_in_process_asks_the_files_prompts(tmp_path: Path, prompts: str) -> None:
    """Each trace has its prompt's id and category, and as many tokens as the model's tokenizer counts in it."""
    store = Store(tmp_path / "results")
    (result,) = _run(store, {"prompts": prompts, "repeats": 6, "new_tokens": 4})
    traces = store.traces(store.path(result))

    assert result.status == "ok", result.reason
    assert result.cell.measurement == "offline-b1-asked-n4"
    assert len({trace.prompt_id for trace in traces}) == 6
    for trace in traces:
        number = int(trace.prompt_id)
        assert trace.category == ("code", "text")[number % 2]
        assert trace.prompt_tokens == len(_ENCODE(_text(number)).ids)
    lengths = [trace.prompt_tokens for trace in traces]
    assert result.metrics["prompt_tokens_mean"] == pytest.approx(sum(lengths) / 6)
    assert result.metrics["answer_tokens_mean"] == 4
    assert set(result.facts["by_category"]) <= {"code", "text"}
    assert sum(metrics["requests"] for metrics in result.facts["by_category"].values()) == 6
    assert result.facts["prompt_file"] | {"sha256": "", "chat_template": ""} == {
        "name": "asked.jsonl",
        "read_by": "turns",
        "prompts": 12,
        "drawn": 12,
        "later_turns": 12,
        "too_long": 0,
        "sha256": "",
        "chat_template": "",
    }
    assert str(tmp_path) not in store.path(result).read_text()
    table = render.render(table_build.build([result]), "md")
    assert "by category" in table
    assert "| category | TTFT ms" in table


@pytest.mark.usefixtures("cache")
def test_a_server_is_asked_the_same_prompts_as_the_engine_in_process(tmp_path: Path, prompts: str) -> None:
    """A seed draws them, whatever the kind of the load; an answer of natural length is shorter than its limit."""
    store = Store(tmp_path / "results")
    loads = [{"prompts": prompts, "repeats": 8, "new_tokens": 8}]
    loads += [{**_CLOSED, "prompts": prompts}, {**_CLOSED, "prompts": prompts, "answers": "natural", "new_tokens": 64}]
    loads += [{"kind": "open", "rate_per_s": 20, "prompts": prompts, "requests": 8, "new_tokens": 8}]
    results = {r.cell.measurement: r for r in _run(store, *loads, answer_tokens=5)}
    asked = {}
    for title, result in results.items():
        assert result.status == "ok", result.reason
        traces = [trace for trace in store.traces(store.path(result)) if trace.window >= 0]
        assert all(trace.prompt_tokens == len(_ENCODE(_text(int(trace.prompt_id))).ids) for trace in traces)
        asked[title] = sorted(trace.prompt_id for trace in traces)

    assert len(asked) == 4
    assert len({tuple(ids) for ids in asked.values()}) == 1
    assert results["closed-c2-asked-natural64"].metrics["answer_tokens_mean"] == 5
    assert results["closed-c2-asked-n8"].metrics["answer_tokens_mean"] == 8


def test_the_files_content_and_not_its_place_is_in_the_digest(tmp_path: Path, prompts: str) -> None:
    """Nor is its name; a load without a file has the digest it had before there were any."""

    def digest(**load: Any) -> str:
        return next(iter(plan.plan(fake_runs.suite(workloads=[load], rounds=1), fetch=False).items)).digest

    other = tmp_path / "elsewhere" / "asked.jsonl"
    other.parent.mkdir()
    other.write_text(Path(prompts).read_text())
    first = digest(prompts=prompts)

    assert digest(prompts=str(other)) == first
    assert digest(prompts=prompts, answers="natural", kind="closed") != digest(prompts=prompts, kind="closed")
    other.write_text(Path(prompts).read_text() + '{"prompt": "one more"}\n')
    assert digest(prompts=str(other)) != first
    assert digest() == digest(new_tokens=64)


def test_a_prompt_that_exceeds_the_context_is_named_or_skipped(prompts: str) -> None:
    """Before anything is run: the line, both lengths, and what to do. The demo model's context is 1,024 tokens."""
    long = Path(prompts).with_name("long.jsonl")
    long.write_text(Path(prompts).read_text() + json.dumps({"prompt": "word " * 1500}) + "\n")
    suite = fake_runs.suite(workloads=[{"prompts": str(long), "repeats": 13}], rounds=1)
    (item,) = plan.plan(suite, fetch=False).items
    skipping = replace(suite, workloads=(Offline(prompts=str(long), repeats=13, too_long="skip"),))

    assert f"{long}, line 13: a prompt of 1,5" in item.reason
    assert "exceed the context of 1,024: set too_long: skip" in item.reason
    assert plan.plan(skipping, fetch=False).items[0].reason == ""
    drawn = text_prompts.draw(Offline(prompts=str(long), repeats=13, too_long="skip"), DEMO, 1024, 0)
    assert (len(drawn.prompts), drawn.facts["prompt_file"]["too_long"]) == (12, 1)


def test_a_model_without_a_chat_template_is_said_before_a_run(prompts: str) -> None:
    """The demo model has none."""
    suite = fake_runs.suite(workloads=[{"prompts": prompts, "chat": True}], rounds=1)
    assert "the model has no chat template" in plan.plan(suite, fetch=False).items[0].reason


def test_a_seed_draws_the_prompts(prompts: str) -> None:
    """Another seed another order; a longer load begins with the shorter one's."""
    load = Closed(prompts=prompts, requests=4)
    first = [p.id for p in text_prompts.draw(load, DEMO, 1024, 0).prompts]

    assert first == [p.id for p in text_prompts.draw(load, DEMO, 1024, 0).prompts]
    assert first != [p.id for p in text_prompts.draw(load, DEMO, 1024, 1).prompts]
    assert [p.id for p in text_prompts.draw(Closed(prompts=prompts, requests=2), DEMO, 1024, 0).prompts] == first[:5]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"prompts": "no/such.jsonl"}, "no/such.jsonl does not exist"),
        ({"batch": 2}, "a static batch has prompts of one length"),
        ({"prompt_tokens": 9}, "prompt_tokens: the prompts of a file have lengths of their own; leave it out"),
        ({"kind": "closed", "turns": 2}, "leave turns out"),
        ({"kind": "closed", "lengths": "uniform", "spread": 0.5}, "leave lengths: uniform out"),
        ({"kind": "trace", "path": "x"}, "prompts: means nothing to kind: trace"),
        ({"prompts": "", "answers": "natural"}, "answers means nothing to drawn prompts"),
        ({"prompts": "", "chat": True}, "chat means nothing to drawn prompts"),
    ],
)
def test_what_cannot_be_asked_with_prompts_is_one_sentence(prompts: str, change: dict[str, Any], words: str) -> None:
    """When the suite is read."""
    with pytest.raises(UserError, match=words):
        config.suite(
            {
                "name": "s",
                "model": "m",
                "recipes": ["fp32"],
                "engines": ["fake"],
                "workloads": [{"prompts": prompts, **change}],
            }
        )


def test_a_damaged_file_ends_the_command(command: Command, tmp_path: Path) -> None:
    """Exit code 2 and one line, with the file and the line in it."""
    file = tmp_path / "bad.jsonl"
    file.write_text('{"prompt": "x"}\n{"prompt": 3}\n')
    suite = tmp_path / "mine.yaml"
    suite.write_text(f"model: models/demo\nrecipes: [as-is]\nengines: [fake]\nworkloads: [{{prompts: {file}}}]\n")
    done = command("bench", "plan", str(suite))

    assert done.returncode == 2
    assert done.stderr.strip().endswith(
        f"{file}, line 2: prompt: expected a text that is not empty; fix or remove that line"
    )
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_running_server_can_be_asked_real_prompts(command: Command, prompts: str) -> None:
    """`bench load --prompts`: a line for each category, and the lengths as the server counted them."""
    with scripted_server.running() as scripted:
        words = [scripted.url, "--model", "m", "--prompts", prompts, "--requests", "6", "--new-tokens", "8"]
        done = command("bench", "load", *words)
        chat = json.loads(command("bench", "load", *words, "--chat", "--natural", "--json").stdout)

    assert done.returncode == 0, done.stderr
    assert "closed-c1-asked-n8" in done.stdout
    assert "category" in done.stdout
    assert chat["facts"]["prompts"] == "chat"
    assert set(chat["facts"]["by_category"]) == {"code", "text"}
    assert chat["metrics"]["answer_tokens_mean"] > 0
