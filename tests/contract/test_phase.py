"""The lines that a worker leaves of its steps."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.contract import phase
from tests.conftest import ROOT


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that phases are written to."""
    monkeypatch.setenv(phase.VARIABLE, str(tmp_path / "phases"))
    return tmp_path / "phases"


def test_steps_are_told_from_the_first_to_the_last(file: Path) -> None:
    """The step at hand by its number, each of them; counts at the beginning and at the end, however fast they pass."""
    phase.begin("loading")
    assert list(phase.each("abc", "layer {n} of {total}")) == ["a", "b", "c"]
    assert sum(phase.each(range(5000), "{done:,} of {total:,} tokens")) == 12497500

    lines = file.read_text().splitlines()
    assert lines[:5] == ["loading", *(f"layer {n} of 3" for n in (1, 2, 3)), "layer 3 of 3"]
    assert (lines[5], lines[-1]) == ("0 of 5,000 tokens", "5,000 of 5,000 tokens")
    assert len(lines) < 15


def test_nothing_is_written_where_nobody_follows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside a worker, and where the disk refuses it."""
    monkeypatch.delenv(phase.VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    phase.begin("loading")
    assert list(phase.each([1], "{done} of {total}")) == [1]
    monkeypatch.setenv(phase.VARIABLE, str(tmp_path / "no folder" / "phases"))
    phase.begin("loading")

    assert list(tmp_path.iterdir()) == []


def test_the_time_left_is_that_of_the_later_half() -> None:
    """Ten slow steps, then ten fast ones: what is to come is fast. Unknown before two steps, and for a second or so."""
    pace = phase.Pace()
    assert pace.remaining_s(40) is None
    pace.add(0.0, 0)
    assert pace.remaining_s(40) is None
    pace.add(1.0, 1)
    assert pace.remaining_s(40) is None
    for step in range(2, 11):
        pace.add(30.0 * step, step)
    assert pace.remaining_s(40) == pytest.approx(30 * 30)
    for step in range(11, 21):
        pace.add(300.0 + step - 10, step)
    assert pace.remaining_s(40) == pytest.approx(20)


def test_parts_of_a_step_leave_the_time_left_as_it_was(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A layer's parts pass at very different paces: nine tenths of it may be its last part."""
    times_s = iter((0.0, 1.0, 10.0, 11.0, 20.0, 30.0))
    monkeypatch.setattr(time, "monotonic", lambda: next(times_s))
    steps = phase.Steps("layer {n} of {total}", 3)
    for done, detail in ((0, "q"), (0.5, "v"), (1, "q"), (1.5, "v"), (2, "q"), (3, "")):
        steps.at(done, detail)

    assert file.read_text().splitlines() == [
        *("layer 1 of 3 (q)", "layer 1 of 3 (v)", "layer 2 of 3 (q)\t30.0", "layer 2 of 3 (v)\t30.0"),
        *("layer 3 of 3 (q)\t30.0", "layer 3 of 3\t30.0"),
    ]


def test_a_program_that_a_worker_starts_reports_in_its_place(file: Path) -> None:
    """The variable of the environment is all it takes; lines of both are whole, and in order."""
    phase.begin("before")
    code = "from bench.contract import phase; phase.begin('a\\nconverter')"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
    phase.begin("after")

    assert file.read_text().splitlines() == ["before", "a converter", "after"]


def test_a_library_s_bar_becomes_steps(file: Path) -> None:
    """Iterated, or updated by hand, with whatever else a bar can do; one without a total tells nothing."""
    bar = phase.bar("{done} of {total} bytes")
    assert list(bar(["a", "b"], desc="Writing")) == ["a", "b"]
    with bar(total=7, unit="byte") as manual:
        manual.set_description("Shard")
        manual.update(3)
        manual.update(4)
        manual.close()
    assert list(bar(iter("ab"))) == ["a", "b"]

    assert file.read_text().splitlines() == ["0 of 2 bytes", "2 of 2 bytes", "3 of 7 bytes", "7 of 7 bytes"]


@pytest.mark.clock
def test_a_step_costs_next_to_nothing(file: Path) -> None:
    """Below 20 microseconds each, and a hundred lines a minute: what is counted in a score's loop does not slow it."""
    steps, began = phase.Steps("{done} of {total}", 100_001), time.perf_counter()
    for _ in range(100_000):
        steps.add(1)

    assert (time.perf_counter() - began) / 100_000 < 20e-6
    assert len(file.read_text().splitlines()) <= 2 + 2 * (time.perf_counter() - began)
