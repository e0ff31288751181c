"""Every engine that loads a model, on the demo model in its own format: what a Session promises holds."""

from __future__ import annotations

import sys
from itertools import pairwise
from typing import Any

import pytest

from bench.contract import plugins
from bench.contract.spec import Model
from bench.envs import environment
from bench.machine import hardware as machine
from bench.models import resolve
from bench.run import artifacts
from bench.suite import config
from tests.conftest import ROOT, json_of
from tests.engines.conformance import _CHOICES

_NEW, _ROWS, _CONTEXT = 16, 40, 1024
_READ_LEAST = 9_900_000  # bytes of a step: the demo model in 16 bits, its tied head included
# The recipe that makes what each engine loads; a new engine is a new line.
_RECIPES = {
    "hf": "fp32",
    "llamacpp": "gguf-f16",
    "onnxruntime": "onnx-fp32",
    "openvino": "openvino-fp32",
    "vllm": "fp32",
}
# Installed and run on an NVIDIA GPU only: what needs none of it is tested in a file of its own.
_ON_GPUS = {"tensorrt_llm"}
pytestmark = pytest.mark.engine


def _report(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def _declared(engine: str) -> Any:
    return pytest.param(engine, marks=pytest.mark.needs(plugins.load(plugins.ENGINES, engine).ENV))


@pytest.fixture(scope="module", params=map(_declared, sorted(_RECIPES)))
def outputs(request: pytest.FixtureRequest) -> Any:
    """What conformance.py saw in the engine's environment, which is built where it is not there yet."""
    name: str = request.param
    hardware = machine.detect("cpu")
    resolved = resolve.resolve(Model(str(ROOT / "models/demo")), fetch=False)
    steps = artifacts.steps_for(config.recipe_named(_RECIPES[name]), hardware, resolved.format)
    artifact = artifacts.make(steps, resolved, hardware, _report)
    env = environment.ensure(plugins.load(plugins.ENGINES, name).ENV, _report)
    words = (name, artifact.folder, str(_CONTEXT))
    return json_of(env.python, "engines/conformance.py", *words, variables=env.variables)


@pytest.fixture
def scored(outputs: Any) -> Any:
    """The same, of an engine that scores."""
    if "greedy" not in outputs:
        pytest.skip("the engine has no score mode")
    return outputs


@pytest.mark.needs
def test_every_engine_that_loads_a_model_is_here() -> None:
    """An engine without an entry would pass by not being asked."""
    assert set(_RECIPES) == set(plugins.names(plugins.ENGINES)) - {"fake", "openai"} - _ON_GPUS


def test_generation_is_greedy_by_the_engines_own_logits(scored: Any) -> None:
    """Each token made is the most likely one by the logits that score mode gives for the same text."""
    assert [output[0] for output in scored["alone"]] == scored["greedy"]


def test_a_static_batch_makes_what_its_prompts_make_alone(outputs: Any) -> None:
    """Sequences of a batch do not see each other."""
    assert outputs["together"] == [output[0] for output in outputs["alone"]]


def test_nothing_is_left_from_the_request_before(outputs: Any) -> None:
    """The same prompts again make the same tokens."""
    assert outputs["again"] == outputs["together"]


def test_what_follows_a_filled_cache_is_what_follows_the_whole_text(outputs: Any) -> None:
    """Whatever followed it before; the clock starts once, before the first step."""
    if outputs["deep"] is None:
        pytest.skip("the engine cannot fill its cache beforehand")
    first, _, again, alone = outputs["deep"]

    assert first["tokens"] == again["tokens"] == outputs["together"][: len(first["tokens"])]
    assert alone["tokens"] == outputs["alone"][0]
    assert all(len(each["starts"]) == 1 and each["starts"][0] < each["first"] for each in outputs["deep"])


def test_every_step_is_stamped_in_order(outputs: Any) -> None:
    """Exactly the steps asked for, each later than the one before."""
    assert len(outputs["times"]) == _NEW
    assert all(a < b for a, b in pairwise(outputs["times"]))


def test_logits_cover_every_position_once(scored: Any) -> None:
    """Blocks follow each other without a gap, float32 and finite."""
    ends = [start + rows for start, rows in zip(scored["starts"], scored["rows"], strict=True)]

    assert scored["starts"] == [0, *ends[:-1]]
    assert ends[-1] == _ROWS
    assert scored["dtypes"] == ["float32"]
    assert scored["finite"]


def test_choices_score_as_their_own_logits_say(scored: Any) -> None:
    """However they are batched and packed: to 0.01 nats a token, 16-bit activations being what they are."""
    for own, plain, (_, lengths) in zip(scored["choices"], scored["by_logits"], _CHOICES, strict=True):
        for mine, theirs, tokens in zip(own, plain, lengths, strict=True):
            assert mine[0] == pytest.approx(theirs[0], abs=0.01 * tokens)
            assert mine[1] == theirs[1]


def test_prompts_continued_together_become_what_they_become_alone(scored: Any) -> None:
    """Of three lengths, each to its own limit; one that has ended stops there."""
    first, second, third = scored["made"]

    assert scored["written"] == [first, second, third[:4]]


def test_receipts_and_memory_say_what_ran(outputs: Any) -> None:
    """Kernel, dtypes, threads and device are named; the weights have a size, and a tied head is read."""
    keys = ("kernel", "weight_dtype", "compute_dtype", "kv_dtype", "threads", "device")

    assert all(outputs["receipts"].get(key) for key in keys)
    assert outputs["receipts"]["threads"] == "1"
    assert outputs["receipts"]["device"] == "cpu"
    assert outputs["memory"]["weights_bytes"] > 5_000_000
    assert outputs["memory"]["kv_bytes"] > 0
    width = {"f16": 2, "float16": 2}.get(outputs["receipts"]["kv_dtype"], 4)
    if "kv_token_bytes" in outputs["memory"]:  # 5 layers of 2 x 64 keys and values
        assert outputs["memory"]["kv_token_bytes"] == pytest.approx(5 * 2 * 2 * 64 * width, rel=0.01)
    assert outputs["memory"]["weights_bytes"] - outputs["memory"]["unread_bytes"] >= _READ_LEAST


def test_what_exceeds_the_models_context_is_refused(outputs: Any) -> None:
    """Generation and scoring, where there is any, say so in one sentence that names the context."""
    assert len(outputs["too_long"]) == (2 if "greedy" in outputs else 1)
    assert all(f"context of {_CONTEXT}" in sentence for sentence in outputs["too_long"])
