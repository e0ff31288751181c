"""What is exported opens in other programs, with the values that the records have."""

from __future__ import annotations

import builtins
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.contract.errors import UserError
from bench.rows import of_records
from bench.share import bundle, export, imports, tracking
from bench.share.selection import selected
from bench.store import Store
from tests.conftest import Command
from tests.share.conftest import timed

_ROWS = {"d0": 0.25, "d1": 0.25}  # of the load: digest and TTFT in seconds


@pytest.mark.parametrize("to", ["parquet", "csv", "jsonl"])
def test_files_open_in_pandas_polars_and_duckdb(store: Store, tmp_path: Path, to: Any) -> None:
    """A row a record, whole numbers whole, figures as floats."""
    duckdb, pd, pl = (pytest.importorskip(name) for name in ("duckdb", "pandas", "polars"))
    file = tmp_path / f"records.{to}"
    assert export.write(selected(store), to, file) == 3

    by_pandas = {"parquet": pd.read_parquet, "csv": pd.read_csv, "jsonl": lambda f: pd.read_json(f, lines=True)}[to]
    by_polars = {"parquet": pl.read_parquet, "csv": pl.read_csv, "jsonl": pl.read_ndjson}[to]
    frame, table = by_pandas(file), by_polars(file)
    loads = frame[frame["kind"] == "workload"]
    assert dict(zip(loads["digest"], loads["ttft_s"], strict=True)) == _ROWS
    assert str(frame["ttft_s"].dtype) == "float64"
    assert str(frame["parameters"].dtype) == "int64"
    assert table.filter(pl.col("kind") == "workload")["ttft_s"].to_list() == [0.25, 0.25]
    read = {"parquet": duckdb.read_parquet, "csv": duckdb.read_csv, "jsonl": duckdb.read_json}[to]
    assert read(str(file)).aggregate("count(*), max(ttft_s)").fetchall() == [(3, 0.25)]


def test_parquet_is_the_same_by_either_library(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pyarrow where it is installed, else polars; without both a sentence says what to install."""
    pl = pytest.importorskip("polars")
    records = selected(store)
    export.write(records, "parquet", one := tmp_path / "one.parquet")
    _hide(monkeypatch, "pyarrow")
    export.write(records, "parquet", two := tmp_path / "two.parquet")

    assert pl.read_parquet(one, use_pyarrow=False).equals(pl.read_parquet(two, use_pyarrow=False))
    _hide(monkeypatch, "pyarrow", "polars")
    with pytest.raises(UserError, match=r"pip install 'llm-bench\[parquet\]'"):
        export.write(records, "parquet", tmp_path / "three.parquet")
    assert not (tmp_path / "three.parquet").exists()


def _hide(monkeypatch: pytest.MonkeyPatch, *libraries: str) -> None:
    """As if they were not installed."""
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.partition(".")[0] in libraries:
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)


def test_a_formula_in_a_name_is_text_in_a_spreadsheet(store: Store, tmp_path: Path) -> None:
    """And stays as it is where no spreadsheet reads it."""
    cell = replace(timed().cell, recipe=replace(timed().cell.recipe, name="=1+1"))
    store.put(replace(timed(), cell=cell))
    for to in ("csv", "jsonl"):
        export.write(selected(store), to, tmp_path / to)

    assert ",'=1+1," in (tmp_path / "csv").read_text()
    assert '"recipe":"=1+1"' in (tmp_path / "jsonl").read_text()


def test_values_are_those_of_the_rows(store: Store) -> None:
    """A metric that is whole in one record is a float in all; what a row lacks is null."""
    store.put(replace(timed(2), metrics={"ttft_s": 1, "gap": 2.0}))
    table = export.columns(of_records(selected(store)))

    assert table["ttft_s"] == [None, 0.25, 0.25, 1.0]
    assert all(isinstance(value, float) for value in table["ttft_s"][1:])
    assert table["gap"][-1] == 2.0
    assert all(isinstance(value, int) for value in table["parameters"])
    assert not any(isinstance(v, float) and math.isnan(v) for values in table.values() for v in values)


def test_imported_records_are_exported_by_name(store: Store, tmp_path: Path) -> None:
    """Without --device foreign-… they are left out; a filter that matches nothing is a sentence."""
    bundle.write(store, tmp_path / "b.zip")
    imports.import_files([tmp_path / "b.zip"], store.root, "lab")

    assert {r.hardware.slug for r in selected(store)} == {"cpu-x-2c-8gib"}
    assert {r.hardware.slug for r in selected(store, device="foreign-l*")} == {"foreign-lab"}
    with pytest.raises(UserError, match=r"no records match --suite no --device cpu-z in .*: run a suite first"):
        selected(store, ["no"], "cpu-z")


def test_records_that_cannot_be_read_are_named(store: Store) -> None:
    """Where there are no others too: the folder has records, and they are damaged."""
    for path in store.root.rglob("r*.json"):
        path.write_text("{}")
    with pytest.raises(UserError, match=r"r0\.json is"):
        selected(store)


def test_runs_of_mlflow_are_logged_once(store: Store, tmp_path: Path) -> None:
    """An experiment for each suite; parameters, metrics and tags by name; a second export adds what is new."""
    mlflow = pytest.importorskip("mlflow")
    address = str(tmp_path / "runs")
    assert tracking.log(selected(store), address) == (3, 0)
    store.put(timed(2))
    assert tracking.log(selected(store), address) == (1, 3)

    client = mlflow.MlflowClient(tracking_uri=Path(address).as_uri())
    experiment = client.get_experiment_by_name("llm-bench/mine")
    runs = client.search_runs([experiment.experiment_id])
    loads = [run for run in runs if run.data.params["measurement"] == "offline-b1-p128-n64"]
    assert sorted(run.data.params["round"] for run in loads) == ["0", "1", "2"]
    assert all(run.data.metrics == {"ttft_s": 0.25} for run in loads)
    assert all(run.data.params["recipe"] == "gptq-4" and run.data.params["workload.batch"] == "1" for run in loads)
    assert all(run.data.tags["llm_bench.marks"] == "busy" and run.info.status == "FINISHED" for run in loads)


def test_a_tracking_server_that_does_not_answer_is_a_sentence(store: Store) -> None:
    """Soon, and with its address."""
    pytest.importorskip("mlflow")
    with pytest.raises(UserError, match=r"MLflow at http://127\.0\.0\.1:9 takes no records .*: check the address"):
        tracking.log(selected(store), "http://127.0.0.1:9")


def test_mlflow_that_is_not_installed_is_a_sentence(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says what to install."""
    _hide(monkeypatch, "mlflow")
    with pytest.raises(UserError, match=r"pip install 'llm-bench\[mlflow\]'"):
        tracking.log(selected(store), "")


def test_the_command_says_what_it_wrote(store: Store, command: Command, tmp_path: Path) -> None:
    """The file and its rows; a format that there is not is refused."""
    file = str(tmp_path / "out" / "r.jsonl")
    done = command("bench", "export", "--to", "jsonl", "-o", file, "--results", str(store.root))
    other = command("bench", "export", "--to", "xlsx", "--results", str(store.root))

    assert (done.returncode, done.stdout, done.stderr) == (0, f"{file}: 3 rows\n", "")
    assert len([json.loads(line) for line in Path(file).read_text().splitlines()]) == 3
    assert other.returncode == 2
    assert "xlsx" in other.stderr
