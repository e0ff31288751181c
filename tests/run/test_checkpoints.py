"""Recipes that are a checkpoint which somebody else made: planned, run and recorded beside the suite's own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from bench.contract.errors import UserError
from bench.publish.tables import build, render
from bench.run import plan, records
from bench.run.planned import Reference
from bench.store import Store
from bench.suite import config
from tests.formats.gguf_models import write
from tests.run import fake_runs


@pytest.mark.usefixtures("cache")
def test_a_checkpoint_is_run_beside_the_models_own_recipes(tmp_path: Path) -> None:
    """A folder and a .gguf file: no step, their own digests, formats and audits, and no folder in a record."""
    folder, file = _copy(tmp_path), write(tmp_path / "tiny.gguf")
    recipes = ["as-is", {"name": "copy", "checkpoint": str(folder)}, {"name": "file", "checkpoint": str(file)}]
    suite = fake_runs.suite(recipes=recipes, workloads=[{"batch": 1, "prompt_tokens": 4, "new_tokens": 4}], rounds=1)
    store = Store(tmp_path / "results")

    results = {r.cell.recipe.name: r for r in fake_runs.run(suite, store)}
    built = {r.cell.recipe.name: r for r in store.all("*/artifacts/*")}

    assert {name: r.status for name, r in results.items()} == {"as-is": "ok", "copy": "ok", "file": "ok"}
    assert {name: r.artifact.format for name, r in built.items() if r.artifact} == {
        "as-is": "hf",
        "copy": "hf",
        "file": "gguf",
    }
    assert {r.cell.recipe.checkpoint for r in (results["copy"], built["copy"])} == {"theirs"}
    assert built["file"].artifact is not None
    assert built["file"].artifact.steps == ()
    assert built["file"].artifact.make_total_s == 0
    assert len({r.digest for r in built.values()}) == 3
    for path in (tmp_path / "results").rglob("r0.json"):
        assert str(tmp_path) not in path.read_text()
        recipe = json.loads(path.read_text())["cell"]["recipe"]
        assert ("checkpoint" in recipe) == (recipe["name"] != "as-is")  # records of steps are as they were
    assert not records.pending(plan.plan(suite, fetch=False), store)


@pytest.mark.usefixtures("cache")
def test_the_baseline_is_the_models_own(tmp_path: Path) -> None:
    """A checkpoint has no steps either, and is no baseline wherever it stands in the list."""
    recipes = [{"name": "theirs", "checkpoint": str(_copy(tmp_path))}, {"name": "gptq", "steps": [{"method": "gptq"}]}]
    planned = plan.plan(fake_runs.suite(recipes=[*recipes, "fp32"], tasks=["divergence"]), fetch=False)

    references = [i.task_input for i in planned.items if isinstance(i.task_input, Reference)]
    assert {reference.artifact.recipe.name for reference in references} == {"fp32"}


@pytest.mark.parametrize(
    ("recipe", "sentence"),
    [
        ({"checkpoint": "a/b", "steps": [{"method": "gptq"}]}, r"recipes\[0\]: a checkpoint is measured as it is"),
        ({"revision": "main"}, r"recipes\[0\]\.revision: means nothing without a checkpoint"),
        ({"name": "baseline", "checkpoint": "a/b"}, r"recipes\[0\]: the baseline is the suite's own model"),
        ({"checkpont": "a/b"}, r"recipes\[0\]\.checkpont: unknown key; did you mean 'checkpoint'"),
    ],
)
def test_a_recipe_is_steps_or_a_checkpoint(recipe: dict[str, object], sentence: str) -> None:
    """And a mistake in one is a sentence with its place."""
    with pytest.raises(UserError, match=sentence):
        fake_runs.suite(recipes=[{"name": "theirs", **recipe}], workloads=[{"batch": 1}])


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize(
    ("checkpoint", "sentence"),
    [
        ("{folder}/none", "recipe theirs: model folder .*/none does not exist; name a local folder or a Hub id"),
        ("{folder}/none.gguf", "recipe theirs: model file .*/none.gguf does not exist"),
        ("shape:small", "recipe theirs: shape:small has no weights of anybody's"),
    ],
)
def test_a_checkpoint_that_is_not_there_names_its_recipe(tmp_path: Path, checkpoint: str, sentence: str) -> None:
    """Before anything is run."""
    recipe = {"name": "theirs", "checkpoint": checkpoint.format(folder=tmp_path)}
    with pytest.raises(UserError, match=sentence):
        plan.plan(fake_runs.suite(recipes=["as-is", recipe], workloads=[{"batch": 1}]), fetch=False)


@pytest.mark.usefixtures("cache")
def test_a_path_may_be_beside_the_suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the model's, wherever the command is run."""
    file = Path(fake_runs.suite_file(tmp_path))
    file.write_text(file.read_text().replace("[as-is]", "[as-is, {name: t, checkpoint: theirs}]"))
    _copy(tmp_path)
    monkeypatch.chdir("/")

    assert config.load_suite(file).recipes[1].checkpoint == str(tmp_path / "theirs")


def _copy(tmp_path: Path, name: str = "theirs") -> Path:
    """The demo model with a setting of its own, so that it is another model by its content."""
    folder = tmp_path / name
    shutil.copytree("models/demo", folder, ignore=shutil.ignore_patterns("*.py", "*.csv", "*.md"))
    config_file = folder / "config.json"
    config_file.write_text(json.dumps({**json.loads(config_file.read_text()), "_name_or_path": name}))
    return folder


@pytest.mark.slow
@pytest.mark.usefixtures("cache")
def test_another_tokenizer_is_compared_by_bits_per_byte(tmp_path: Path) -> None:
    """Its perplexity is over other tokens: in no column, and the divergence says which token differs."""
    folder = _copy(tmp_path)
    _permute(folder / "tokenizer.json")
    tasks = [{"task": kind, "corpus": "stdlib", "context": 64, "tokens": 512} for kind in ("perplexity", "divergence")]
    suite = fake_runs.suite(recipes=["as-is", {"name": "other", "checkpoint": str(folder)}], tasks=tasks)
    planned = plan.plan(suite, fetch=False)

    results = fake_runs.run(suite, Store(tmp_path / "results"))
    (row,) = (row for row in build.build(results, planned.cells).rows if row.recipe == "other")
    text = render.render(build.build(results, planned.cells), "terminal", 200)
    perplexity, divergence = (row.tasks[title] for title in sorted(row.tasks, reverse=True))

    assert divergence.status == "unsupported"
    assert "its tokenizer is not the baseline's (token 300 is" in divergence.reason
    assert {"perplexity", "bits_per_byte"} & perplexity.figures.keys() == {"bits_per_byte"}
    assert perplexity.change.keys() == {"bits_per_byte_change_fraction"}
    assert "other-tokens" in perplexity.marks
    assert "bits/byte" in text
    assert "other: a checkpoint, theirs, not made here; another tokenizer: token 300 is" in text
    assert "bits/byte" not in render.render(build.build(r for r in results if r.cell.recipe.name == "as-is"), "md")


@pytest.mark.usefixtures("cache")
def test_requests_are_built_by_the_checkpoints_own_tokenizer_where_it_is_another(tmp_path: Path) -> None:
    """And are the model's own, whose digest stays, where it is the same."""
    same, other = _copy(tmp_path), _copy(tmp_path, "other")
    _permute(other / "tokenizer.json")
    recipes = ["fp32", *({"name": folder.name, "checkpoint": str(folder)} for folder in (same, other))]
    planned = plan.plan(fake_runs.suite(recipes=recipes, tasks=["lm_eval"]), fetch=False)
    digest = {i.cell.recipe.name: i.task_input.digest for i in planned.items if i.task_input}

    assert digest["theirs"] == digest["fp32"] != digest["other"]


@pytest.mark.usefixtures("cache")
def test_another_model_is_marked(tmp_path: Path) -> None:
    """By its shape; a fine-tune of the same shape is compared plainly."""
    file, copy = write(tmp_path / "tiny.gguf", llama__block_count=1, llama__embedding_length=256), _copy(tmp_path)
    recipes = ["as-is", {"name": "copy", "checkpoint": str(copy)}, {"name": "tiny", "checkpoint": str(file)}]
    suite = fake_runs.suite(recipes=recipes, workloads=[{"batch": 1, "prompt_tokens": 4, "new_tokens": 4}], rounds=1)

    marks = {r.cell.recipe.name: set(r.marks) for r in fake_runs.run(suite, Store(tmp_path / "results"))}
    (tiny,) = (a for a in plan.plan(suite, fetch=False).artifacts if a.recipe.name == "tiny")

    assert {name for name, its in marks.items() if "other-model" in its} == {"tiny"}
    assert tiny.other_model == "0.2294 million parameters in its layers, where the baseline has 3.932"


def _permute(file: Path) -> None:
    """Give two tokens each other's ids: the same text in the same pieces, under other numbers."""
    tokenizer = json.loads(file.read_text())
    vocabulary = tokenizer["model"]["vocab"]
    first, second = (next(text for text, n in vocabulary.items() if n == number) for number in (300, 301))
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    file.write_text(json.dumps(tokenizer))


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        (
            {"model.safetensors.index.json": {"weight_map": {"a": "model-00002.safetensors"}}},
            "model-00002.safetensors is",
        ),
        ({"adapter_config.json": {"base_model_name_or_path": "org/base"}}, "theirs has an adapter of org/base"),
        ({"config.json": {"model_type": "bert", "architectures": ["BertForMaskedLM"]}}, "theirs is an encoder"),
        ({"config.json": {"model_type": "vit", "architectures": ["ViTForImageClassification"]}}, "theirs is a vision"),
        ({"tokenizer.json": None, "tokenizer.model": None}, "theirs has no tokenizer; text needs tokenizer.json"),
        ({"tokenizer.json": "[]"}, "theirs/tokenizer.json is not a JSON object"),
    ],
)
def test_a_checkpoint_that_cannot_be_measured_is_refused(
    tmp_path: Path, files: dict[str, object], sentence: str
) -> None:
    """In one sentence that names the recipe, before anything is run; the command ends with code 2."""
    folder = _copy(tmp_path)
    for name, content in files.items():
        if content is None:
            (folder / name).unlink()
        else:
            (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
    suite = fake_runs.suite(recipes=["as-is", {"name": "x", "checkpoint": str(folder)}], tasks=["perplexity"])

    with pytest.raises(UserError, match=f"^recipe x: .*{sentence}"):
        plan.plan(suite, fetch=False)


@pytest.mark.usefixtures("cache")
def test_engines_ask_a_checkpoints_settings_as_a_recipes(tmp_path: Path) -> None:
    """What vLLM has no kernel for is known beforehand, of a checkpoint as of a step."""
    folder = _copy(tmp_path)
    config_file = folder / "config.json"
    settings = {"quant_method": "gptq", "bits": 3, "group_size": 128, "sym": True}
    config_file.write_text(json.dumps({**json.loads(config_file.read_text()), "quantization_config": settings}))
    engine = {"name": "vllm", "dtype": "bfloat16"}
    recipes = ["as-is", {"name": "theirs", "checkpoint": str(folder)}]
    planned = plan.plan(fake_runs.suite(recipes=recipes, engines=[engine], workloads=[{"batch": 1}]), fetch=False)

    assert {i.reason for i in planned.items if i.cell.recipe.name == "theirs"} == {
        "vLLM has no kernel for gptq of 3 bits on this device"
    }


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("engine", [{"name": "hf", "dtype": "float32"}, {"name": "vllm", "dtype": "bfloat16"}])
def test_awq_in_a_layout_that_an_engine_does_not_read_is_unsupported(tmp_path: Path, engine: dict[str, str]) -> None:
    """Of gemv, which llm-awq has too, gptqmodel has kernels on GPUs alone; vLLM takes it for gemm."""
    folder = _copy(tmp_path)
    config_file = folder / "config.json"
    settings = {"quant_method": "awq", "bits": 4, "group_size": 128, "version": "GEMV", "zero_point": True}
    config_file.write_text(json.dumps({**json.loads(config_file.read_text()), "quantization_config": settings}))
    recipes = ["as-is", {"name": "theirs", "checkpoint": str(folder)}]
    planned = plan.plan(fake_runs.suite(recipes=recipes, engines=[engine], workloads=[{"batch": 1}]), fetch=False)

    (reason,) = {i.reason for i in planned.items if i.cell.recipe.name == "theirs"}
    assert "layout" in reason
    assert "gemv" in reason
