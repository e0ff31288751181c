"""A model without tokenizer.json: planned at once, refused in one sentence where nothing helps, made once by a run."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from bench.contract.errors import UserError
from bench.contract.spec import Model
from bench.models import resolve
from bench.run import plan, tokenizer
from bench.run.tokenizer import Need
from bench.store import Store
from tests.conftest import Command
from tests.formats import tokenizer_folders
from tests.run import fake_runs

TEXT, TIMED = Need(text=True, uses=True), Need(text=False, uses=False)
PERPLEXITY = {"task": "perplexity", "corpus": "stdlib", "context": 128, "tokens": 512}
OFFLINE = {"batch": 1, "prompt_tokens": 4, "new_tokens": 4, "repeats": 2}
_SUITE = """
model: {model}
recipes: [fp32]
engines: [fake]
tasks: [{{task: perplexity, corpus: stdlib, context: 128, tokens: 512}}]
devices: [cpu]
settle_s: 0
"""


def _suite(folder: Path) -> str:
    file = folder / "mine.yaml"
    file.write_text(_SUITE.format(model=folder / "m"))
    return str(file)


def test_a_plan_says_what_will_be_made_and_builds_nothing(tmp_path: Path, cache: Path, command: Command) -> None:
    """The line names the files and the environment, which is not there; as JSON it is a key."""
    tokenizer_folders.of_pieces(tmp_path / "m", {"tokenizer_class": "LlamaTokenizer"})
    done = command("bench", "plan", _suite(tmp_path))
    as_json = command("bench", "plan", _suite(tmp_path), "--json")

    sentence = "m has no tokenizer.json: a run makes it of tokenizer.model in environment hf (built first, or by: "
    assert done.returncode == 0
    assert done.stdout.splitlines()[-2].startswith(sentence)
    assert json.loads(as_json.stdout)["preparation"].startswith(sentence)
    assert not (cache / "envs").exists()
    assert not (cache / "tokenizers").exists()


@pytest.mark.parametrize("word", ["plan", "run"])
def test_a_model_whose_text_nothing_can_cut_is_refused_beforehand(
    tmp_path: Path, cache: Path, command: Command, word: str
) -> None:
    """A broken tokenizer.model: exit code 2, one sentence, nothing built."""
    folder = tokenizer_folders.of_pieces(tmp_path / "m")
    (folder / "tokenizer.model").write_bytes((folder / "tokenizer.model").read_bytes()[:9000])
    done = command("bench", word, _suite(tmp_path))

    assert done.returncode == 2
    assert "m/tokenizer.model is no whole SentencePiece model (it is cut short): fetch it again" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (cache / "envs").exists()
    assert not (tmp_path / "results").exists()


@pytest.mark.usefixtures("cache")
def test_what_reads_no_text_needs_no_tokenizer(tmp_path: Path) -> None:
    """Offline loads of such a model are planned as before, under the digests of before."""
    folder = tokenizer_folders.model(tmp_path / "m")
    resolved = resolve.resolve(Model(str(folder)), fetch=False)
    suite = fake_runs.suite(model=str(folder), workloads=[OFFLINE])

    assert tokenizer.with_tokenizer(resolved, TIMED, fetch=False) == resolved
    assert plan.plan(suite, fetch=False).resolved == resolved
    with pytest.raises(UserError, match=r"m has no tokenizer; text needs tokenizer\.json"):
        plan.plan(fake_runs.suite(model=str(folder), workloads=[OFFLINE], tasks=[PERPLEXITY]), fetch=False)
    tokenizer_folders.of_pieces(folder)
    assert plan.plan(suite, fetch=False).resolved.identity == resolve.resolve(Model(str(folder)), fetch=False).identity


def test_which_suites_read_text() -> None:
    """A task, a method with a calibration text, a server that loads the model; an endpoint may have its own."""
    online = {"kind": "closed", "concurrency": 1, "requests": 2, "prompt_tokens": 4, "new_tokens": 4}
    server = {"name": "openai", "url": "http://127.0.0.1:9"}

    assert tokenizer.of_suite(fake_runs.suite(workloads=[OFFLINE])) == TIMED
    assert tokenizer.of_suite(fake_runs.suite(tasks=[PERPLEXITY])) == TEXT
    assert tokenizer.of_suite(fake_runs.suite(recipes=["gptq-w4g128"], engines=["hf"], workloads=[OFFLINE])) == TEXT
    assert tokenizer.of_suite(fake_runs.suite(recipes=["nf4"], engines=["hf"], workloads=[OFFLINE])) == TIMED
    assert tokenizer.of_suite(fake_runs.suite(engines=["hf"], workloads=[online])) == TEXT
    assert tokenizer.of_suite(fake_runs.suite(engines=[server], workloads=[online])) == Need(text=False, uses=True)


@pytest.mark.usefixtures("cache")
def test_an_interpreter_without_the_packages_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user's own Python for the environment, in which SentencePiece is missing."""
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    monkeypatch.setenv("LLM_BENCH_PYTHON_HF", str(python))
    resolved = resolve.resolve(Model(str(tokenizer_folders.of_pieces(tmp_path / "m"))), fetch=False)

    with pytest.raises(UserError, match=r"environment hf, which makes it of tokenizer\.model, lacks .*sentencepiece"):
        tokenizer.with_tokenizer(resolved, TEXT, fetch=False)


@pytest.mark.usefixtures("cache")
def test_ids_of_older_files_beyond_the_embedding_are_told_too(tmp_path: Path) -> None:
    """As those of a tokenizer.json are, when the suite is planned."""
    folder = tokenizer_folders.of_merges(tmp_path / "m")
    vocabulary = json.loads((folder / "vocab.json").read_text())
    (folder / "vocab.json").write_text(json.dumps({**vocabulary, "late": 5000}))

    with pytest.raises(UserError, match=r"m: its tokenizer gives ids up to 5000 \('late'\)"):
        resolve.resolve(Model(str(folder)), fetch=False)


@pytest.mark.engine
@pytest.mark.slow
def test_a_run_makes_it_once_and_scores_as_with_the_published_file(
    tmp_path: Path, cache: Path, hf_python: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The perplexity is the demo model's to the last digit; artifacts have the file, and the model's folder has not."""
    monkeypatch.setenv("LLM_BENCH_PYTHON_HF", str(hf_python))
    folder = tokenizer_folders.of_pieces(tmp_path / "m", {"tokenizer_class": "LlamaTokenizer"})
    before = sorted(file.name for file in folder.iterdir())
    tasks = {"engines": [{"name": "hf", "dtype": "float32"}], "tasks": [PERPLEXITY]}
    scored, published = (
        fake_runs.run(fake_runs.suite(**named, **tasks), Store(tmp_path / f"results{number}"), fetch=True)[0]
        for number, named in enumerate(({"model": str(folder)}, {}))
    )

    assert scored.reason == published.reason == ""
    assert scored.metrics["perplexity"] == published.metrics["perplexity"]
    assert scored.facts["window_nll"] == published.facts["window_nll"]
    assert sorted(file.name for file in folder.iterdir()) == before
    (made,) = (cache / "tokenizers").glob("*/tokenizer.json")
    artifacts = list((cache / "artifacts").glob("*/model/tokenizer.json"))
    assert {file.read_bytes() for file in artifacts} == {made.read_bytes()}
    assert len(artifacts) == 2
    planned = plan.plan(fake_runs.suite(model=str(folder), **tasks), fetch=False)
    assert planned.resolved.preparation == ""
    assert planned.resolved.local_folder.name == "m"
