"""The suite as a library: records as rows, and a run from Python."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import bench

ROOT = Path(__file__).resolve().parents[1]
_SUITE = """
model: models/demo
recipes: [as-is]
engines: [fake]
workloads: [{batch: 1, prompt_tokens: 4, new_tokens: 4, repeats: 2}]
devices: [cpu]
rounds: 2
settle_s: 0
"""


@pytest.fixture
def suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A suite of two rounds on the fake engine, in a folder that has nothing else."""
    monkeypatch.setenv("LLM_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "mine.yaml"
    file.write_text(_SUITE)
    return file


def test_a_run_from_python_gives_its_rounds_as_rows(suite: Path, tmp_path: Path) -> None:
    """The same rows as loading the folder gives; a second run does nothing and gives them again."""
    verb: Any = bench.run
    rows = verb(suite, results=tmp_path / "records", quiet=True)
    again = verb(str(suite), results=tmp_path / "records", quiet=True)

    assert [row["round"] for row in rows] == [0, 1]
    assert {row["status"] for row in rows} == {"ok"}
    assert all(row["tpot_s"] > 0 for row in rows)
    assert rows == again
    timed = [row for row in bench.load_results(tmp_path / "records") if row["kind"] == "workload"]
    assert timed == rows


def test_committed_records_are_rows_that_say_what_they_are() -> None:
    """One row a record, of three kinds, each with its cell, its artifact's size and its metrics."""
    rows = bench.load_results(ROOT / "results")

    assert len(rows) == len(list((ROOT / "results").rglob("r[0-9]*.json")))
    assert {row["kind"] for row in rows} == {"workload", "task", "artifact"}
    scored = next(row for row in rows if row["kind"] == "task" and row["status"] == "ok")
    assert {"measurement", "recipe", "engine", "bits_per_weight", "format"} <= scored.keys()
    assert not scored["reason"]


def test_tables_of_other_libraries_need_these_libraries() -> None:
    """One sentence says what to install; both are optional."""
    rows = bench.Rows([{"recipe": "nf4", "tpot_s": 0.5}, {"recipe": "int8"}])
    for method, library in (("to_pandas", "pandas"), ("to_arrow", "pyarrow")):
        try:
            __import__(library)
        except ModuleNotFoundError:
            with pytest.raises(bench.UserError, match=f"pip install {library}"):
                getattr(rows, method)()
        else:
            assert len(getattr(rows, method)()) == 2


def test_a_folder_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    """It says how to get records."""
    with pytest.raises(bench.UserError, match=r"no results folder at .*: run a suite first"):
        bench.load_results(tmp_path / "none")


def test_what_is_public_is_listed_and_imports_nothing() -> None:
    """`__all__` can be had, and `import bench` alone loads no library: workers do it in any environment."""
    assert all(getattr(bench, name) for name in bench.__all__)
    with pytest.raises(AttributeError, match="no attribute 'runs'"):
        _ = bench.runs
    script = "import sys, bench; print([m for m in ('pydantic', 'numpy', 'yaml', 'typer') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"
