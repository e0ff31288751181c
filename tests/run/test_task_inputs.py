"""What a task keeps of the baseline, through the pipeline, on the fake engine."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from bench.process import cache as folders
from bench.progress.progress import Progress
from bench.run import artifacts, plan, records, runner, task_inputs
from bench.run.planned import Reference
from bench.store import Store
from tests.conftest import Command
from tests.run import fake_runs

_TASK = {"task": "divergence", "context": 64, "tokens": 300}
_IMPOSSIBLE = {"name": "baseline", "steps": [{"method": "gptq", "bits": 4, "group_size": 512}]}

_suite = partial(fake_runs.suite, recipes=["fp32", "fp16"], tasks=[_TASK])


def _written(cache: Path) -> dict[str, int]:
    return {f.parent.name: f.stat().st_mtime_ns for f in cache.glob("references/*/reference.json")}


@pytest.mark.slow
def test_one_reference_serves_every_recipe_and_engine(cache: Path, tmp_path: Path) -> None:
    """It is made once; what equals the baseline is as far from it as keeping it cost."""
    store = Store(tmp_path / "results")
    first = fake_runs.run(_suite(), store)
    written = _written(cache)
    engines = [{"name": "fake"}, {"name": "fake", "label": "other", "itl_s": 0.5}]
    second = fake_runs.run(_suite(engines=engines), store)

    assert [r.status for r in (*first, *second)] == ["ok"] * 6
    assert len(written) == 1
    assert _written(cache) == written
    assert {r.facts["reference"]["digest"] for r in second} == set(written)
    for result in second:
        assert result.metrics["top1_agreement_fraction"] == 1
        assert 0 <= result.metrics["kl_mean"] <= 2 * result.metrics["kl_floor"] < 1e-7
    assert not [f for f in (tmp_path / "results").rglob("*.json") if str(cache) in f.read_text()]


def _harm(folder: Path, how: str) -> None:
    if how == "cut":
        with (folder / "logprobs.npy").open("r+b") as file:
            file.truncate(1000)
    elif how == "gone":
        (folder / "rows.npy").unlink()
    elif how == "about":
        (folder / "reference.json").write_text("{")
    else:
        folder.rename(folder.with_suffix(".part"))


@pytest.mark.slow
def test_a_damaged_reference_is_made_again(cache: Path, tmp_path: Path) -> None:
    """A file cut short or missing, an unreadable description, or a half-built folder is no reference."""
    planned = plan.plan(_suite(recipes=["fp32"]), fetch=False)
    (result,) = fake_runs.run(planned.suite, Store(tmp_path / "results"))
    (folder,) = (cache / "references").glob("*/")
    whole = (folder / "logprobs.npy").read_bytes()
    item = planned.items[0]
    artifact = artifacts.make(item.artifact.steps, planned.resolved, item.artifact.hardware, print)
    for how in ("cut", "gone", "about", "part"):
        _harm(folder, how)
        assert not folders.find("references", folder.name, "reference.json")
        assert isinstance(item.task_input, Reference)
        assert task_inputs.reference_folder(item.task_input, artifact, planned.suite, print) == folder
        assert (folder / "logprobs.npy").read_bytes() == whole
        assert not list((cache / "references").glob("*.part"))
    assert result.status == "ok"


@pytest.mark.usefixtures("cache")
def test_its_digest_follows_text_baseline_engine_and_task(tmp_path: Path) -> None:
    """And a cell's digest follows it; another recipe or the number of rounds does not change it."""
    text = tmp_path / "text.txt"
    text.write_text("a")
    task = {**_TASK, "corpus": f"path:{text}"}

    def planned(**more: object) -> tuple[str, set[str]]:
        items = plan.plan(_suite(**{"tasks": [task], **more}), fetch=False).items
        (reference,) = {i.task_input.digest for i in items if isinstance(i.task_input, Reference)}
        return reference, {i.digest for i in items}

    reference, cells = planned()
    assert planned(recipes=["fp32", "bf16"])[0] == planned(task_rounds=2)[0] == reference
    changes: list[dict[str, Any]] = [
        {"engines": [{"name": "fake", "itl_s": 0.5}]},
        {"recipes": ["fp16", "fp32"]},
        {"recipes": ["fp32", "fp16", {"name": "baseline", "steps": [{"method": "none", "dtype": "bfloat16"}]}]},
        {"tasks": [{**task, "context": 65}]},
        {"tasks": [{**task, "convention": "hf"}]},
    ]
    for change in changes:
        other, theirs = planned(**change)
        assert other != reference, change
        assert not theirs & cells, change
    text.write_text("b")
    assert planned()[0] != reference
    assert not planned()[1] & cells


@pytest.mark.usefixtures("cache")
def test_the_baseline_is_the_tables() -> None:
    """The recipe of that name, else one without steps, else the first in the original format."""
    gptq = {"name": "g", "steps": [{"method": "gptq", "bits": 4}]}
    named = {"name": "baseline", "steps": [{"method": "none", "dtype": "float16"}]}

    def chosen(*recipes: object) -> set[str]:
        items = plan.plan(_suite(recipes=list(recipes)), fetch=False).items
        return {i.task_input.artifact.recipe.name for i in items if isinstance(i.task_input, Reference)}

    assert chosen("as-is", gptq, named) == {"baseline"}
    assert chosen(gptq, "fp32", "as-is") == {"as-is"}
    assert chosen(gptq, "fp16", "fp32") == {"fp16"}
    assert chosen(gptq) == {"g"}


def test_a_baseline_that_fails_fails_the_cells_that_need_it(cache: Path, tmp_path: Path) -> None:
    """The reason is in each record, the engine that would do is not blamed, other tasks run."""
    engines = [{"name": "fake", "label": "dies", "fail": "exception"}, {"name": "fake", "label": "lives"}]
    tasks = [_TASK, {"task": "perplexity", "context": 64, "tokens": 300}]
    results = {
        (r.cell.engine.label, r.cell.measurement.partition("-")[0]): r
        for r in fake_runs.run(_suite(recipes=["fp32"], engines=engines, tasks=tasks), Store(tmp_path / "results"))
    }

    assert results["lives", "perplexity"].status == "ok"
    assert results["lives", "divergence"].status == "failed"
    assert results["lives", "divergence"].reason == (
        "its reference (fp32 on dies) could not be made: RuntimeError: the fake engine was asked to raise"
    )
    assert [f.name for f in (cache / "references").iterdir() if f.suffix != ".lock"] == []


@pytest.mark.usefixtures("cache")
def test_a_baseline_no_engine_can_score_is_unsupported() -> None:
    """Known beforehand, with the baseline's own reason."""
    planned = plan.plan(_suite(recipes=[_IMPOSSIBLE, "fp32"]), fetch=False)
    reason = next(i.reason for i in planned.items if i.cell.recipe.name == "fp32")

    assert reason.startswith("no engine of the suite can score the baseline (baseline): group_size 512")


def test_only_one_recipe_still_has_its_baseline(cache: Path, tmp_path: Path) -> None:
    """With --only on another recipe, the baseline's artifact is made for the reference, and not scored."""
    planned = plan.plan(_suite(), fetch=False, only="fp16")
    with Progress() as progress:
        runner.run(planned, Store(tmp_path / "results"), progress)
    (about,) = [json.loads(f.read_text()) for f in cache.glob("references/*/reference.json")]

    assert about["recipe"] == "fp32"
    assert [r.status for r in records.current(planned, Store(tmp_path / "results"))] == ["ok"]


@pytest.mark.engine
def test_real_engines_divergence_is_above_the_floor_only_when_quantized(
    command: Command, hf_python: Path, tmp_path: Path
) -> None:
    """HF Transformers on the demo model: the baseline is at the storage floor, NF4 far above it."""
    suite = tmp_path / "mine.yaml"
    suite.write_text(
        "{model: models/demo, recipes: [fp32,"
        " {name: nf4, steps: [{method: bnb, type: nf4, dtype: float32}]}],"
        " engines: [{name: hf, dtype: float32}], tasks: [{task: divergence, tokens: 2048}], devices: [cpu],"
        " settle_s: 0}"
    )
    done = command("bench", "run", str(suite), LLM_BENCH_PYTHON_HF=str(hf_python))

    assert done.returncode == 0, done.stderr
    metrics = {
        data["cell"]["recipe"]["name"]: data["metrics"]
        for f in (tmp_path / "results").rglob("quality/**/r0.json")
        for data in [json.loads(f.read_text())]
    }
    assert metrics["fp32"]["kl_mean"] <= 10 * metrics["fp32"]["kl_floor"] < 1e-7
    assert metrics["fp32"]["top1_agreement_fraction"] == 1.0
    assert metrics["nf4"]["kl_mean"] > 1e4 * metrics["fp32"]["kl_mean"]
    assert metrics["nf4"]["top1_agreement_fraction"] < 0.99
    assert metrics["nf4"]["kl_mean_low"] < metrics["nf4"]["kl_mean"] < metrics["nf4"]["kl_mean_high"]
