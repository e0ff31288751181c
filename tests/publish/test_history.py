"""A cell's metric over commits is what its records were at each, with what else changed, and noise called noise."""

from __future__ import annotations

import csv
import io
import json
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from bench.contract.errors import UserError
from bench.publish import history
from bench.publish.figures import draw
from bench.store import Store
from tests.conftest import Command
from tests.publish.compare.test_compare import LOADS, _git, rounds

CELL = "demo/a/hf/one"


def _put(folder: Path, values: Sequence[float], library: str = "1.0", digest: str = "d") -> None:
    for result in rounds("a", values):
        Store(folder).put(replace(result, environment={"torch": library}, digest=digest))


def _commit(repo: Path, subject: str) -> str:
    _git(repo, "add", ".")
    _git(repo, "commit", "-qm", subject)
    done = subprocess.run(["git", "-C", str(repo), "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Five commits: three of the cell's records, one of another cell, one of none; then a change without a commit."""
    repo = tmp_path / "repo"
    folder = repo / "results"
    folder.mkdir(parents=True)
    _git(repo, "init", "-q", "-b", "main")
    _put(folder, [0.010, 0.011, 0.012])
    _commit(repo, "one")
    _put(folder, [0.0105, 0.0112, 0.0119], library="1.1")
    _commit(repo, "two")
    for result in rounds("a", [1.0, 2.0], LOADS[1]):
        Store(folder).put(result)
    _commit(repo, "another cell")
    (repo / "notes").write_text("x")
    _commit(repo, "no record")
    _put(folder, [0.020, 0.021, 0.022], library="1.1", digest="e")
    _commit(repo, "slower")
    _put(folder, [0.030, 0.031, 0.032], library="1.1", digest="e")
    return folder


def test_each_commit_that_changed_the_cell_is_a_point(results: Path) -> None:
    """In order, with medians, and last what is not committed; commits of other things are none."""
    its = history.history(results, CELL, "tpot_s")

    assert its.cell == "cpu-x-2c-8gib/demo/demo/a/hf/one"
    assert [point.figure.median for point in its.points] == [0.011, 0.0112, 0.021, 0.031]
    assert [bool(point.commit) for point in its.points] == [True, True, True, False]
    assert [point.figure.n for point in its.points] == [3, 3, 3, 3]
    assert its.problems == ()


def test_what_else_changed_stands_beside_it(results: Path) -> None:
    """Versions of libraries, and whether the digest is another; of the first point all versions."""
    changes = [point.changes for point in history.history(results, CELL, "tpot_s").points]

    assert changes[0] == ("torch 1.0",)
    assert changes[1] == ("torch 1.0 to 1.1",)
    assert changes[2] == ("digest: settings, artifact, plugin or environment",)
    assert changes[3] == ()


def test_noise_is_called_noise_and_a_change_has_its_interval(results: Path) -> None:
    """2 % within rounds that differ by 20 % are noise; 1.9 times as long is not."""
    its = history.history(results, CELL, "tpot_s")
    lines = history.section(its).lines

    assert lines[1][-2].endswith("noise")
    assert "noise" not in lines[2][-2]
    assert lines[2][-3].startswith("1.87")
    assert [len(line[4]) for line in lines] == [9, 9, 16, 24]
    assert lines[3][0] == "not committed"


def test_one_round_cannot_tell(results: Path) -> None:
    """Its noise is not known."""
    for file in results.rglob("one/r[12].json"):
        file.unlink()
    _put(results, [0.04])
    lines = history.section(history.history(results, CELL, "tpot_s")).lines

    assert lines[-1][2] == "1"
    assert lines[-1][-2] == "cannot tell"


def test_it_is_drawn_as_a_chart(results: Path) -> None:
    """A label for each commit, in milliseconds."""
    its = history.history(results, CELL, "tpot_s")
    spec = history.chart(its)
    svg = draw.svg(spec)

    assert [round(row["median"], 3) for row in spec["data"]["values"]] == [11.0, 11.2, 21.0, 31.0]
    for point in its.points[:3]:
        assert point.commit[:10] in svg
    assert "not committed" in svg


@pytest.mark.parametrize(
    ("cell", "metric", "sentence"),
    [
        ("demo/a/hf", "tpot_s", "invalid cell 'demo/a/hf': expected SUITE/RECIPE/ENGINE/LOAD-OR-TASK"),
        ("demo/a//one", "tpot_s", "invalid cell"),
        ("demo/a/hf/*", "tpot_s", "matches 2 cells, .*: narrow it to one"),
        ("demo/a/hg/one", "tpot_s", "unknown engine 'hg': did you mean 'hf'"),
        ("dmo/a/hf/one", "tpot_s", "unknown suite 'dmo': did you mean 'demo'"),
        (CELL, "tpot", "unknown metric of the cell 'tpot': did you mean 'tpot_s'"),
    ],
)
def test_what_names_no_cell_is_one_sentence(results: Path, cell: str, metric: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        history.history(results, cell, metric)


def test_what_has_no_history_is_one_sentence(results: Path, tmp_path: Path) -> None:
    """A folder that is in no repository, one without records, a commit that is none, nothing after a commit."""
    with pytest.raises(UserError, match="git cannot read the repository"):
        history.history(tmp_path / "nowhere", CELL, "tpot_s")
    with pytest.raises(UserError, match="no records in the history of that folder"):
        history.history(results.parent / "empty", CELL, "tpot_s")
    with pytest.raises(UserError, match="no commit, tag or branch is called nonsense"):
        history.history(results, CELL, "tpot_s", since="nonsense")
    _git(results.parent, "checkout", "-q", ".")
    with pytest.raises(UserError, match="no commit after HEAD has other records"):
        history.history(results, CELL, "tpot_s", since="HEAD")
    assert len(history.history(results, CELL, "tpot_s", since="HEAD~1").points) == 1


def test_an_imported_cell_is_named_by_its_device(results: Path) -> None:
    """Without --device foreign-… a cell of the same names is this machine's alone."""
    for result in rounds("a", [0.5]):
        Store(results).put(replace(result, hardware=replace(result.hardware, slug="foreign-lab")))

    assert history.history(results, CELL, "tpot_s").cell.startswith("cpu-x-2c-8gib/")
    imported = history.history(results, CELL, "tpot_s", device="foreign-*")
    assert [point.figure.median for point in imported.points] == [0.5]
    shutil.rmtree(results / "cpu-x-2c-8gib")
    _commit(results.parent, "no more of its own")
    with pytest.raises(UserError, match=r"no records but imported ones .*: name one with --device"):
        history.history(results, CELL, "tpot_s", since="HEAD")


def test_a_record_that_was_damaged_at_a_commit_is_named(results: Path) -> None:
    """With the commit; the other rounds stay."""
    file = next(results.rglob("one/r1.json"))
    file.write_text("{}")
    commit = _commit(results.parent, "damaged")
    its = history.history(results, CELL, "tpot_s")

    assert any(f"(at commit {commit[:10]})" in problem for problem in its.problems)
    assert its.points[-1].figure.n == 2


def test_the_command_prints_four_forms_and_draws(command: Command, results: Path, tmp_path: Path) -> None:
    """Exit code 0; 2 for a typo."""
    words = ("bench", "history", CELL, "tpot_s", "--results", str(results))
    svg = tmp_path / "history.svg"
    terminal = command(*words, "--svg", str(svg))
    sheet = command(*words, "--format", "csv")
    page = command(*words, "--format", "md")
    whole = command(*words, "--format", "json")
    wrong = command("bench", "history", CELL, "tpt_s", "--results", str(results))

    assert "not committed" in terminal.stdout
    assert "█" in terminal.stdout
    assert svg.read_text().startswith("<svg")
    lines = list(csv.DictReader(io.StringIO(sheet.stdout)))
    assert [float(line["median"]) for line in lines] == [0.011, 0.0112, 0.021, 0.031]
    assert page.stdout.startswith("| commit | date | n | TPOT ms")
    assert [point["figure"]["median"] for point in json.loads(whole.stdout)["points"]] == [0.011, 0.0112, 0.021, 0.031]
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("error: unknown metric of the cell 'tpt_s'")
