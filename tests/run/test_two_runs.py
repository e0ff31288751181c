"""Two runs of one suite at once: each round is run once."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bench.machine import hardware
from bench.progress.progress import Progress
from bench.run import runner
from tests.conftest import ROOT, Command
from tests.run.fake_runs import suite_file


def _both(tmp_path: Path, cache: Path, suite: str, *words: str) -> list[str]:
    """The stderr of two runs that both wait for the device before either has run a round."""
    argv = [sys.executable, "-m", "bench", "run", suite, "--results", str(tmp_path / "results"), *words]
    variables = {**os.environ, "LLM_BENCH_CACHE": str(cache)}
    with runner.alone(hardware.detect("cpu"), Progress(quiet=True)):
        runs = [
            subprocess.Popen(argv, cwd=ROOT, env=variables, stdout=-1, stderr=subprocess.PIPE, text=True) for _ in "ab"
        ]
        heads = [_wait(run) for run in runs]
    tails = [run.communicate(timeout=120)[1] for run in runs]
    assert [run.returncode for run in runs] == [0, 0]
    return [head + tail for head, tail in zip(heads, tails, strict=True)]


def _wait(run: subprocess.Popen[str]) -> str:
    assert run.stderr is not None
    head = ""
    while "another run is measuring" not in head:
        assert run.poll() is None
        head += run.stderr.readline()
    return head


@pytest.mark.slow
@pytest.mark.parametrize("retry", [False, True])
def test_what_another_run_recorded_is_not_run_again(
    command: Command, tmp_path: Path, cache: Path, *, retry: bool
) -> None:
    """The second looks again once the device is its own; a failed round is tried again by one of them only."""
    suite = suite_file(tmp_path, "[fake, {name: fake, label: dies, fail: exit}]", rounds=2)
    if retry:
        command("bench", "run", suite)
    first, second = _both(tmp_path, cache, suite, *(["--retry", "failed"] if retry else []))

    ran = [re.findall(r"(?:\] .* round \d (?:ok|failed))", text) for text in (first, second)]
    assert sorted(map(len, ran)) == [0, 2 if retry else 4]
    idle = first if not ran[0] else second
    assert f"{2 if retry else 4} rounds were recorded by another run in the meantime" in idle
    assert "nothing left to run; 4 recorded before" in idle
