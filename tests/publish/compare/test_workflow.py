"""The workflow for GitHub Actions in docs/results.md: its run lines, as a runner runs them."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench import yaml
from bench.store import Store
from tests.conftest import ROOT
from tests.publish.compare.test_gate_errors import Noise, noise_of

_BLOCK = re.compile(r"^```yaml\n# \.github/workflows/bench\.yml\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def _workflow() -> dict[str, Any]:
    (text,) = _BLOCK.findall((ROOT / "docs/results.md").read_text(encoding="utf-8"))
    workflow: dict[str, Any] = yaml.load(text)
    return workflow


def _step(name: str) -> dict[str, Any]:
    (step,) = [its for its in _workflow()["jobs"]["gates"]["steps"] if its.get("name") == name]
    return dict(step)


def _run(name: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """A step's lines by `bash -e`, in a workspace whose checkouts `base` and `head` are this one."""
    workspace, temp = folder / "workspace", folder / "temp"
    for path in (workspace, temp):
        path.mkdir(exist_ok=True)
    for side in ("base", "head"):
        if not (workspace / side).exists():
            (workspace / side).symlink_to(ROOT)
    script = folder / f"{name}.sh"
    script.write_text(_step(name)["run"])
    programs = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    variables = {"PATH": programs, "RUNNER_TEMP": str(temp), "LLM_BENCH_CACHE": str(folder / "cache"), "PYTHONPATH": ""}
    return subprocess.run(
        ["bash", "-e", str(script)],
        cwd=workspace,
        env={**os.environ, **_workflow()["env"], **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.fixture(scope="module")
def noise() -> Noise:
    return noise_of("serving")


def _put(folder: Path, noise: Noise, seed: int, factor: float, rounds: int = 3, cells: int = 99) -> None:
    randomness = random.Random(seed)  # noqa: S311  (reproducible, not secret)
    few = Noise(dict(list(noise.cells.items())[:cells]), noise.residuals)
    for result in few.run(randomness, factor, rounds):
        Store(folder).put(replace(result, started=f"2026-11-29T00:00:{seed:02}"))


@pytest.mark.records
@pytest.mark.parametrize(
    ("factor", "rounds", "cells", "code", "verdict"),
    [(1.0, 3, 99, 0, "kept"), (1.1, 3, 99, 1, "broken"), (1.5, 1, 1, 0, "cannot tell")],
)
def test_its_gates_decide_on_committed_records(
    tmp_path: Path, noise: Noise, factor: float, rounds: int, cells: int, code: int, verdict: str
) -> None:
    """A second run of the same passes, a tenth slower fails, and one round of one load cannot tell, which passes."""
    _put(tmp_path / "temp" / "base", noise, 1, 1.0, rounds, cells)
    _put(tmp_path / "temp" / "head", noise, 2, factor, rounds, cells)
    done = _run("gates", tmp_path)
    comment = (tmp_path / "temp" / "gates.md").read_text()

    assert done.returncode == code, done.stderr
    assert verdict in comment[comment.index("**gates:") : comment.index("over all cells")]


@pytest.mark.slow
def test_it_measures_both_sides_and_judges_them(tmp_path: Path) -> None:
    """With the suite that the example names, on the fake engine; the comment is what the gates wrote."""
    measured = _run("measure", tmp_path)
    assert measured.returncode == 0, measured.stderr
    for side in ("base", "head"):
        assert len(list((tmp_path / "temp" / side).rglob("serving/**/r*.json"))) == 10
    judged = _run("gates", tmp_path)

    assert judged.returncode in (0, 1), judged.stderr  # the fake engine's times are real
    assert "gates:" in (tmp_path / "temp" / "gates.md").read_text()
    comment = _step("comment")
    assert comment["if"] == "always()"
    assert '"$RUNNER_TEMP/gates.md"' in comment["run"]
