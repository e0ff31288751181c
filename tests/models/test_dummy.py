"""Shapes: real architectures with dummy weights, through plan and tables without being taken for models."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from bench import formats
from bench.contract.errors import UserError
from bench.contract.spec import Model
from bench.formats import architecture
from bench.formats import folder as model_folder
from bench.models import dummy, resolve
from bench.progress.progress import Progress
from bench.publish.tables import build, render
from bench.run import plan, records, runner
from bench.store import Store
from bench.suite import config

# Billions of parameters, as the model cards at huggingface.co say.
_CARDS = {
    "llama-3.2-1b": 1.24,
    "llama-3.1-8b": 8.03,
    "mistral-7b": 7.25,
    "qwen2.5-0.5b": 0.494,
    "qwen2.5-1.5b": 1.54,
    "qwen2.5-7b": 7.62,
    "qwen3-0.6b": 0.596,
    "smollm2-135m": 0.135,
    "smollm2-360m": 0.362,
}
_TINY = {
    "model_type": "qwen3",
    "architectures": ["Qwen3ForCausalLM"],
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 10,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "vocab_size": 128,
    "max_position_embeddings": 64,
    "tie_word_embeddings": True,
    "initializer_range": 0.02,
    "rms_norm_eps": 1e-6,
}


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A shape of 0.3 M parameters in a folder of shapes of its own, and an empty cache."""
    (tmp_path / "configs" / "shapes").mkdir(parents=True)
    (tmp_path / "configs" / "shapes" / "tiny.yaml").write_text(yaml.safe_dump(_TINY))
    monkeypatch.setattr(dummy, "_shapes_folder", lambda: tmp_path / "configs" / "shapes")
    monkeypatch.setenv("LLM_BENCH_CACHE", str(tmp_path / "cache"))
    dummy.settings.cache_clear()
    return "shape:tiny"


def test_a_shape_has_as_many_parameters_as_its_models_card_says() -> None:
    """To the three digits of the card."""
    billions = {name: dummy.parameters(dummy.settings(f"shape:{name}")) / 1e9 for name in dummy.names()}

    assert billions == pytest.approx(_CARDS, rel=5e-3)


def test_no_shape_gets_a_window_that_its_model_has_not() -> None:
    """What a shape's config leaves out is as transformers' class has it: Mistral's has 4,096 tokens, v0.3 has none."""
    described = {name: architecture.of_config(dummy.settings(f"shape:{name}")) for name in dummy.names()}

    assert {name: shape and shape.window for name, shape in described.items()} == dict.fromkeys(_CARDS, 0)


def test_what_a_plan_knows_is_what_is_built(tiny: str) -> None:
    """Linear layers, config and architecture before the weights are generated, and after."""
    before = resolve.resolve(Model(tiny), fetch=False)
    built = resolve.resolve(Model(tiny), fetch=True)

    assert before.folder is None
    assert built.folder is not None
    assert before.identity == built.identity
    assert before.source == built.source
    assert formats.read_architecture(built.folder) == architecture.of_config(before.source.config)
    assert (before.dummy, built.dummy) == (True, True)


def test_the_same_shape_is_the_same_bytes(tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Generated twice, in two caches; norms are one, and the rest spreads as the initializer range says."""
    from safetensors.numpy import load_file

    first = dummy.build(tiny)
    monkeypatch.setenv("LLM_BENCH_CACHE", str(tmp_path / "other"))
    second = dummy.build(tiny)
    files = sorted(f.name for f in first.iterdir())
    weights = {n: t for f in first.glob("*.safetensors") for n, t in load_file(f).items()}

    assert second != first
    assert all((first / name).read_bytes() == (second / name).read_bytes() for name in files)
    assert len(list(first.glob("*.safetensors"))) == 2
    assert weights["model.layers.3.self_attn.q_norm.weight"].astype(float).tolist() == [1.0] * 32
    assert weights["model.embed_tokens.weight"].astype(float).std() == pytest.approx(0.02, rel=0.05)


def test_dummy_weights_are_refused_where_they_mean_nothing(tiny: str) -> None:
    """Quality tasks and servers, by the plan, before anything is generated."""
    suite = config.suite(
        {
            "name": "s",
            "model": tiny,
            "recipes": ["baseline"],
            "engines": ["hf", "llamacpp"],
            "tasks": ["perplexity"],
            "workloads": [
                {"prompt_tokens": 8, "new_tokens": 4},
                {"kind": "closed", "concurrency": 2, "prompt_tokens": 8, "new_tokens": 4},
            ],
        }
    )
    reasons = {item.cell.measurement.partition("-")[0]: item.reason for item in plan.plan(suite, fetch=False).items}

    assert reasons["offline"] == ""
    assert reasons["perplexity"].startswith("dummy weights have no quality to measure")
    assert reasons["closed"].startswith("a shape has no tokenizer")


def test_tables_say_that_weights_are_dummy(tiny: str, tmp_path: Path) -> None:
    """In the heading and as a mark, in every form."""
    suite = config.suite(
        {
            "name": "s",
            "model": tiny,
            "recipes": ["as-is"],
            "engines": ["fake"],
            "rounds": 1,
            "settle_s": 0,
            "workloads": [{"prompt_tokens": 8, "new_tokens": 4, "repeats": 1}],
        }
    )
    planned, store = plan.plan(suite, fetch=True), Store(tmp_path / "results")
    with Progress() as progress:
        runner.run(planned, store, progress)
    (result,) = records.current(planned, store)
    table = build.build([result])

    assert result.status == "ok", result.reason
    assert "dummy" in result.marks
    for form in ("terminal", "md", "csv", "json"):
        assert "tiny (dummy weights)" in render.render(table, form).replace("\\", "")


def test_what_cannot_be_generated_is_one_sentence(tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unknown name, and a disk that is too full."""

    class Usage(NamedTuple):
        total: int
        used: int
        free: int

    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 10**9, 1000))
    with pytest.raises(UserError, match="did you mean 'tiny'"):
        resolve.resolve(Model("shape:tinny"), fetch=False)
    with pytest.raises(UserError, match=r"takes 0.0 GiB, and .* free"):
        resolve.resolve(Model(tiny), fetch=True)


def test_weights_that_were_cut_short_are_generated_again(tiny: str) -> None:
    """config.json comes last: a folder without it was not finished."""
    folder = dummy.build(tiny)
    whole = model_folder.read_headers(folder)
    folder.rename(folder.with_suffix(".part"))

    assert dummy.find(tiny) is None
    assert model_folder.read_headers(dummy.build(tiny)) == whole


@pytest.mark.engine
@pytest.mark.needs("hf", "llamacpp")
def test_a_shape_goes_through_quantizers_and_engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """GPTQ and AWQ calibrated on random ids, GGUF without a vocabulary: timed, of the bits asked for."""
    small = {**_TINY, "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2, "head_dim": 64}
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(small))
    monkeypatch.setattr(dummy, "_shapes_folder", lambda: tmp_path)
    dummy.settings.cache_clear()
    suite: dict[str, Any] = {
        "name": "shape",
        "model": "shape:small",
        "engines": ["hf", "llamacpp"],
        "rounds": 1,
        "settle_s": 0,
        "recipes": [
            "baseline",
            "nf4",
            "int8",
            "gguf-q8_0",
            "gguf-q4_k_m",
            *(
                {"name": m, "steps": [{"method": m, "bits": 4, "group_size": 64, "samples": 2, "length": 32}]}
                for m in ("gptq", "awq")
            ),
        ],
        "workloads": [{"prompt_tokens": 32, "new_tokens": 8, "repeats": 1}],
    }
    planned, store = plan.plan(config.suite(suite), fetch=True), Store(tmp_path / "results")
    with Progress() as progress:
        runner.run(planned, store, progress)
    results = {result.cell.recipe.name: result for result in records.current(planned, store)}

    assert {name: result.reason for name, result in results.items() if result.status != "ok"} == {}
    bits = {name: r.artifact.audit.bits_per_weight for name, r in results.items() if r.artifact}
    assert bits == pytest.approx(
        {"baseline": 32, "nf4": 4.5, "int8": 8.1, "gguf-q8_0": 8.5, "gguf-q4_k_m": 4.9, "gptq": 4.4, "awq": 4.3},
        rel=0.04,
    )
