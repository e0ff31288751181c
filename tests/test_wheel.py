"""The wheel brings configs and the demo model along: the command works where there is no checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.slow  # pip builds a wheel
def test_an_installed_suite_runs_in_any_folder(tmp_path: Path) -> None:
    """`run configs/smoke.yaml` finds the suite and its model in the wheel, and its workers find the packages alone."""
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True, timeout=120)
    (wheel,) = tmp_path.glob("llm_bench-*.whl")
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    with zipfile.ZipFile(wheel) as file:
        file.extractall(site)
    assert "llm-bench = bench.__main__:main" in next(site.glob("*.dist-info/entry_points.txt")).read_text()

    done = subprocess.run(
        [sys.executable, "-m", "bench", "run", "configs/smoke.yaml"],
        cwd=elsewhere,
        env={**os.environ, "PYTHONPATH": str(site), "LLM_BENCH_CACHE": str(tmp_path / "cache"), "COLUMNS": "120"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )

    assert done.returncode == 0, done.stderr
    assert "Rounds: 8 ok" in done.stderr
    assert "perplexity" in done.stdout or "ppl" in done.stdout
    (links,) = (tmp_path / "cache" / "code").iterdir()
    assert {link.name for link in links.iterdir()} == {"bench", "quantize", "eval"}
