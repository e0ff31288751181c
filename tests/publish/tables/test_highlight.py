"""Bold is for what is best beyond the noise: worked out by hand for every reason not to be."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import pty
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from bench.contract.record import Result
from bench.contract.workload import Workload
from bench.publish.tables import highlight
from bench.publish.tables.build import build
from bench.publish.tables.columns import DASH
from bench.publish.tables.render import render
from bench.store import Store
from tests.conftest import ROOT
from tests.publish.tables.test_build import LOAD, artifact_of, scored, served
from tests.publish.tables.test_divergence import diverged
from tests.publish.tables.test_scores import _answered, _answers


def timed(recipe: str, values: Sequence[float], what: Workload = LOAD) -> list[Result]:
    """A round for each TTFT in seconds; nothing else is measured, and no artifact is known."""
    return [
        replace(served(recipe, value, i, what=what), metrics={"ttft_s": value}, artifact=None)
        for i, value in enumerate(values)
    ]


def bold(records: Sequence[Result]) -> set[tuple[str, str]]:
    """Recipe and cell of what Markdown has in bold."""
    result = set()
    for line in render(build(records), "md").splitlines():
        cells = [cell.strip() for cell in line.replace("\\", "").strip("|").split(" | ")]
        result |= {(cells[0].strip(), cell.strip("*")) for cell in cells if cell.startswith("**")}
    return {(recipe, cell) for recipe, cell in result if not recipe.startswith("**")}


@pytest.mark.parametrize(
    ("first", "second", "won"),
    [
        ((0.010, 0.011, 0.012), (0.020, 0.021, 0.022), f"11.0 (10.0{DASH}12.0)"),
        ((0.010, 0.011, 0.012), (0.012, 0.021, 0.022), ""),
        ((0.010, 0.011, 0.021), (0.020, 0.021, 0.022), ""),
        ((0.010,), (0.020, 0.021), ""),
        ((0.010, 0.011), (0.020,), f"10.5 (10.0{DASH}11.0)"),
        ((0.010, 0.010), (0.010, 0.010), ""),
        ((0.01000, 0.01000), (0.01001, 0.01001), ""),
    ],
)
def test_the_best_is_bold_where_ranges_are_apart(first: Sequence[float], second: Sequence[float], won: str) -> None:
    """Apart: bold. Touching, overlapping, a single round, a tie, or a tie as shown: nothing is."""
    result = bold([*timed("a", first), *timed("b", second)])

    assert result == ({("a", won)} if won else set())


def test_alone_or_doubtful_nothing_wins() -> None:
    """One row is no contest; failed requests, a busy client or a busy device leave it open who is best."""
    mine, theirs = timed("a", (0.010, 0.011)), timed("b", (0.020, 0.021))
    late = [replace(r, facts={"client_lag_p99_s": 1.0}) for r in mine]
    lost = [replace(r, metrics={**r.metrics, "failed_requests": 1.0}) for r in mine]
    busy = [replace(r, marks=("busy",)) for r in mine]

    assert bold(mine) == set()
    for doubtful in (late, lost, busy):
        assert bold([*doubtful, *theirs]) == set()
    assert bold([*mine, *[replace(r, marks=("busy",)) for r in theirs]]) == {("a", f"10.5 (10.0{DASH}11.0)")}


def test_bits_and_bytes_are_exact() -> None:
    """The smallest artifact is bold after one round, and not where two are as small."""
    records = [served(recipe, 0.01) for recipe in ("baseline", "gptq-4")]

    assert bold(records) == {("gptq-4", "4.25")}
    assert bold([*records, served("awq-4", 0.01)]) == set()


def test_quality_is_a_contest_of_the_compressed() -> None:
    """By the interval of KL, of top-1 and of the change; a baseline, and its copy in floats, are left out."""
    base = [diverged("baseline", 1e-9, 1.0), scored("baseline", [1000.0, 990.0])]
    near = [diverged("gptq-4", 0.03, 0.9), scored("gptq-4", [1010.0, 1001.0])]
    far = [diverged("gptq-3", 0.30, 0.7), scored("gptq-3", [1100.0, 1091.0])]
    same = [diverged("gptq-3", 0.031, 0.899), scored("gptq-3", [1011.0, 1000.0])]
    quality = {cell for recipe, cell in bold([*base, *near, *far]) if recipe == "gptq-4" and cell != "4.25"}

    assert {"0.030 ± 0.003", "90.00 ± 0.40"} <= quality
    assert sum(cell.startswith("+") for cell in quality) == 1
    copy = diverged("gguf-f16", 3e-6, 0.9999, "llamacpp")
    for records in ([*base, *near, *far], [*base, *near, *far, copy]):
        assert {recipe for recipe, cell in bold(records) if "±" in cell} == {"gptq-4"}
    assert not {cell for _, cell in bold([*base, *near, *same]) if "±" in cell}
    assert not {cell for _, cell in bold([*base, *near]) if "±" in cell}


def test_scores_are_bold_where_items_tell_them_apart() -> None:
    """One that lost 2 of 1,000 items beside one that lost 300: accuracy and the paired change."""
    records = [_answered(name, _answers(600, lost)) for name, lost in (("baseline", 0), ("a", 2), ("b", 300))]
    result = {cell for recipe, cell in bold(records) if recipe == "a"}

    assert "59.8 ± 3.0" in result
    assert any("noise" in cell for cell in result)
    assert not {recipe for recipe, _ in bold(records)} - {"a"}
    close = [_answered(name, _answers(600, lost)) for name, lost in (("baseline", 0), ("a", 2), ("b", 4))]
    assert bold(close) == set()


def test_the_legend_is_there_where_something_is_bold() -> None:
    """In Markdown and for a terminal that can; a pipe has neither bold nor its legend, csv and json never."""
    separate = build([*timed("a", (0.010, 0.011)), *timed("b", (0.020, 0.021))])
    close = build([*timed("a", (0.010, 0.021)), *timed("b", (0.020, 0.021))])

    assert highlight.LEGEND[:30] in render(separate, "md")
    assert "bold:" not in render(close, "md")
    assert "bold:" in render(separate, "terminal", 120, bold=True)
    assert "bold:" not in render(separate, "terminal", 120)
    for text in (render(separate, "csv", bold=True), render(separate, "json", bold=True)):
        assert "**" not in text
        assert "\x1b" not in text
    assert json.loads(render(separate, "json"))["rows"][0]["workloads"]
    assert next(csv.DictReader(io.StringIO(render(separate, "csv"))))["short/ttft_s"].startswith("0.010")


@pytest.mark.parametrize("width", [40, 60, 120])
def test_bold_moves_nothing_in_a_terminal(width: int) -> None:
    """Without its two codes the text is that of a pipe, whether rich drew it or the fast path did."""
    records = [
        r
        for name, values in (("a", (0.010, 0.011)), ("b-with-a-longer-name", (0.020, 0.021)))
        for r in timed(name, values)
    ]
    records = [
        replace(r, metrics={**r.metrics, "tpot_s": r.metrics["ttft_s"]}, artifact=artifact_of("baseline"))
        for r in records
    ]
    table = build(records)
    printed, plain = (render(table, "terminal", width, bold=bold_) for bold_ in (True, False))
    tables = printed.partition("Figures are")[0]

    assert "\x1b[1m" in printed
    assert tables.replace("\x1b[1m", "").replace("\x1b[0m", "") == plain.partition("Figures are")[0]
    assert tables.count("\x1b[1m") == tables.count("\x1b[0m")


def test_the_command_sets_bold_for_a_terminal_alone(tmp_path: Path) -> None:
    """The same table in a pseudo-terminal and in a pipe; a dumb terminal gets it plain too."""
    store = Store(tmp_path)
    for result in [*timed("a", (0.010, 0.011)), *timed("b", (0.020, 0.021))]:
        store.put(result)
    words = [sys.executable, "-m", "bench", "table", "--results", str(tmp_path)]

    def shown(term: str) -> str:
        parent, child = pty.openpty()
        environment = {**os.environ, "TERM": term, "COLUMNS": "120"}
        with subprocess.Popen(words, cwd=ROOT, stdout=child, stderr=child, env=environment) as running:
            os.close(child)
            drawn = b""
            with contextlib.suppress(OSError):  # how Linux says that the other end is closed
                while block := os.read(parent, 65536):
                    drawn += block
            running.wait()
        os.close(parent)
        return drawn.decode()

    piped = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "\x1b[1m10.5 (10.0" in shown("xterm")
    assert "bold:" in shown("xterm")
    assert "\x1b" not in shown("dumb")
    assert "\x1b" not in piped
