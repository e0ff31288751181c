from __future__ import annotations

import json
import shutil
import time
from functools import partial
from pathlib import Path

import pytest

from bench.contract.errors import UserError
from bench.publish import plans
from bench.run import plan, records
from bench.store import Store
from tests.formats.gguf_models import write
from tests.run import fake_runs

_STEPS = {"method": "gptq", "bits": 4, "group_size": 128}

_suite = partial(fake_runs.suite, recipes=["as-is"], workloads=[{"batch": 1}, {"batch": 2}])


@pytest.mark.usefixtures("cache")
def test_rounds_are_interleaved_in_a_seeded_order() -> None:
    """Every cell runs once before any runs twice; the order within a round differs, and is the seed's."""
    suite = _suite(workloads=[{"batch": n} for n in range(1, 9)])
    first, again = plan.plan(suite, fetch=False), plan.plan(suite, fetch=False)
    rounds = [[i.cell.measurement for i in first.items if i.round == n] for n in range(3)]

    assert [i.round for i in first.items] == [0] * 8 + [1] * 8 + [2] * 8
    assert [sorted(names) for names in rounds] == [sorted(rounds[0])] * 3
    assert len({tuple(names) for names in rounds}) == 3
    assert [i.digest for i in first.items] == [i.digest for i in again.items]


@pytest.mark.usefixtures("cache")
def test_tasks_have_rounds_of_their_own() -> None:
    """A score is taken once unless asked otherwise; workloads run `rounds` times."""
    task = {"task": "perplexity"}

    def rounds(**more: int) -> list[tuple[int, bool]]:
        items = plan.plan(_suite(workloads=[{"batch": 1}], tasks=[task], **more), fetch=False).items
        return sorted((i.round, i.cell.task is not None) for i in items)

    assert rounds() == [(0, False), (0, True), (1, False), (2, False)]
    assert rounds(rounds=1, task_rounds=2) == [(0, False), (0, True), (1, True)]
    with pytest.raises(UserError, match="task_rounds: must be at least 1, got 0"):
        _suite(task_rounds=0)


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize(
    ("steps", "reason"),
    [
        ([{**_STEPS, "group_size": 512}], "group_size 512 does not divide the 768 inputs of model.layers.0"),
        ([_STEPS, _STEPS], "gptq reads hf, and is given gptq: put it before the step that wrote that"),
    ],
)
def test_what_a_recipe_cannot_do_is_known_beforehand(steps: list[object], reason: str) -> None:
    """A group that does not fit the layers, or a step that cannot read what the one before writes."""
    planned = plan.plan(_suite(recipes=[{"name": "x", "steps": steps}]), fetch=False)

    assert reason in planned.items[0].reason


@pytest.mark.usefixtures("cache")
def test_a_digest_follows_what_a_number_depends_on(tmp_path: Path) -> None:
    """Engine options, workload, recipe and the text scored change it; the number of rounds does not."""
    text = tmp_path / "text.txt"
    text.write_text("a")
    task = {"task": "perplexity", "corpus": f"path:{text}"}

    def digests(**more: object) -> set[str]:
        return {i.digest for i in plan.plan(_suite(tasks=[task], **more), fetch=False).items}

    first = digests()
    assert digests(rounds=5) == first
    assert not digests(engines=[{"name": "fake", "itl_s": 0.5}]) & first
    assert not digests(recipes=["fp32"]) & first
    text.write_text("b")
    assert len(digests() & first) == 2  # the workloads' rounds are not concerned


@pytest.mark.usefixtures("cache")
def test_five_thousand_cells_are_planned_in_three_seconds(tmp_path: Path) -> None:
    """50 recipes x 100 workloads, 3 rounds each, and the look at what is recorded: CPU time below 3 s."""
    steps = [[{"method": "gptq", "damp_percent": n / 100}] for n in range(1, 51)]
    recipes = [{"name": f"r{n}", "steps": each} for n, each in enumerate(steps)]
    suite = _suite(recipes=recipes, workloads=[{"batch": n} for n in range(1, 101)])
    began = time.process_time()
    planned = plan.plan(suite, fetch=False)
    todo = records.pending(planned, Store(tmp_path))

    assert (len(planned.cells), len(todo)) == (5000, 15000)
    assert time.process_time() - began < 3


@pytest.mark.usefixtures("cache")
def test_an_engine_is_paired_with_what_it_loads(tmp_path: Path) -> None:
    """A recipe whose format another engine loads is no cell; the plan says once what was left out."""
    model = str(write(tmp_path / "m.gguf"))
    work = [{"batch": 1, "prompt_tokens": 8, "new_tokens": 8}]
    recipes = ["as-is", {"name": "again", "steps": []}]
    suite = _suite(model=model, recipes=recipes, engines=["hf", "fake"], workloads=work)
    planned = plan.plan(suite, fetch=False)

    assert [c.title for c in planned.cells] == [f"m.gguf/{r}/fake/offline-b1-p8-n8" for r in ("as-is", "again")]
    assert not [i.reason for i in planned.items if i.reason]
    lines = list(plans.lines(planned.items, planned.items, planned.unpaired))
    assert lines[2:] == [
        "not paired: hf does not load gguf (as-is, again)",
        "2 cells, 6 rounds: 6 to run, 0 cells unsupported",
    ]
    assert plan.plan(suite, fetch=False, only="again").unpaired == planned.unpaired[1:]
    assert plan.plan(suite, fetch=False, engine="fake").unpaired == ()


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize(
    ("engine", "load", "reason"),
    [
        (
            "tensorrt_llm",
            {"batch": 1},
            "engine tensorrt_llm cannot fill its KV cache before the clock starts in process",
        ),
        ("vllm", {"batch": 1}, ""),
        ("vllm", {"kind": "closed"}, "vLLM's server keeps a context by prefix caching alone: give the engine"),
        ("hf", {"kind": "closed"}, "engine hf cannot fill its KV cache before the clock starts behind its server"),
        ({"name": "hf", "cache": "static"}, {"batch": 1}, "a static cache cannot be filled beforehand"),
        ("hf", {"batch": 1, "depth_tokens": 1000}, "1000 + 128 + 64 tokens exceed the model's context of 1024"),
        (
            {"name": "openai", "url": "http://localhost:1", "model": "m"},
            {"kind": "closed"},
            "depth_tokens needs prompts of token ids: set ids: true",
        ),
        ("hf", {"batch": 1}, ""),
    ],
)
def test_where_no_depth_can_be_had_is_known_beforehand(
    engine: str | dict[str, str], load: dict[str, object], reason: str
) -> None:
    """With what to measure instead, or to set."""
    suite = _suite(engines=[engine], workloads=[{"depth_tokens": 100, **load}], rounds=1)
    (item,) = plan.plan(suite, fetch=False).items

    assert reason in item.reason
    assert bool(item.reason) == bool(reason)


@pytest.mark.usefixtures("cache")
def test_a_format_no_engine_loads_is_a_cell_with_its_reason(tmp_path: Path) -> None:
    """Left out is only what another engine of the suite does."""
    planned = plan.plan(_suite(model=str(write(tmp_path / "m.gguf")), engines=["hf"]), fetch=False)

    assert {i.reason for i in planned.items} == {"engine hf does not load gguf"}
    assert planned.unpaired == ()


@pytest.mark.usefixtures("cache")
def test_a_recipe_that_cannot_be_made_is_paired_by_what_it_would_be() -> None:
    """GPTQ does not read GPTQ; the reason is told for the engines that load it."""
    twice = {"name": "twice", "steps": [{"method": "gptq"}, {"method": "gptq"}]}
    planned = plan.plan(_suite(recipes=[twice], engines=["hf", "fake"]), fetch=False)

    assert {i.cell.engine.name for i in planned.items} == {"hf", "fake"}
    assert {i.reason for i in planned.items} == {
        "gptq reads hf, and is given gptq: put it before the step that wrote that"
    }


@pytest.mark.usefixtures("cache")
def test_a_recipe_of_a_gguf_file_is_planned_by_what_the_file_says(tmp_path: Path) -> None:
    """It is dequantized first; its context and its layers' widths are known before."""
    suite = _suite(model=str(write(tmp_path / "m.gguf")), recipes=["gptq-w4g128"], engines=["hf"])
    planned = plan.plan(suite, fetch=False)

    assert {i.reason for i in planned.items} == {
        "calibration samples of 512 tokens are longer than the model's context of 128"
    }


@pytest.mark.usefixtures("cache")
def test_the_context_of_a_gguf_file_is_known(tmp_path: Path) -> None:
    """Its metadata bounds prompt and answer."""
    planned = plan.plan(_suite(model=str(write(tmp_path / "m.gguf"))), fetch=False)

    assert {i.reason for i in planned.items} == {
        "128 + 64 tokens exceed the model's context of 128: lower them, or take another model"
    }


@pytest.mark.usefixtures("cache")
def test_files_are_read_as_often_for_many_cells_as_for_one(tmp_path: Path) -> None:
    """A trace and a text count by their content, which recipes and engines share."""
    trace, text = tmp_path / "trace.csv", tmp_path / "text.txt"
    for file in (trace, text):
        file.write_bytes(b"x" * (1 << 22))
    load, task = {"kind": "trace", "path": str(trace)}, {"task": "perplexity", "corpus": f"path:{text}"}

    def bytes_read(engines: int) -> int:
        labelled = [{"name": "fake", "label": f"fake-{i}"} for i in range(engines)]
        suite = _suite(recipes=["as-is", "fp32"], engines=labelled, workloads=[load], tasks=[task])
        before = int(Path("/proc/self/io").read_text().split()[1])
        plan.plan(suite, fetch=False)
        return int(Path("/proc/self/io").read_text().split()[1]) - before

    bytes_read(1)  # loads what the first plan of a process does

    assert bytes_read(8) - bytes_read(1) < 1 << 20


@pytest.mark.usefixtures("cache")
def test_a_window_that_an_engine_leaves_out_bounds_the_texts(tmp_path: Path) -> None:
    """llama.cpp computes Mistral's layers without one: the same on shorter texts, another model on longer ones."""
    folder = tmp_path / "windowed"
    shutil.copytree("models/demo", folder)
    settings = {"model_type": "mistral", "architectures": ["MistralForCausalLM"], "sliding_window": 64}
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **settings}))
    loads = [{"batch": 1, "prompt_tokens": 32, "new_tokens": 32}, {"batch": 1, "prompt_tokens": 64, "new_tokens": 32}]
    tasks = [{"task": "perplexity", "context": 128}]
    suite = _suite(
        model=str(folder), recipes=["gguf-f16", "fp32"], engines=["llamacpp", "hf"], workloads=loads, tasks=tasks
    )

    items = [item for item in plan.plan(suite, fetch=False).items if item.round == 0]
    reasons = {(item.cell.engine.title, item.cell.measurement): item.reason for item in items}

    assert reasons.pop(("llamacpp", "offline-b1-p64-n32")) == (
        "llamacpp leaves out the sliding window of mistral (64 tokens), which texts of 96 tokens exceed: "
        "use shorter ones, or another engine"
    )
    assert "texts of 128 tokens" in reasons.pop(("llamacpp", next(i.cell.measurement for i in items if i.cell.task)))
    assert set(reasons.values()) == {""}


@pytest.mark.usefixtures("cache")
def test_what_an_engine_cannot_run_of_an_architecture_is_known_beforehand(tmp_path: Path) -> None:
    """By the model's config.json, before its artifact is made: experts that are packed one by one."""
    folder = tmp_path / "experts"
    shutil.copytree("models/demo", folder)
    settings = {"model_type": "mixtral", "architectures": ["MixtralForCausalLM"], "num_local_experts": 4}
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **settings}))
    suite = _suite(model=str(folder), recipes=["fp32", {"name": "gptq", "steps": [_STEPS]}], engines=["hf"])

    reasons = {item.cell.recipe.name: item.reason for item in plan.plan(suite, fetch=False).items}

    assert reasons["fp32"] == ""
    assert reasons["gptq"].startswith("GPTQ packs each expert by itself")
