"""What a plan says of speculation before anything runs, and the model that drafts."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.contract.errors import UserError
from bench.contract.spec import Suite
from bench.machine import hardware as machine
from bench.run import plan
from bench.run.planned import Plan
from bench.suite import config
from tests.conftest import ROOT
from tests.formats.gguf_models import write

pytestmark = pytest.mark.usefixtures("cache")
_NGRAM = {"method": "ngram"}
_ENGINES = ("hf", "llamacpp", "vllm")
_DEMO = ROOT / "models" / "demo"


@pytest.fixture
def prompts(tmp_path: Path) -> str:
    file = tmp_path / "code.jsonl"
    file.write_text('{"prompt": "def f(x):"}\n{"prompt": "class A:"}\n')
    return str(file)


def _plan(*arguments: Any, **more: Any) -> Plan:
    return plan.plan(_suite(*arguments, **more), fetch=False)


def _suite(engine: dict[str, Any], workload: dict[str, Any], recipes: Any = ("gguf-f16",), **more: Any) -> Suite:
    suite = {
        "name": "s",
        "model": "models/demo",
        "recipes": list(recipes),
        "engines": [engine],
        "workloads": [workload],
        "devices": ["cpu"],
        "rounds": 1,
    }
    return config.suite({**suite, **more})


def _reason(*arguments: Any, **more: Any) -> str:
    (item,) = (i for i in _plan(*arguments, **more).items if i.cell.recipe.name == "gguf-f16" or not more)
    return item.reason


def test_random_tokens_are_refused() -> None:
    """What is accepted of them says nothing, whatever the kind of load."""
    for load in ({"batch": 1}, {"kind": "closed"}):
        reason = _reason({"name": "llamacpp", "speculative": _NGRAM}, load)
        assert reason.startswith("speculation on random tokens would say nothing"), reason
        assert "prompts: question.jsonl" in reason


def test_a_task_is_not_for_an_engine_that_speculates(prompts: str) -> None:
    """It would score the same; and no reference of a task is computed with speculation."""
    engines = [{"name": "hf", "label": "ngram", "speculative": _NGRAM}, "hf"]
    tasks = [{"task": "divergence", "tokens": 1024}]
    planned = _plan({}, {"prompts": prompts}, ["baseline"], engines=engines, tasks=tasks)

    by_title = {item.cell.title.split("/", 2)[2]: item for item in planned.items}
    (scored,) = (item for title, item in by_title.items() if title.startswith("ngram/divergence"))
    assert scored.reason.startswith("speculation changes the speed of answers and no score")
    assert scored.task_input is not None
    assert not scored.task_input.reason
    assert scored.task_input.engine.title == "hf"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("engine", "load", "reason"),
    [
        (
            {"name": "llamacpp", "speculative": {"method": "ngram", "tokens": 2}},
            "closed",
            "raise tokens, or lower match",
        ),
        (
            {"name": "llamacpp", "speculative": {"method": "mtp"}},
            "closed",
            "the model has no layers that predict further",
        ),
        ({"name": "llamacpp", "speculative": {"method": "mtp"}}, "offline", "drafts by mtp in its server alone"),
        ({"name": "hf", "speculative": _NGRAM}, "closed", "transformers serve does not speculate"),
        ({"name": "hf", "speculative": _NGRAM, "cache": "static"}, "offline", "leave cache dynamic"),
        ({"name": "hf", "speculative": {"method": "mtp"}}, "offline", "by ngram or draft, not by mtp"),
    ],
)
def test_what_an_engine_lacks_is_known_beforehand(engine: dict[str, Any], load: str, reason: str, prompts: str) -> None:
    """One sentence that says what to do instead."""
    recipe = "gguf-f16" if engine["name"] == "llamacpp" else "baseline"

    assert reason in _reason(engine, {"kind": load, "prompts": prompts}, [recipe])


def test_an_engine_without_the_option_says_so() -> None:
    """It has no such key; a misspelt method or part of it is named with those that are known."""
    cases: list[tuple[dict[str, Any], str]] = [
        ({"name": "onnxruntime", "speculative": _NGRAM}, r"engines\[0\].speculative: unknown key"),
        ({"name": "hf", "speculative": {"methd": "ngram"}}, r"speculative.methd: unknown key; did you mean 'method'"),
        ({"name": "hf", "speculative": {"method": "medusa"}}, "speculative_method: input should be 'off', 'ngram'"),
        ({"name": "hf", "speculative": "ngram"}, r"expected speculative: \{method: ngram, tokens: 4\}, got 'ngram'"),
        *(({"name": name, "speculative": {"method": "draft"}}, "method draft needs a draft") for name in _ENGINES),
        ({"name": "hf", "speculative": {"tokens": 4, "match": 2}}, "needs a method"),
    ]
    for engine, sentence in cases:
        with pytest.raises(UserError, match=sentence):
            _plan(engine, {"batch": 1}, ["baseline"])


def _draft(name: str, prompts: str, recipes: Any, engine: str = "llamacpp", kind: str = "closed") -> Plan:
    drafting = {"name": engine, "speculative": {"method": "draft", "draft": name}}
    return _plan(drafting, {"kind": kind, "prompts": prompts}, recipes)


def test_a_draft_may_be_a_recipe_of_the_suite(prompts: str) -> None:
    """It counts by what it is: another step makes another digest, another name does not."""
    student = {"name": "student", "steps": [{"method": "gguf", "type": "q8_0"}]}
    renamed = {**student, "name": "small"}
    other = {"name": "student", "steps": [{"method": "gguf", "type": "q4_0"}]}
    plans = [
        _draft(recipe["name"], prompts, ["gguf-f16", recipe])  # type: ignore[arg-type]
        for recipe in (student, renamed, other)
    ]
    target, second, third = (next(i for i in p.items if i.cell.recipe.name == "gguf-f16") for p in plans)
    (itself,) = (i for i in plans[0].items if i.cell.recipe.name == "student")

    assert target.draft is not None
    assert target.draft.recipe.name == "student"
    assert not target.reason
    assert target.digest == second.digest != third.digest
    assert itself.reason == "its draft student is the model itself, and would only be checked against itself"
    assert {a.recipe.name for a in plans[0].artifacts} == {"gguf-f16", "student"}


def test_a_draft_may_be_a_model(prompts: str) -> None:
    """A folder or file beside the suite's model: a checkpoint that is no row of the table."""
    planned = _draft(str(_DEMO), prompts, ["baseline"], "hf", "offline")
    (item,) = planned.items

    assert item.draft is not None
    assert item.draft.resolved.folder == _DEMO
    assert item.draft.recipe.name == "draft-demo"
    assert not item.reason
    assert {i.cell.recipe.name for i in planned.items} == {"baseline"}


def test_a_draft_that_is_not_there_is_said_at_once(prompts: str, tmp_path: Path) -> None:
    """A misspelt recipe with the nearest one, and a path that leads nowhere."""
    with pytest.raises(UserError, match="engine llamacpp: unknown draft 'gguf-q8': did you mean 'gguf-q8_0'"):
        _draft("gguf-q8", prompts, ["gguf-f16", "gguf-q8_0"])
    with pytest.raises(UserError, match=r"engine llamacpp: its draft .*none.gguf cannot be read: .* does not exist"):
        _draft(str(tmp_path / "none.gguf"), prompts, ["gguf-f16"])


def test_a_draft_of_another_format_or_vocabulary_is_refused(prompts: str, tmp_path: Path) -> None:
    """Before the target or the draft is made."""
    (item,) = _draft(str(_DEMO), prompts, ["gguf-f16"]).items
    assert item.reason == "its draft demo is hf, and llamacpp loads gguf: convert it"

    alien = write(tmp_path / "alien.gguf")
    (item,) = _draft(str(alien), prompts, ["gguf-f16"]).items
    assert item.reason.startswith(
        "its draft alien.gguf has another vocabulary than the model (64 tokens where the model has 4096"
    )

    wider = tmp_path / "wider"
    shutil.copytree(_DEMO, wider)
    settings = json.loads((wider / "config.json").read_text())
    (wider / "config.json").write_text(json.dumps({**settings, "vocab_size": settings["vocab_size"] + 64}))
    (item,) = _draft(str(wider), prompts, ["baseline"], "hf", "offline").items
    assert "has another vocabulary than the model (4160 tokens where the model has 4096)" in item.reason


def test_a_pair_that_the_device_cannot_hold_is_refused(prompts: str) -> None:
    """Where either fits alone; the sentence names both."""
    drafting = {"name": "hf", "label": "drafts", "speculative": {"method": "draft", "draft": str(_DEMO)}}
    (cpu,) = machine.devices(("cpu",))
    reasons = {}
    for mib in (24, 64):
        suite = _suite(drafting, {"prompts": prompts}, ["baseline"], engines=[drafting, "hf"])
        for item in plan.plan(suite, fetch=False, on=(replace(cpu, memory_bytes=mib << 20),)).items:
            reasons[mib, bool(item.draft)] = item.reason

    assert reasons[24, True].startswith("its draft demo does not fit beside baseline: both need about 0.0 GiB (weights")
    assert reasons[24, True].endswith("of memory; name a smaller one, or leave speculative out")
    assert {reason for key, reason in reasons.items() if key != (24, True)} == {""}


def test_plain_engines_have_the_digests_they_had(prompts: str) -> None:
    """Options of speculation at their defaults are no part of them."""
    del prompts
    load = {"batch": 1}
    (plain,) = _plan({"name": "llamacpp"}, load).items
    (off,) = _plan({"name": "llamacpp", "speculative": {"method": "off"}}, load).items

    assert plain.digest == off.digest
    assert plain.cell.engine.options["speculative_method"] == "off"
