"""`bench report` as a command: what it writes, what --check says, and what an empty folder gives."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from bench.cli.reports import app
from bench.contract.errors import UserError

RESULTS = Path(__file__).resolve().parents[2] / "results"


def report(folder: Path, *words: str) -> Result:
    return CliRunner().invoke(app, ["report", "--results", str(folder), *words])


@pytest.mark.slow
def test_it_writes_tables_figures_and_the_page_once(tmp_path: Path) -> None:
    """All of them at first, nothing the second time; the page is no part of what --check compares."""
    device = next(folder for folder in RESULTS.iterdir() if folder.is_dir())
    shutil.copytree(device / "libraries", tmp_path / device.name / "libraries")
    written = report(tmp_path).output.split()
    figures = tmp_path / device.name / "figures"
    assert {Path(path).name for path in written} == {
        "README.md",
        "TABLES.md",
        "tables.csv",
        "report.html",
        "libraries-quality-bits.svg",
    }
    assert report(tmp_path).output == ""
    (tmp_path / "report.html").unlink()
    assert report(tmp_path, "--check").exit_code == 0
    (figures / "libraries-quality-bits.svg").unlink()
    refused = report(tmp_path, "--check")
    assert isinstance(refused.exception, UserError)
    assert "libraries-quality-bits.svg; write them with: python -m bench report" in str(refused.exception)
    assert not (tmp_path / "report.html").exists()
    again = {Path(path).name for path in report(tmp_path).output.split()}
    assert again == {"libraries-quality-bits.svg", "report.html"}


def test_a_folder_without_records_gets_a_page_that_says_so(tmp_path: Path) -> None:
    """Even one that is not there yet."""
    assert report(tmp_path / "new").exit_code == 0
    text = (tmp_path / "new" / "report.html").read_text()
    assert "No records yet" in text
    assert str(tmp_path) not in text
