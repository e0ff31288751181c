"""lm-eval tasks through the engines: equal to `--model hf` of lm-eval; what goes wrong is a sentence."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.contract import phase
from bench.contract.record import Result
from bench.contract.spec import Model
from bench.envs import environment
from bench.machine import hardware as machine
from bench.models import resolve
from bench.progress.progress import Progress
from bench.run import artifacts, plan, records, runner
from bench.store import Store
from bench.suite import config
from eval import stdlib_items
from tests.conftest import ROOT, json_of
from tests.quantize import in_environment

pytestmark = pytest.mark.engine
_LIMIT, _DEMO = 80, str(ROOT / "models/demo")
_SHIPPED = ("stdlib_next_line", "stdlib_argument", "stdlib_docstring")
_FILES = ("arc_easy_local", "arc_challenge_local", "piqa_local", "hellaswag_local", "lambada_openai_local")
_FREE = ("rolled", "written")  # a text's whole likelihood, and a text made until a stop
_READ = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
metadata: {{version: 1}}
"""
_ROLLED = """
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: text
metric_list: [{metric: word_perplexity}, {metric: bits_per_byte}]
"""
_WRITTEN = """
output_type: generate_until
doc_to_text: start
doc_to_target: rest
generation_kwargs: {until: ["\\n\\n"], max_gen_toks: 24, do_sample: false}
metric_list: [{metric: exact_match}]
"""
_CHOSEN = """
task: {name}
custom_dataset: !function eval.local_items.rows
dataset_kwargs: {{file: {file}}}
output_type: multiple_choice
test_split: test
doc_to_text: query
doc_to_choice: choices
doc_to_target: gold
target_delimiter: ""
metadata: {{version: 1}}
"""


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of tasks that are not multiple choice, and of tasks that are broken."""
    folder = tmp_path_factory.mktemp("tasks")
    items = _items()
    longest = max(items, key=lambda item: len(item["context"]))["context"]
    texts = [{"text": item["context"]} for item in items[:5]] + [{"text": 4 * longest}]
    starts = [{"start": item["context"], "rest": item["choices"][item["label"]]} for item in items[:6]]
    for name in _FILES:
        (folder / f"{name.removesuffix('_local')}.jsonl").write_text("".join(map(_line(name), items)))
    fine = {"query": "def f(", "choices": ["x", "y"], "gold": 0}
    for name, rows in {"rolled": texts, "written": starts, "long": [{**fine, "choices": ["x", "x y " * 900]}]}.items():
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    (folder / "broken.jsonl").write_text(json.dumps(fine) + "\n{\n")
    for name, how in {"rolled": _ROLLED, "written": _WRITTEN}.items():
        read = _READ.format(name=name, file=folder / f"{name}.jsonl")
        (folder / f"{name}.yaml").write_text(read + how)
    for name in ("broken", "long"):
        (folder / f"{name}.yaml").write_text(_CHOSEN.format(name=name, file=f"{name}.jsonl"))
    return folder


def _items() -> list[dict[str, Any]]:
    return stdlib_items.next_lines()[:30]


def _line(task: str) -> Callable[[dict[str, Any]], str]:
    """A line of the file of `task` from an item of the standard library."""

    def line(item: dict[str, Any]) -> str:
        if task == "lambada_openai_local":
            context, _, last = item["context"].rstrip().rpartition(" ")
            return json.dumps({"context": context, "continuation": last}) + "\n"
        query = "Question: " + item["context"] if task != "hellaswag_local" else item["context"] + "the end"
        return json.dumps({"query": query, "choices": item["choices"], "gold": item["label"]}) + "\n"

    return line


def _run(
    store: Store, asked: list[dict[str, Any]], recipes: list[str], engines: list[Any], model: str = _DEMO
) -> dict[Any, Result]:
    """Records by (recipe, lm-eval task), in the user's own cache, where environments are."""
    suite = config.suite(
        {
            "name": "s",
            "model": model,
            "recipes": recipes,
            "engines": engines,
            "tasks": asked,
            "devices": ["cpu"],
            "settle_s": 0,
        }
    )
    planned = plan.plan(suite, fetch=False)
    with Progress() as progress:
        runner.run(planned, store, progress, retry_failed=True)
    results = records.current(planned, store)
    return {
        (r.cell.recipe.name, (r.cell.task.options.get("tasks") or r.cell.task.kind)): r for r in results if r.cell.task
    }


@pytest.fixture(scope="module")
def ran(tasks: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, dict[Any, Result]]:
    """The shipped tasks and two free ones on HF in float32 and on llama.cpp."""
    store = Store(tmp_path_factory.mktemp("results"))
    request = [{"task": "lm_eval", "tasks": name, "limit": _LIMIT} for name in _SHIPPED]
    request += [{"task": "lm_eval", "tasks": name, "data": str(tasks), "limit": _LIMIT} for name in _FILES]
    request += [{"task": "lm_eval", "tasks": name, "include_path": str(tasks), "limit": _LIMIT} for name in _FREE]
    return store, _run(store, request, ["fp32", "gguf-f16"], ["hf", "llamacpp"])


def _made(recipe: str) -> Path:
    """The folder of a recipe's artifact, which is in the cache once `ran` was made."""
    hardware, resolved = machine.detect("cpu"), resolve.resolve(Model(_DEMO), fetch=False)
    steps = artifacts.steps_for(config.recipe_named(recipe), hardware, resolved.format)
    return artifacts.make(steps, resolved, hardware, print).folder


@pytest.fixture(scope="module")
def theirs(ran: Any, tasks: Path, hf_python: Path) -> Any:
    """What `--model hf` says of the same artifact."""
    del ran  # its artifact is in the cache
    python = environment.ensure("lm_eval", print).python
    site = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    words = [site, str(_made("fp32")), "1023", str(tasks), str(tasks), str(_LIMIT), *_SHIPPED, *_FILES, *_FREE]
    variables = {"TOKENIZERS_PARALLELISM": "false"}
    return json_of(hf_python, "eval/harness_checks.py", *words, timeout=900, variables=variables)


@pytest.mark.parametrize("task", [*_SHIPPED, *_FILES])
@pytest.mark.needs("hf", "llamacpp", "lm_eval")
def test_hf_equals_lm_evals_own_item_by_item(ran: Any, theirs: Any, task: str) -> None:
    """Every item's acc and acc_norm exactly, every choice's log-probability to 1e-4 nats, every score."""
    store, records = ran
    record = records["fp32", task]
    items = store.items(store.path(record))

    assert record.status == "ok", record.reason
    metrics = set(theirs[task]["items"][0]) - {"replies"}
    assert metrics == {"acc", "perplexity" if task == "lambada_openai_local" else "acc_norm"}
    assert len(items) == len(theirs[task]["items"]) == (_LIMIT if task in _SHIPPED else len(_items()))
    for mine, other in zip(items, theirs[task]["items"], strict=True):
        assert mine["acc"] == other["acc"]
        assert mine.get("acc_norm") == other.get("acc_norm")
        for (logprob, greedy), (expected, expected_greedy) in zip(mine["replies"], other["replies"], strict=True):
            assert logprob == pytest.approx(expected, abs=1e-4, rel=1e-5)
            assert greedy == expected_greedy
    for metric in metrics:
        assert record.metrics[metric] == pytest.approx(theirs[task]["scores"][metric], rel=1e-4)


@pytest.mark.needs("hf", "llamacpp", "lm_eval")
def test_whole_texts_and_written_texts_equal_lm_evals_own(ran: Any, theirs: Any) -> None:
    """Rolling windows over more than one context, and greedy texts up to a stop."""
    store, records = ran
    rolled, written = records["fp32", "rolled"], records["fp32", "written"]
    mine = [item["replies"] for item in store.items(store.path(written))]

    assert rolled.metrics["word_perplexity"] == pytest.approx(theirs["rolled"]["scores"]["word_perplexity"], rel=1e-4)
    assert rolled.metrics["bits_per_byte"] == pytest.approx(theirs["rolled"]["scores"]["bits_per_byte"], rel=1e-4)
    assert [reply[0] if isinstance(reply, list) else reply for reply in mine] == [
        item["replies"][0] for item in theirs["written"]["items"]
    ]
    assert not rolled.facts["item_scores"]


@pytest.mark.needs("hf", "llamacpp", "lm_eval")
def test_llama_cpp_is_asked_the_same(ran: Any) -> None:
    """The same token ids; weights that f16 holds exactly: at most one of 80 items comes out otherwise."""
    _, records = ran
    for task in _SHIPPED:
        one, other = records["fp32", task], records["gguf-f16", task]
        differ = sum(a != b for a, b in zip(one.facts["item_scores"], other.facts["item_scores"], strict=True))

        assert other.status == "ok", other.reason
        assert one.facts["tokens_sha256"] == other.facts["tokens_sha256"]
        assert differ <= 1
    assert records["gguf-f16", "written"].status == "ok"


@pytest.mark.needs("hf", "llamacpp", "lm_eval")
def test_a_gguf_file_alone_is_asked_the_same(ran: Any, tmp_path: Path) -> None:
    """Its tokenizer is got out of the file, where there is nothing beside it."""
    _, records = ran
    alone = tmp_path / "alone.gguf"
    alone.write_bytes((_made("gguf-f16") / "model.gguf").read_bytes())
    request = [{"task": "lm_eval", "tasks": "stdlib_argument", "limit": _LIMIT}]
    (record,) = _run(Store(tmp_path / "results"), request, ["as-is"], ["llamacpp"], str(alone)).values()

    assert record.status == "ok", record.reason
    assert record.facts["tokens_sha256"] == records["gguf-f16", "stdlib_argument"].facts["tokens_sha256"]
    assert record.facts["item_scores"] == records["gguf-f16", "stdlib_argument"].facts["item_scores"]


@pytest.mark.needs("hf", "lm_eval")
def test_a_spread_takes_its_items_from_all_of_a_task(tasks: Path, tmp_path: Path) -> None:
    """Evenly by number, the same texts that the whole task has there; a limit beyond the task is all of it."""
    store, here = Store(tmp_path), {"task": "lm_eval", "include_path": str(tasks), "data": str(tasks)}
    kinds: list[dict[str, Any]] = [{}, {"limit": 4, "spread": True}, {"limit": 99, "spread": True}]
    records = [
        _run(store, [{**here, "tasks": "written", **kind}], ["fp32"], ["hf"])["fp32", "written"] for kind in kinds
    ]
    texts = [{row["item"]: row["sha256"] for row in store.items(store.path(record))} for record in records]

    assert texts[1] == {item: texts[0][item] for item in (0, 1, 3, 4)}
    assert texts[2] == texts[0]
    assert len(texts[0]) == 6
    assert len({record.digest for record in records}) == 3


@pytest.mark.needs("hf", "lm_eval", "vllm")
def test_vllm_scores_what_it_serves(tasks: Path, tmp_path: Path) -> None:
    """Choices, perplexity and full-vocabulary divergence by vLLM's own kernels, beside HF's."""
    del tasks
    store, short = Store(tmp_path), {"context": 128, "tokens": 1024}
    request = [
        {"task": "lm_eval", "tasks": "stdlib_argument", "limit": 40},
        {"task": "perplexity", **short},
        {"task": "divergence", **short},
    ]
    hf, vllm = (_run(store, request, ["fp32"], engines) for engines in (["hf"], ["vllm"]))

    for key, record in vllm.items():
        assert record.status == "ok", record.reason
        assert record.cell.engine.name == "vllm"
        for metric in ("accuracy_fraction", "perplexity"):
            if metric in record.metrics:
                assert record.metrics[metric] == pytest.approx(hf[key].metrics[metric], rel=1e-4)
    assert vllm["fp32", "divergence"].metrics["kl_mean"] < 1e-6


@pytest.mark.needs("hf", "lm_eval")
def test_what_cannot_be_asked_fails_its_cell_and_no_other(tasks: Path, tmp_path: Path) -> None:
    """No such task, a broken line, a choice longer than the context, an engine that cannot score."""
    here = {"task": "lm_eval", "include_path": str(tasks), "data": str(tasks)}
    request: list[dict[str, Any]] = [
        {"task": "lm_eval", "tasks": "stdlib_next_lime"},
        {**here, "tasks": "broken"},
        {**here, "tasks": "long"},
        {"task": "lm_eval", "tasks": "stdlib_argument", "limit": 8},
    ]
    results = _run(Store(tmp_path), request, ["fp32"], ["hf"])
    remote = _run(
        Store(tmp_path), request[-1:], ["fp32"], [{"name": "openai", "url": "http://127.0.0.1:9", "model": "m"}]
    )

    reasons = {task: record.reason for (_, task), record in results.items() if record.status == "failed"}
    assert "did you mean 'stdlib_next_line'" in reasons["stdlib_next_lime"]
    assert "broken.jsonl, line 2 is not JSON" in reasons["broken"]
    assert "a choice of " in reasons["long"]
    assert results["fp32", "stdlib_argument"].status == "ok"
    (other,) = remote.values()
    assert (other.status, other.reason) == ("unsupported", "engine openai has no score mode")
    assert not [r for r in reasons.values() if "Traceback" in r or str(sys.prefix) in r]


_BUILD = """
import sys
from pathlib import Path
from eval.tasks import lm_eval
lm_eval.build_requests(lm_eval.Options(limit=4), Path(sys.argv[1]), 1024, Path(sys.argv[2]))
"""


@pytest.mark.engine
@pytest.mark.needs("lm_eval")
def test_requests_that_are_built_are_told_to_the_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By lm-eval's own bars: another release that has them elsewhere fails here."""
    monkeypatch.setenv(phase.VARIABLE, str(tmp_path / "phases"))
    in_environment.run("lm_eval", tmp_path, _BUILD, str(ROOT / "models" / "demo"), str(tmp_path))

    lines = [line.partition("\t")[0] for line in (tmp_path / "phases").read_text().splitlines()]
    assert lines[:2] == ["loading the task", "0 of 4 items"]
    assert "4 of 4 items" in lines
    assert lines[-1] == "16 of 16 choices tokenized"
