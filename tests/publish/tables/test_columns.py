"""A task declares its own columns: tables, spreadsheet, comparison and documents show them without naming it."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from bench.contract import plugins
from bench.contract.columns import Column, Group
from bench.contract.errors import UserError
from bench.contract.record import Result
from bench.contract.spec import Task
from bench.publish.tables import columns
from bench.store import Store
from tests.conftest import ROOT, Command
from tests.publish.tables.test_build import CPU, artifact_of, cell

_PLUGIN = """
from dataclasses import dataclass

from bench.contract.columns import Column, Group

VERSION = 1
REFERENCE = False
_CHANGE = Column("vowels_change_fraction", "vs baseline, points", better="higher", groups=Group.CHANGE)
COLUMNS = (
    Column("vowels_fraction", "vowels {title}", "%", 100.0, better="higher", change=_CHANGE),
    _CHANGE,
    Column("vowels_count", "vowels", groups=Group.CSV_ONLY),
)


@dataclass(frozen=True)
class Options:
    text: str = ""


def title(options):
    return "vowels-short"


def evaluate(session, options, folder, reference):
    return {"vowels": 3, "letters": 4}


def metrics(facts):
    return {"vowels_fraction": facts["vowels"] / facts["letters"], "vowels_count": float(facts["vowels"])}


def compare_to_baseline(facts, baseline):
    return {"vowels_change_fraction": (facts["vowels"] - baseline["vowels"]) / facts["letters"]}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of plugins with the task `vowels`, and records of it for a baseline and a compressed model."""
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks/vowels.py").write_text(_PLUGIN)
    store = Store(tmp_path / "results")
    for recipe, vowels in (("baseline", 2), ("gptq-4", 3)):
        store.put(
            Result(
                "d",
                "demo",
                cell(recipe, what=Task("vowels", name="vowels-short")),
                0,
                "ok",
                CPU,
                artifact=artifact_of(recipe),
                facts={"vowels": vowels, "letters": 4},
                metrics={"vowels_fraction": vowels / 4, "vowels_count": float(vowels)},
            )
        )
    return tmp_path


def test_a_tasks_own_columns_are_in_its_table(command: Command, folder: Path) -> None:
    """The metric with its unit and better side, and its change in points after it."""
    words = ("bench", "table", "--results", str(folder / "results"))
    outcome = command(*words, "--format", "md", LLM_BENCH_PLUGINS=str(folder))
    sheet = command(*words, "--format", "csv", LLM_BENCH_PLUGINS=str(folder))
    line = next(row for row in csv.DictReader(io.StringIO(sheet.stdout)) if row["recipe"] == "gptq-4")

    assert outcome.returncode == 0, outcome.stderr
    assert "size and quality: vowels over short" in outcome.stdout
    assert "| vowels % ↑ | vs baseline, points ↑ |" in outcome.stdout
    assert "| 75.0 | +25 |" in outcome.stdout
    assert [
        line[f"vowels-short/{key}"] for key in ("vowels_fraction", "vowels_fraction_n", "vowels_change_fraction")
    ] == ["0.75", "1", "0.25"]
    assert line["vowels-short/vowels_count"] == "3.0"


def test_a_tasks_own_columns_are_compared(command: Command, folder: Path) -> None:
    """By the change that the task itself gives; without an interval it is not called a difference."""
    words = ("bench", "compare", "baseline", "gptq-4", "--json", "--results", str(folder / "results"))
    done = command(*words, LLM_BENCH_PLUGINS=str(folder))
    (metric,) = (m for m in json.loads(done.stdout)["figures"] if m["metric"] == "vowels_fraction")

    assert metric["ratio"]["value"] == pytest.approx(1.5)
    assert (metric["change"]["change"], metric["better"], metric["verdict"]) == (0.25, "higher", "not tested")


def test_records_of_a_task_that_is_gone_are_still_a_table(command: Command, folder: Path) -> None:
    """Without its plugin nobody knows its columns: its cells say that it ran."""
    done = command("bench", "table", "--results", str(folder / "results"))

    assert done.returncode == 0, done.stderr
    assert "gptq-4" in done.stdout
    assert "vowels-short" in done.stdout


def test_every_column_is_declared_once() -> None:
    """A key has one column among those of artifacts and loads, and one among those of a task."""
    declared = [column.key for column in columns.COLUMNS]
    tasks = {kind: [c.key for c in columns.task_columns(kind)] for kind in plugins.names(plugins.TASKS)}

    assert len(declared) == len(set(declared))
    for kind, keys in tasks.items():
        assert keys, f"{kind} declares no column"
        assert len(keys) == len(set(keys))
        assert not set(keys) & set(declared)


def test_groups_are_queries() -> None:
    """In the order of declaration; those of spreadsheets alone only where asked for."""
    assert [c.key for c in columns.SERVING] == ["ttft_s", "tpot_s", "output_tok_per_s", "peak_memory_bytes"]
    assert [c.key for c in columns.SCALING] == ["output_tok_per_s", "ttft_p95_s", "tpot_p95_s"]
    energy = columns.group(Group.ENERGY)
    assert len(energy) < len(columns.group(Group.ENERGY, csv=True))
    assert Column("power_limit_w", "power_limit_w", groups=Group.ENERGY | Group.CSV_ONLY) not in energy


def test_what_no_column_has_cannot_be_quoted() -> None:
    """A misspelt key is answered with the nearest; a task's key is as good as a load's."""
    assert columns.quotable("kl_mean").header == "KL {title}"
    assert columns.quotable("ttft_s").unit == "ms"
    with pytest.raises(UserError, match="unknown figure 'tpot': did you mean 'tpot_s'"):
        columns.quotable("tpot")


def test_tables_name_no_task() -> None:
    """What is special of a task is in its columns."""
    for file in (ROOT / "bench/publish").rglob("*.py"):
        text = file.read_text()
        for name in plugins.names(plugins.TASKS):
            assert f'"{name}' not in text, f"{file} names the task {name}"
