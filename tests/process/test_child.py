"""What is kept of a process's output."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bench import paths
from bench.process import child


def log_of(script: str, folder: Path) -> child.Log:
    """The log of a Python process that has ended."""
    with child.logged([sys.executable, "-c", script], "test", cwd=folder, variables={}) as (process, log):
        process.wait(60)
    return log


@pytest.mark.usefixtures("cache")
def test_a_flood_without_line_ends_is_bounded(tmp_path: Path) -> None:
    """300 MB on one line: what is kept of it is a few MiB, its beginning and its end."""
    log = log_of("for i in range(300): print('%03d' % i * 333333, end='')\nprint('the end')", tmp_path)

    assert len(log.text) < 8 << 20
    assert log.text.startswith("000000")
    assert log.text.endswith("299the end\n")


@pytest.mark.usefixtures("cache")
def test_a_log_is_text_without_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its file steers no terminal that shows it; its last line has no secret, not even where it is cut."""
    monkeypatch.setenv("ACME_API_KEY", "sk-0123456789")
    log = log_of(r"print('\x1b[31mred\x1b[0m\n' + 'x' * 195 + 'sk-0123456789')", tmp_path)
    text = (paths.cache_folder("logs") / "last-test.log").read_text()

    assert text == f" [31mred [0m\n{'x' * 195}<ACME_API_KEY>\n"
    assert log.last == f"{'x' * 195}<ACME"
    assert log.last_clause.endswith("<ACME")
