"""The commands of a cluster where there is none, or no Ray."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, Command

_WITHOUT = "import sys; sys.modules['ray'] = None; from bench.__main__ import main; main()"


@pytest.mark.parametrize("words", [("run", "configs/smoke.yaml"), ("doctor",)])
def test_without_ray_one_sentence_says_how_to_get_it(tmp_path: Path, words: tuple[str, ...]) -> None:
    """The exit code is that of what has to be mended."""
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT, *words, "--on", "ray"],
        cwd=ROOT,
        env={**os.environ, "LLM_BENCH_CACHE": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )

    assert done.returncode == 2
    assert "error: --on ray needs Ray" in done.stderr
    assert "pip install 'llm-bench[fleet]'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("run", "configs/smoke.yaml", "--ray-address", "h:1"), "--ray-address is for --on ray"),
        (("doctor", "--ray-address", "h:1"), "--ray-address is for --on ray"),
        (("run", "configs/smoke.yaml", "--on", "ray", "--dry-run"), "leave --on ray out"),
        (("doctor", "--architectures", "--on", "ray"), "leave --on ray out"),
    ],
)
def test_options_that_contradict_each_other_are_refused(
    command: Command, words: tuple[str, ...], sentence: str
) -> None:
    """Before anything is connected."""
    done = command("bench", *words)

    assert done.returncode == 2
    assert sentence in done.stderr
