"""A folder of data in place of the Hub's data sets: what it changes, and what it leaves."""

from __future__ import annotations

import gzip
import os
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.contract import wire
from bench.contract.errors import UserError
from bench.contract.spec import Step, Suite, Task
from bench.run import artifacts
from bench.suite import config, local_data
from tests.conftest import ROOT

_ROWS = "\n = Title = \n \n One , two . \n Three . \n"
_ITEM = '{"query": "q", "choices": ["a", "b"], "gold": 0}\n'
_SUITE: dict[str, Any] = {
    "name": "s",
    "model": "m",
    "engines": ["fake"],
    "recipes": [
        "fp32",
        {"name": "g", "steps": [{"method": "gptq", "calibration": "wikitext2"}]},
        {"name": "d", "steps": [{"method": "distill", "corpus": "wikitext2"}]},
        "gptq-w4g128",
    ],
    "tasks": [
        {"task": "perplexity", "corpus": "wikitext2", "context": 16},
        {"task": "divergence", "corpus": "stdlib", "context": 16},
        {"task": "lm_eval", "tasks": "arc_easy", "limit": 3},
        {"task": "lm_eval", "tasks": "piqa", "data": "mine"},
        {"task": "lm_eval", "tasks": "stdlib_argument"},
    ],
}


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with all that the suite needs, and a cache of its own."""
    monkeypatch.setenv("LLM_BENCH_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "data"
    for name, text in {
        "wikitext-2/wiki.test.raw": _ROWS,
        "wikitext-2/wiki.valid.raw": "\n other \n",
        "tasks/arc_easy.jsonl": _ITEM,
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def _text(option: Any) -> str:
    return Path(str(option).removeprefix("path:")).read_text()


def test_one_key_takes_every_data_set_from_a_folder(data: Path) -> None:
    """Corpora of tasks, calibration and training text, lm-eval tasks; titles and all else are as without it."""
    without, suite = config.suite(_SUITE), config.suite({**_SUITE, "data": str(data)})

    assert [task.title for task in suite.tasks] == [task.title for task in without.tasks]
    perplexity, *rest = suite.tasks
    assert _text(perplexity.options["corpus"]) == local_data.wikitext2(_ROWS)
    assert rest[0] == without.tasks[1]
    arc = {"tasks": "arc_easy_local", "data": f"path:{data}/tasks/arc_easy.jsonl"}
    assert rest[1].options == {**without.tasks[2].options, **arc}
    assert rest[2:] == list(without.tasks[3:])
    plain, gptq, distill, stdlib = suite.recipes
    assert (plain, stdlib) == (without.recipes[0], without.recipes[3])
    for recipe, name in ((gptq, "calibration"), (distill, "corpus")):
        assert _text(recipe.steps[0].options[name]) == "\n\n other \n"


@pytest.mark.parametrize("name", ["smollm2", "gemma3"])
def test_suites_of_real_models_need_no_data_set_of_the_hub(data: Path, name: str) -> None:
    """With a folder every task and every recipe reads a file; what is fitted to is not what is scored."""
    for other in ("arc_challenge", "piqa", "lambada_openai"):
        (data / f"tasks/{other}.jsonl").write_text(_ITEM)
    (data / "tasks/hellaswag.jsonl.gz").write_bytes(gzip.compress(_ITEM.encode()))
    suite = config.load_suite(ROOT / f"configs/{name}.yaml", [f"data={data}"])
    steps = [step.options for recipe in suite.recipes for step in recipe.steps]
    fitted = {o[k] for o in steps for k in ("calibration", "corpus") if str(o.get(k, "")).startswith("path:")}
    scored = {task.options["corpus"] for task in suite.tasks if task.kind != "lm_eval"}

    assert len(fitted) == len(scored) == 1
    assert fitted.isdisjoint(scored)
    for task in suite.tasks:
        place = task.options["data" if task.kind == "lm_eval" else "corpus"]
        assert Path(str(place).removeprefix("path:")).is_file()
    assert not any("wikitext2" in o.values() for o in [*steps, *(task.options for task in suite.tasks)])


def test_make_real_runs_them_from_the_package_index() -> None:
    """With the Hub's data sets, which `--set data=` leaves as they are, or a folder's where one is given."""
    for words, key in (([], "data="), (["DATA=/my data"], "data=/my data")):
        lines = subprocess.run(
            ["make", "-n", "real", *words], cwd=ROOT, check=True, capture_output=True, text=True
        ).stdout.splitlines()
        runs = [shlex.split(line) for line in lines if " bench run " in line]
        assert [run[4] for run in runs] == ["configs/smollm2.yaml", "configs/gemma3.yaml"]
        for run in runs:
            assert run[6].partition("=")[2].startswith("pypi:")
            assert run[7:] == ["--set", key]
            config.load_suite(ROOT / run[4], ["data="])


def test_the_training_split_is_fitted_to_where_there_is_one(data: Path) -> None:
    """As with the Hub's data set; else the validation split, which is not scored either."""
    (data / "wikitext-2/wiki.train.raw").write_text(" longer \n")

    suite = config.suite({**_SUITE, "data": str(data)})

    assert _text(suite.recipes[1].steps[0].options["calibration"]) == " longer \n"


def test_a_file_gives_the_text_of_the_hubs_rows() -> None:
    """A row is a line with its end, or nothing where it is blank; rows are joined by blank lines."""
    rows = ["", " = Title = \n", "", " One , two . \n", " Three . \n"]

    assert local_data.wikitext2(_ROWS) == "\n\n".join(rows)


def test_a_digest_counts_contents_and_not_places(data: Path, tmp_path: Path) -> None:
    """The same files elsewhere are the same options; another text is not."""
    moved = tmp_path / "moved"
    data.rename(moved)
    digests = [
        wire.digest([artifacts.file_options(part.options) for part in _parts(suite)])
        for suite in (config.suite({**_SUITE, "data": str(folder)}) for folder in _places(moved, data))
    ]

    assert digests[0] == digests[1] != digests[2]


def _parts(suite: Suite) -> Iterator[Step | Task]:
    yield from suite.tasks[:3]
    yield from suite.recipes[1].steps


def _places(first: Path, second: Path) -> Any:
    yield first
    first.rename(second)
    yield second
    (second / "tasks/arc_easy.jsonl").write_text(_ITEM * 2)
    yield second


def test_a_relative_folder_and_a_home_are_found(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative path is one of the folder you run in, and ~ is your home."""
    monkeypatch.setenv("HOME", str(data.parent))
    monkeypatch.chdir(data.parent)

    for place in ("data", "~/data", os.curdir + "/data/"):
        suite = config.suite({**_SUITE, "data": place})
        assert _text(suite.tasks[2].options["data"]) == _ITEM


@pytest.mark.parametrize(
    ("missing", "sentence"),
    [
        ("tasks/arc_easy.jsonl", "data: arc_easy is read from {}/tasks/arc_easy.jsonl (or .gz), which does not exist"),
        ("wikitext-2/wiki.test.raw", "data: wikitext2 is read from {}/wikitext-2/wiki.test.raw, which does not exist"),
        (
            "wikitext-2/wiki.valid.raw",
            "data: wikitext2 is read from {}/wikitext-2/wiki.valid.raw, which does not exist",
        ),
    ],
)
def test_a_missing_file_is_named(data: Path, missing: str, sentence: str) -> None:
    """The file that was expected, in one sentence."""
    (data / missing).unlink()

    with pytest.raises(UserError) as raised:
        config.suite({**_SUITE, "data": str(data)})

    assert str(raised.value) == sentence.format(data)


def test_what_cannot_be_read_is_named(data: Path) -> None:
    """No folder; bytes that are no text; examples from a split that the file has not."""
    with pytest.raises(UserError, match="data: /none is no folder"):
        config.suite({**_SUITE, "data": "/none"})
    shots = {**_SUITE, "data": str(data), "tasks": [{"task": "lm_eval", "tasks": "arc_easy", "num_fewshot": 2}]}
    with pytest.raises(UserError, match="data: arc_easy with examples needs the training split"):
        config.suite(shots)
    (data / "wikitext-2/wiki.test.raw").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match=r"data: .*wiki\.test\.raw cannot be read as UTF-8 text"):
        config.suite({**_SUITE, "data": str(data)})
