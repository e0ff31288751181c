"""A checkpoint on the Hub: planned without it, fetched by a run, and recorded by its name and commit."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.models.hub import COMMIT, hub
from tests.run import fake_runs

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_a_checkpoint_of_the_hub_is_fetched_by_a_run(tmp_path: Path) -> None:
    """`plan` and `--dry-run` fetch nothing and say what is not here; a second run finds nothing to do."""
    theirs = tmp_path / "theirs"
    shutil.copytree("models/demo", theirs, ignore=shutil.ignore_patterns("*.py", "*.csv", "*.md"))
    suite = Path(fake_runs.suite_file(tmp_path, rounds=1))
    suite.write_text(suite.read_text().replace("[as-is]", "[as-is, {name: theirs, checkpoint: org/theirs-AWQ}]"))

    with hub({"org/theirs-AWQ": theirs}) as url:
        planned = _bench(tmp_path, url, "plan", str(suite))
        dry = _bench(tmp_path, url, "run", str(suite), "--dry-run")
        assert not list((tmp_path / "hub").rglob("*.safetensors"))
        ran = _bench(tmp_path, url, "run", str(suite))
    again = _bench(tmp_path, "http://127.0.0.1:9", "run", str(suite))  # no Hub any more
    (record,) = (tmp_path / "results").rglob("serving/*/theirs/**/r0.json")
    stored = json.loads(record.read_text())

    assert planned == dry
    assert "recipe theirs: org/theirs-AWQ is not here yet: a run fetches it" in planned
    assert "theirs: a checkpoint, org/theirs-AWQ, not made here" in ran
    assert stored["cell"]["recipe"] == {"checkpoint": "org/theirs-AWQ", "name": "theirs", "steps": []}
    assert stored["artifact"]["source"] == f"hub:org/theirs-AWQ@{COMMIT}"
    assert "nothing left to run; 2 recorded before" in again


def _bench(tmp_path: Path, url: str, verb: str, *arguments: str) -> str:
    env = {**os.environ, "HF_ENDPOINT": url, "HF_HOME": str(tmp_path / "hub"), "LLM_BENCH_CACHE": str(tmp_path / "c")}
    command = [sys.executable, "-m", "bench", verb, *arguments, "--results", str(tmp_path / "results")]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-1000:]
    return " ".join((done.stdout + done.stderr).split())
