from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Command


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MiB; making one needs root."""
    folder = tmp_path / "disk"
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if subprocess.run(words, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a tmpfs")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def _smoke(command: Command, *, cache: Path, results: Path) -> subprocess.CompletedProcess[str]:
    words = ["--rounds", "1", "--results", str(results)]
    return command("bench", "run", "configs/smoke.yaml", *words, LLM_BENCH_CACHE=str(cache))


def test_an_artifact_that_does_not_fit_is_a_failed_record(command: Command, small_disk: Path, tmp_path: Path) -> None:
    """The cache is full: the cells are recorded as failed with the reason, and no half artifact is left."""
    done = _smoke(command, cache=small_disk, results=tmp_path / "results")

    assert done.returncode == 0, done.stderr
    assert "no space left on" in done.stdout
    assert "4 failed" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert list(small_disk.glob("artifacts/*/artifact.json")) == []


def test_a_reference_that_does_not_fit_is_a_failed_record(command: Command, small_disk: Path, tmp_path: Path) -> None:
    """More predictions of the baseline than the cache has room for: said before they are made, none left."""
    suite = tmp_path / "mine.yaml"
    suite.write_text(
        "{model: models/demo, recipes: [as-is], engines: [fake], devices: [cpu], settle_s: 0,"
        " tasks: [{task: divergence, context: 128, tokens: 4096}]}"
    )
    done = command("bench", "run", str(suite), LLM_BENCH_CACHE=str(small_disk))

    assert done.returncode == 0, done.stderr
    assert "its reference (as-is on fake) could not be made" in " ".join(done.stdout.split())
    assert "lower the task's `tokens`" in " ".join(done.stdout.split())
    assert [f for f in (small_disk / "references").iterdir() if f.suffix != ".lock"] == []


def test_records_that_cannot_be_written_end_in_one_sentence(command: Command, cache: Path, small_disk: Path) -> None:
    """The results' disk is full: exit code 2, a sentence that names their folder, and the records there stay whole."""
    (small_disk / "filler").write_bytes(bytes((1 << 20) - (24 << 10)))
    done = _smoke(command, cache=cache, results=small_disk / "results")

    assert done.returncode == 2
    named = f"error: the results folder {small_disk / 'results'} cannot be written (No space left on device)"
    assert done.stderr.splitlines()[-1].startswith(named)
    assert "Traceback" not in done.stderr
    assert list(small_disk.rglob("*.part")) == []
