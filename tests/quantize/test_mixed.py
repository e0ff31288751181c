"""Bits to a budget: the solver's choice is the best there is, and what is made is within the budget."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path
from typing import Any

import pytest

from bench import formats
from bench.contract import plugins
from bench.contract.errors import UserError
from bench.contract.record import Source
from bench.contract.spec import Model, Recipe, Step
from bench.envs import environment
from bench.machine import hardware
from bench.models import resolve
from bench.run import artifacts
from bench.suite import config
from quantize import allocation, mixed
from tests.conftest import ROOT, Command, json_of

DEMO = ROOT / "models" / "demo"
GGUF, ONNX, SENSITIVITY = (plugins.load(plugins.METHODS, name) for name in ("gguf", "onnx", "sensitivity"))


@pytest.mark.parametrize("seed", range(8))
def test_the_solvers_choice_is_the_best_of_all(seed: int) -> None:
    """Every assignment of six layers to four types is tried: none within the size costs less."""
    draw = random.Random(seed)  # noqa: S311  (a reproducible case, not a secret)
    sizes = [[draw.randrange(100, 10_000) for _ in range(4)] for _ in range(6)]
    losses = [[draw.random() * 10.0 ** -draw.randrange(1, 7) for _ in row] for row in sizes]
    smallest, largest = sum(map(min, sizes)), sum(map(max, sizes))
    most = smallest + (largest - smallest) * draw.randrange(1, 6) // 8

    picks = allocation.least_loss(losses, sizes, most)

    def total(rows: list[list[Any]], chosen: tuple[int, ...] | list[int]) -> float:
        return float(sum(row[pick] for row, pick in zip(rows, chosen, strict=True)))

    within = [c for c in itertools.product(range(4), repeat=6) if total(sizes, c) <= most]
    assert total(sizes, picks) <= most
    assert total(losses, picks) == pytest.approx(min(total(losses, c) for c in within), rel=1e-9)


def test_a_budget_below_the_smallest_choices_is_refused() -> None:
    """With both sizes, in one sentence; a budget of just that size has one assignment."""
    sizes = [[10, 20], [30, 40]]

    assert allocation.least_loss([[1.0, 0.0], [1.0, 0.0]], sizes, 40) == [0, 0]
    with pytest.raises(UserError, match="the smallest choices take 40 bytes, and 39 are allowed"):
        allocation.least_loss([[1.0, 0.0], [1.0, 0.0]], sizes, 39)


def _source(inputs: int = 256, model_type: str = "llama", **settings: Any) -> Source:
    linears = {f"model.layers.{i}.mlp.up_proj": (512, inputs) for i in range(2)}
    return Source("hf", linears, {"model_type": model_type, "architectures": ["LlamaForCausalLM"], **settings})


@pytest.mark.parametrize(
    ("options", "source", "reason"),
    [
        ({"bits_per_weight": 4.5, "choices": "q4_k,q8_0"}, _source(), None),
        ({"bits_per_weight": 4.4, "choices": "q4_k,q8_0"}, _source(), "mixed.bits_per_weight 4.4 cannot be met: the"),
        ({"bits_per_weight": 4.4, "choices": "q4_k,q8_0"}, _source(), "for each layer take 4.50"),
        ({"bits_per_weight": 0.0, "choices": "q4_k,q8_0"}, _source(), "mixed.bits_per_weight 0 is no size"),
        ({"bits_per_weight": -1.0, "choices": "q4_k,q8_0"}, _source(), "mixed.bits_per_weight -1 is no size"),
        ({"bits_per_weight": 5.0, "choices": "q4_k,q9_k"}, _source(), "mixed.choices has q9_k: choose of f16, q8_0"),
        ({"bits_per_weight": 5.0, "choices": "q4_k"}, _source(), "fewer than two types"),
        ({"bits_per_weight": 5.0, "choices": ""}, _source(), "fewer than two types"),
        ({"bits_per_weight": 5.0, "choices": "q4_k,q6_k"}, _source(96), "blocks that divide the 96 inputs"),
        ({"bits_per_weight": 8.5, "choices": "q4_k,q8_0"}, _source(96), None),
        ({"bits_per_weight": 8.4, "choices": "q4_k,q8_0"}, _source(96), "take 8.50"),
        ({"bits_per_weight": 5.0, "choices": "q4_k,q8_0", "tokens": 0}, _source(), "mixed.tokens 0"),
        ({"bits_per_weight": 5.0, "choices": "q4_k,q8_0"}, _source(num_local_experts=8), "experts are in one tensor"),
    ],
)
def test_what_cannot_be_chosen_is_said_beforehand(options: dict[str, Any], source: Source, reason: str | None) -> None:
    """From the layers' shapes alone, before anything is measured."""
    given = config.options(plugins.METHODS, "gguf", {"mixed": options}, "step")

    refusal = GGUF.unsupported(GGUF.Options(**given), source, hardware.detect("cpu"))

    assert refusal is None if reason is None else refusal and reason in refusal


@pytest.mark.parametrize(
    ("options", "layers", "reason"),
    [
        ({}, "model.layers.0.self_attn.q_proj", None),
        ({"bits_per_weight": 4.9}, "model.layers.0.self_attn.q_proj", "for each layer take 5.00"),
        ({"choices": "int4,q4_k"}, "model.layers.0.self_attn.q_proj", "mixed.choices has q4_k: choose of int8, int4"),
        ({}, "model.layers.0.self_attn.qkv", "name of model.layers.0.self_attn.qkv is not known"),
        ({"symmetric": False, "algorithm": "rtn"}, "model.layers.0.mlp.up_proj", "algorithm default, symmetric"),
        ({"precision": "int8"}, "model.layers.0.mlp.up_proj", "those of precision int4"),
    ],
)
def test_types_of_onnx_are_int4_and_int8(options: dict[str, Any], layers: str, reason: str | None) -> None:
    """By the rounding that the model builder does by default, on models whose layers it names as Llama's."""
    budget = {"bits_per_weight": 6.0, "choices": "int4,int8"}
    budget |= {key: options.pop(key) for key in tuple(options) if key in budget}
    given = config.options(plugins.METHODS, "onnx", {**options, "mixed": budget}, "step")
    source = Source("hf", {layers: (256, 256)}, {**_source().config, "hidden_size": 256})

    refusal = ONNX.unsupported(ONNX.Options(**given), source, hardware.detect("cpu"))

    assert refusal is None if reason is None else refusal and reason in refusal


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"type": "q5_k_m"}, "mixed chooses the type of each layer: leave type: q5_k_m out"),
        ({"imatrix": True}, "mixed types are measured without an importance matrix"),
        ({"first_token_weight": 10.0}, "mixed types weigh all tokens alike"),
    ],
)
def test_options_that_mixed_types_do_not_have_are_refused(more: dict[str, Any], reason: str) -> None:
    """Another type, an importance matrix, weights of tokens."""
    options = GGUF.Options(mixed_bits_per_weight=5.0, mixed_choices="q4_k,q8_0", **more)

    assert reason in str(GGUF.unsupported(options, _source(), hardware.detect("cpu")))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({}, None),
        ({"format": "onnx", "choices": "int4,int8", "block": 32}, None),
        ({"choices": "q4_k,q9_k"}, "choices has q9_k: choose of f16, q8_0"),
        ({"format": "onnx", "block": 32}, "choices has q4_k: choose of int8, int4"),
    ],
)
def test_sensitivity_measures_types_of_its_format(options: dict[str, Any], reason: str | None) -> None:
    """As a step of one's own too, whose choices no `mixed` has looked at."""
    refusal = SENSITIVITY.unsupported(SENSITIVITY.Options(**options), _source(), hardware.detect("cpu"))

    assert refusal is None if reason is None else refusal and reason in refusal


def test_the_steps_before_are_shared_by_all_budgets() -> None:
    """Losses are measured once for a set of choices, in whatever order it is written; the budget comes after."""
    chains = [
        artifacts.steps_for(
            Recipe("m", (Step("gguf", config.options(plugins.METHODS, "gguf", {"mixed": its}, "step")),)),
            hardware.detect("cpu"),
            "hf",
        )
        for its in (
            {"bits_per_weight": 4.5, "choices": ["q4_k", "q8_0"]},
            {"bits_per_weight": 5, "choices": ["q8_0", "q4_k"]},
        )
    ]

    assert [step.method for step in chains[0]] == ["sensitivity", "allocation", "gguf", "gguf"]
    assert chains[0][0] == chains[1][0]
    assert chains[0][1] != chains[1][1]
    first = artifacts.steps_for(
        Recipe("m", (Step("gguf", GGUF.Options(mixed_bits_per_weight=5.0, mixed_choices="q4_k,q8_0").__dict__),)),
        hardware.detect("cpu"),
        "gguf",
    )
    assert first[0].method == "dequantize"


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (4.5, "step.mixed: expected mixed: {bits_per_weight: 4.5, choices: [q4_k, q6_k]}, got 4.5"),
        ({"bits": 4.5}, "step.mixed.bits: unknown key (known: bits_per_weight, choices, tokens)"),
        ({"bits_per_weight": "few"}, "step.mixed_bits_per_weight: input should be a valid number"),
    ],
)
def test_a_budget_that_is_written_wrongly_is_one_sentence(value: Any, sentence: str) -> None:
    """Where it stands in the suite, and how it is written."""
    with pytest.raises(UserError) as error:
        config.options(plugins.METHODS, "gguf", {"mixed": value}, "step")

    assert sentence in str(error.value)


def test_a_folder_without_the_steps_before_is_one_sentence(tmp_path: Path) -> None:
    """Figures that are not there, or are something else, name the step that writes them."""
    with pytest.raises(UserError, match=r"no layer_types.json: the step allocation writes it"):
        mixed.read_types(tmp_path)
    (tmp_path / mixed.LOSSES).write_text("[]")
    with pytest.raises(UserError, match="not what the step sensitivity writes"):
        mixed.read_losses(tmp_path)


def test_a_budget_that_cannot_be_met_is_one_sentence(command: Command, tmp_path: Path) -> None:
    """On the command line too, with exit code 2 and nothing written."""
    words = ("--method", "gguf", "--mixed-bits-per-weight", "4", "--mixed-choices", "q4_k,q8_0", "--quiet")
    done = command("quantize", str(DEMO), *words, "-o", str(tmp_path / "out"))

    assert done.returncode == 2
    assert done.stderr == (
        "error: mixed.bits_per_weight 4 cannot be met: the smallest of q4_k, q8_0 for each layer take 4.50\n"
    )
    assert not (tmp_path / "out").exists()


_BUDGETS: dict[str, dict[str, Any]] = {
    "gguf": {"bits_per_weight": 5.0, "choices": ["q4_k", "q6_k", "q8_0"], "tokens": 256},
    "onnx": {"bits_per_weight": 6.0, "choices": ["int4", "int8"], "tokens": 512},
}


_ENVS = {"gguf": "llamacpp", "onnx": "onnx"}


@pytest.fixture(scope="module", params=[pytest.param(m, marks=pytest.mark.needs(e)) for m, e in _ENVS.items()])
def artifact(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The demo model within a budget, by all steps in their own environments: its folder, facts and audit."""
    method = str(request.param)
    python = environment.ensure(_ENVS[method], print).python
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("LLM_BENCH_CACHE", str(tmp_path_factory.mktemp(method)))
        patched.setenv(f"LLM_BENCH_PYTHON_{_ENVS[method].upper()}", python)
        machine = hardware.detect("cpu")
        step = Step(method, config.options(plugins.METHODS, method, {"mixed": _BUDGETS[method]}, "step"))
        resolved = resolve.resolve(Model(str(DEMO)), fetch=False)
        built = artifacts.make(artifacts.steps_for(Recipe("m", (step,)), machine, "hf"), resolved, machine, print)
    facts, audit = built.artifact.facts, built.artifact.audit
    return {"method": method, "folder": built.folder, "facts": facts, "audit": audit, "python": python}


@pytest.mark.engine
@pytest.mark.needs("llamacpp", "onnx")
def test_what_is_made_is_within_the_budget(artifact: dict[str, Any]) -> None:
    """The audit's bits per weight are at most those of the budget, and close to it but for ONNX's head of 4 bits."""
    budget = _BUDGETS[artifact["method"]]["bits_per_weight"]

    assert 0.95 * budget < artifact["audit"].bits_per_weight <= budget
    assert sum(artifact["facts"]["layers_by_type"].values()) == 35
    assert len(artifact["facts"]["layers_by_type"]) > 1
    low, high = (artifact["facts"][f"predicted_kl_{end}"] for end in ("low", "high"))
    assert 0 <= low <= artifact["facts"]["predicted_kl"] <= high
    assert artifact["facts"]["predicted_kl"] > 0
    assert formats.audit(artifact["folder"], None).bits_per_weight == artifact["audit"].bits_per_weight


@pytest.mark.engine
@pytest.mark.needs("llamacpp", "onnx")
def test_losses_are_of_what_is_stored(artifact: dict[str, Any]) -> None:
    """The rounding of a layer that is measured is the file's own, bit for bit, in each type of the assignment."""
    differences = json_of(
        artifact["python"], f"quantize/{artifact['method']}_mixed_checks.py", DEMO, artifact["folder"]
    )

    assert len(differences) == 35
    assert set(differences.values()) == {0.0}


@pytest.mark.engine
@pytest.mark.needs("llamacpp", "onnx")
def test_the_figures_of_a_text_keep_it_out_of_scores(artifact: dict[str, Any]) -> None:
    """The text that types were chosen by is on record beside the weights, as any calibration text."""
    assert json.loads((artifact["folder"] / "calibration.json").read_text())["corpus"] == "stdlib"
